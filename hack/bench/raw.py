"""The yardstick: the bare runtime in a loop, on the processors that the server uses.

`RawLoop` talks to `python -m bench.raw MODEL THREADS`, which stays alive between the measurements: it reads
lines of `SECONDS BATCH` and answers each with one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from bench.machine import BenchError, favour, find_interpreter
from bench.models import Floats
from bench.processes import pinned
from bench.session import open_session


@dataclass(frozen=True)
class RawWindow:
    """One measurement of the loop; `cpu_us` is processor time per sample, of all threads."""

    per_second: float
    median_us: float
    cpu_us: float
    threads: int = 1

    @property
    def pace(self) -> float:
        """Samples per second if nobody takes a processor away: what noise slows down is no yardstick."""
        return self.threads * 1e6 / self.cpu_us


class RawLoop:
    """The loop in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def measure(self, seconds: float, batch: int = 1) -> RawWindow:
        """Run the loop for a while, `batch` samples at a time; the figures are per sample."""
        assert self._process.stdin is not None  # noqa: S101 - opened below
        assert self._process.stdout is not None  # noqa: S101
        self._process.stdin.write(f"{seconds} {batch}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BenchError("the bare runtime could not run the model: see the traceback above")
        return RawWindow(**json.loads(line))


@contextlib.contextmanager
def raw_loop(model: Path, cores: Set[int]) -> Iterator[RawLoop]:
    """Keep a loop ready while the block lasts: one thread for each processor, all on one session."""
    packages = [entry for entry in sys.path if entry and not entry.startswith(sys.base_prefix)]
    argv = [find_interpreter(), "-m", "bench.raw", str(model), str(len(cores))]
    process = subprocess.Popen(
        pinned(argv, cores),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(packages)},
    )
    try:
        favour(process.pid)
        loop = RawLoop(process)
        loop.measure(0.2)  # the first calls are slower
        yield loop
    finally:
        process.kill()
        process.communicate()


class _Loop:
    """The inside of the process: the session and its input."""

    def __init__(self, path: str, threads: int) -> None:
        self._session = open_session(path)
        self._threads = threads
        spec = self._session.get_inputs()[0]
        self._name = spec.name
        self._shape = [size for size in spec.shape if isinstance(size, int)]

    def measure(self, seconds: float, batch: int) -> RawWindow:
        """Call the runtime on all threads for a while; the figures are per sample."""
        tensor = np.random.default_rng(7).random((batch, *self._shape), np.float32)
        durations: list[list[float]] = [[] for _ in range(self._threads)]
        cpu, begun = time.process_time(), time.perf_counter()
        workers = [
            threading.Thread(target=self._call, args=(tensor, begun + seconds, one)) for one in durations
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
        samples = sum(map(len, durations)) * batch
        median = statistics.median(chain.from_iterable(durations)) / batch
        return RawWindow(samples / elapsed, median * 1e6, cpu / samples * 1e6, self._threads)

    def _call(self, tensor: Floats, until: float, durations: list[float]) -> None:
        begun = time.perf_counter()
        while begun < until:
            self._session.run(None, {self._name: tensor})
            ended = time.perf_counter()
            durations.append(ended - begun)
            begun = ended


def _serve(loop: _Loop) -> None:
    for line in sys.stdin:
        seconds, batch = line.split()
        print(json.dumps(asdict(loop.measure(float(seconds), int(batch)))), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        _serve(_Loop(sys.argv[1], int(sys.argv[2])))
