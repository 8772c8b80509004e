"""What a command costs: time, processor time of everything that it starts, and memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from bench.machine import BenchError

_INTERVAL_S = 0.005
_KIB = 1024
_MB = 1e6


@dataclass(frozen=True)
class Cost:
    """What one command cost.

    `largest_mb` is the high-water mark of the process that had the highest, `sum_mb` the most that all
    processes had together; what they share counts in each of them.
    """

    wall_s: float
    cpu_s: float
    largest_mb: float
    sum_mb: float


def meter(
    argv: Sequence[str], *, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> tuple[Cost, str]:
    """Run a command to its end; gives its cost and what it wrote to standard output.

    Raises BenchError, with the end of what it said, when it fails.
    """
    with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as err:
        given.write(stdin)
        given.seek(0)
        began = time.monotonic()
        process = subprocess.Popen(
            list(argv), stdin=given, stdout=out, stderr=err, start_new_session=True,
            env={**os.environ, **(env or {})},
        )  # fmt: skip
        watch = _Watch(process.pid)
        try:
            # Not process.wait(): only wait4 tells the processor time of this command alone.
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.monotonic() - began
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            watch.end()
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            said = (out.read()[-500:] + err.read()[-1500:]).decode(errors="replace")
            raise BenchError(f"`{' '.join(argv)[:200]}` ended with {process.returncode}: {said}")
        cost = Cost(wall, usage.ru_utime + usage.ru_stime, watch.largest / _MB, watch.total / _MB)
        return cost, out.read().decode()


class _Watch:
    """Looks at the memory of a process tree until it is told to end.

    The high-water mark of rusage will not do: a process inherits it from the one that started it.
    """

    def __init__(self, pid: int) -> None:
        self.largest = self.total = 0
        self._pid = pid
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop looking."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(_INTERVAL_S):
            sizes = [_memory(pid) for pid in _tree(self._pid)]
            self.largest = max([self.largest, *(high for high, _ in sizes)])
            self.total = max(self.total, sum(now for _, now in sizes))


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        # A process may end at any moment, and its folder with it.
        with contextlib.suppress(OSError):
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                found += map(int, children.read_text().split())
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Give the high-water mark and the present size of what a process has in memory (bytes)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0, 0
    said = dict(line.split(":", 1) for line in lines if line.startswith(("VmHWM", "VmRSS")))
    sizes = [int(said.get(name, "0").split()[0]) * _KIB for name in ("VmHWM", "VmRSS")]
    return sizes[0], sizes[1]
