"""Processes under measurement: started in a session of their own, frozen and thawed, weighed, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from bench.machine import favour

_END_SECONDS = 5.0


@dataclass(frozen=True)
class Memory:
    """What a tree of processes occupies, in bytes; `pss` shares out what several processes have mapped."""

    pss: int
    rss: int


class Running:
    """A started program and everything it has started since."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    @property
    def pids(self) -> list[int]:
        """The process and its descendants."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (stat := _read(entry / "stat")):
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def freeze(self) -> None:
        """Take the processor away, so that an idle server costs the measured one nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Give the processor back."""
        self._signal(signal.SIGCONT)

    def cpu_seconds(self) -> float:
        """Return the processor time that the scheduler has given to all threads of the tree."""
        nanoseconds = 0
        for pid in self.pids:
            with contextlib.suppress(OSError):
                for task in Path(f"/proc/{pid}/task").iterdir():
                    nanoseconds += int((_read(task / "schedstat") or "0").split()[0])
        return nanoseconds / 1e9

    def memory(self) -> Memory:
        """Return what the tree occupies now."""
        sums = {"Pss": 0, "Rss": 0}
        for pid in self.pids:
            for line in (_read(Path(f"/proc/{pid}/smaps_rollup")) or "").splitlines():
                name, _, size = line.partition(":")
                if name in sums:
                    sums[name] += int(size.split()[0]) * 1024
        return Memory(sums["Pss"], sums["Rss"])

    def last_words(self) -> str:
        """Return the end of what the program wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])

    def end(self) -> None:
        """End the tree: with SIGTERM, then, after a while, with SIGKILL."""
        pids = self.pids
        self.thaw()
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_END_SECONDS)
        for pid in {*pids, *self.pids}:
            # A recycled id is not ours to kill: those of the tree are in its session.
            with contextlib.suppress(OSError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def pinned(argv: Sequence[str], cores: Set[int]) -> list[str]:
    """Return the command that runs `argv` on some processors only."""
    return ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), *argv]


@contextlib.contextmanager
def running(argv: Sequence[str], cores: Set[int], log: Path, env: Mapping[str, str]) -> Iterator[Running]:
    """Run a program while the block lasts; what it writes goes to the log."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            pinned(argv, cores), stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            env=env, start_new_session=True,
        )  # fmt: skip
    program = Running(process, log)
    try:
        favour(process.pid)
        yield program
    finally:
        program.end()


def run_pinned(argv: Sequence[str], cores: Set[int], timeout_s: float) -> str:
    """Run a load generator to its end, before everybody else; returns what it wrote to standard output."""
    process = subprocess.Popen(
        pinned(argv, cores), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True, text=True,
    )  # fmt: skip
    try:
        favour(process.pid)
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(argv), output)
    return output


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
