"""The windows: every contender under every load, in turn, each between two looks at the bare runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from bench.clients import make_client
from bench.contenders import ECHO, OURS, Contender
from bench.loadgen import GrpcLoad, HttpLoad
from bench.machine import BOTH_CORES, CLIENT_CORES, SERVER_CORES, BenchError
from bench.processes import Running
from bench.raw import RawLoop, RawWindow, raw_loop
from bench.results import Load, Results, Window, batch_share
from bench.workplace import Pace, Workplace, new_place, serving

_WARM_UP_SECONDS = 1.0
_BATCHES = (1, 2, 4, 8)
_BATCH_SECONDS = 0.5
_PATIENCE = {"mbv2": 2}
"""How many times as long a window is for a model of which one answer takes long."""


@dataclass(frozen=True)
class _Start:
    """What all servers of one model are started with."""

    work: Workplace
    stack: contextlib.ExitStack
    model: str
    cores: frozenset[int]


@dataclass(frozen=True)
class _Job:
    contender: Contender
    load: Load
    server: Running
    client: HttpLoad | GrpcLoad

    @property
    def client_cores(self) -> frozenset[int]:
        """The client's own processor, or, beside a server with both, any."""
        return CLIENT_CORES if self.load.cores == 1 else BOTH_CORES


def measure_model(
    work: Workplace, model: str, cores: int, jobs: Sequence[tuple[Contender, Load]], results: Results
) -> None:
    """Measure all loads of one model; adds the windows to the results. Raises BenchError."""
    server_cores = SERVER_CORES if cores == 1 else BOTH_CORES
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(raw_loop(work.models[model], server_cores))
        if cores == 1:
            per_sample = [raw.measure(_BATCH_SECONDS, batch).cpu_us for batch in _BATCHES]
            results.facts[batch_share(model)] = min(per_sample) / per_sample[0]
        start = _Start(work, stack, model, server_cores)
        ready = list(chain.from_iterable(_start(start, group, results.notes) for group in _by_program(jobs)))
        ready = [job for job in ready if _warm_up(job, results.notes)]
        for number in range(work.pace.windows):
            work.progress.say(f"{model}: window {number + 1} of {work.pace.windows}, {len(ready)} loads")
            _measure_round(work, ready, raw, results)


def _warm_up(job: _Job, notes: list[str]) -> bool:
    """Run a short load that does not count; tells whether the server bore it."""
    with peer_may_fail(job.contender, notes), _thawed(job.server):
        job.client.run(job.load.clients, _WARM_UP_SECONDS, job.client_cores)
        return True
    return False


def _measure_round(work: Workplace, jobs: Sequence[_Job], raw: RawLoop, results: Results) -> None:
    before = raw.measure(work.pace.raw_seconds)
    for job in jobs:
        with peer_may_fail(job.contender, results.notes):
            window = _measure(work.pace, job, raw, before)
            results.windows.setdefault((job.contender.label, job.load), []).append(window)
            work.progress.say(f"  {job.load}, {job.contender.label}: {describe(window)}")
            before = window.raw[1]


def describe(window: Window) -> str:
    """Say what a window showed, in one line."""
    answered = window.answered
    return (
        f"{window.per_second:,.0f}/s, p50 {answered.p50_ms:.2f} ms, p99 {answered.p99_ms:.2f} ms, "
        f"{window.cpu_us:,.0f} CPU µs, {window.ratio:.3f} x raw"
    )


def _by_program(jobs: Iterable[tuple[Contender, Load]]) -> Iterator[list[tuple[Contender, Load]]]:
    """Group the jobs that one process of a program serves."""
    groups: dict[str, list[tuple[Contender, Load]]] = {}
    for contender, load in jobs:
        groups.setdefault(contender.program.name, []).append((contender, load))
    yield from groups.values()


def _start(start: _Start, jobs: Sequence[tuple[Contender, Load]], notes: list[str]) -> Iterator[_Job]:
    """Start a program and check its answers to each load."""
    program = jobs[0][0].program
    place = new_place(start.work, program, start.model, grpc=any(load.wire == "grpc" for _, load in jobs))
    with start.work.progress.step(f"{start.model}: start {program.name} and check its answers"):
        server = start.stack.enter_context(serving(start.work, program, place, start.cores))
        for contender, load in jobs:
            with peer_may_fail(contender, notes):
                yield _Job(contender, load, server, make_client(contender, load, place, server))
        server.freeze()


def _measure(pace: Pace, job: _Job, raw: RawLoop, before: RawWindow) -> Window:
    seconds = pace.seconds * _PATIENCE.get(job.load.model, 1)
    with _thawed(job.server):
        cpu = job.server.cpu_seconds()
        answered = job.client.run(job.load.clients, seconds, job.client_cores)
        cpu = job.server.cpu_seconds() - cpu
    return Window(answered, cpu / answered.requests * 1e6, (before, raw.measure(pace.raw_seconds)))


@contextlib.contextmanager
def peer_may_fail(contender: Contender, notes: list[str]) -> Iterator[None]:
    """Make a note of a peer that cannot be measured here; our own server's failure ends the run."""
    try:
        yield
    except BenchError as error:
        if contender.label in (OURS, ECHO):
            raise
        notes.append(f"not measured: {error}")


@contextlib.contextmanager
def _thawed(server: Running) -> Iterator[None]:
    server.thaw()
    try:
        yield
    finally:
        server.freeze()
