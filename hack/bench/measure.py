"""The windows: every contender under every load, in turn, each between two looks at the bare runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from typing_extensions import override

from bench.asking import Reference, free_port, make_reference, over_http, wait_for_answers, wait_for_port
from bench.contenders import ECHO, OURS, Contender, Place, Program, interpreter
from bench.grpc_client import make_grpc_load
from bench.loadgen import Answered, GrpcLoad, HttpLoad
from bench.machine import BOTH_CORES, CLIENT_CORES, SERVER_CORES, BenchError
from bench.models import make_inputs
from bench.processes import Running, running
from bench.raw import RawLoop, RawWindow, raw_loop
from cluster.progress import Progress

_INPUTS = 4
_WARM_UP_SECONDS = 1.0
_BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True, order=True)
class Load:
    """What is asked of a server. Wires are `binary`, `json` and `grpc`; `cores` are those of the server."""

    model: str
    wire: str
    clients: int
    cores: int = 1

    @override
    def __str__(self) -> str:
        return f"{self.model} {self.wire} c={self.clients}" + (
            "" if self.cores == 1 else f" on {self.cores} cores"
        )


@dataclass(frozen=True)
class Window:
    """One contender under one load, and the bare runtime right before and after it."""

    answered: Answered
    cpu_us: float
    """Processor time of the server's whole process tree, per request."""
    raw: tuple[RawWindow, RawWindow]

    @property
    def per_second(self) -> float:
        """Requests per second."""
        return self.answered.requests / self.answered.seconds

    @property
    def ratio(self) -> float:
        """Requests per call of the bare runtime: in the better one of its two measurements."""
        return self.per_second / max(raw.per_second for raw in self.raw)

    @property
    def cpu_ratio(self) -> float:
        """Processor time per request, divided by that of a call of the bare runtime."""
        return self.cpu_us / min(raw.cpu_us for raw in self.raw)

    @property
    def raw_median_us(self) -> float:
        """Duration of a call of the bare runtime."""
        return min(raw.median_us for raw in self.raw)


@dataclass
class Results:
    """Everything that was measured; `facts` are single figures by name."""

    windows: dict[tuple[str, Load], list[Window]] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def best(self, label: str, load: Load) -> Window | None:
        """Return the window with the most requests per call of the bare runtime around it."""
        return max(self.windows.get((label, load), ()), key=lambda window: window.ratio, default=None)


@dataclass(frozen=True)
class Pace:
    """How often and how long is measured."""

    windows: int
    seconds: float
    raw_seconds: float


@dataclass(frozen=True)
class Workplace:
    """What all measurements share."""

    folder: Path
    models: Mapping[str, Path]
    environments: Mapping[str, Path]
    pace: Pace
    progress: Progress


@dataclass(frozen=True)
class _Start:
    """What all servers of one model are started with."""

    work: Workplace
    stack: contextlib.ExitStack
    model: str
    cores: frozenset[int]
    reference: Reference


@dataclass(frozen=True)
class _Job:
    contender: Contender
    load: Load
    server: Running
    client: HttpLoad | GrpcLoad


def measure_model(
    work: Workplace, model: str, cores: int, jobs: Sequence[tuple[Contender, Load]], results: Results
) -> None:
    """Measure all loads of one model; adds the windows to the results. Raises BenchError."""
    server_cores = SERVER_CORES if cores == 1 else BOTH_CORES
    client_cores = CLIENT_CORES if cores == 1 else BOTH_CORES
    reference = make_reference(work.models[model], make_inputs(model, _INPUTS))
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(raw_loop(work.models[model], server_cores))
        results.facts[batched_us(model)] = min(raw.measure(0.3, batch).cpu_us for batch in _BATCHES)
        start = _Start(work, stack, model, server_cores, reference)
        ready = list(chain.from_iterable(_start(start, group, results.notes) for group in _by_program(jobs)))
        for job in ready:
            with _thawed(job.server):
                job.client.run(job.load.clients, _WARM_UP_SECONDS, client_cores)
        for number in range(work.pace.windows):
            work.progress.say(f"{model}: window {number + 1} of {work.pace.windows}, {len(ready)} loads")
            before = raw.measure(work.pace.raw_seconds)
            for job in ready:
                window = _measure(work.pace, job, raw, before, client_cores)
                results.windows.setdefault((job.contender.label, job.load), []).append(window)
                work.progress.say(f"  {job.load}, {job.contender.label}: {describe(window)}")
                before = window.raw[1]


def batched_us(model: str) -> str:
    """Name the fact: the bare runtime's processor time per sample, in the best batch of up to 8."""
    return f"{model}.batched_us"


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


def _start(start: _Start, jobs: Sequence[tuple[Contender, Load]], notes: list[str]) -> Sequence[_Job]:
    """Start a program and check its answers; a peer that cannot be measured here is a note, not the end."""
    try:
        return list(_start_checked(start, jobs))
    except BenchError as error:
        if jobs[0][0].label in (OURS, ECHO):
            raise
        notes.append(f"not measured: {error}")
        start.work.progress.say(notes[-1])
        return ()


def _start_checked(start: _Start, jobs: Sequence[tuple[Contender, Load]]) -> Iterator[_Job]:
    program = jobs[0][0].program
    place = new_place(start.work, program, start.model, grpc=any(load.wire == "grpc" for _, load in jobs))
    with start.work.progress.step(f"{start.model}: start {program.name} and check its answers"):
        server = start.stack.enter_context(serving(start.work, program, place, start.cores))
        for contender, load in jobs:
            yield _Job(contender, load, server, _make_client(contender, load, place, server, start.reference))
        server.freeze()


@contextlib.contextmanager
def serving(work: Workplace, program: Program, place: Place, cores: frozenset[int]) -> Iterator[Running]:
    """Run a server while the block lasts."""
    python = interpreter(program, work.environments)
    log = place.folder / "log"
    with running(program.command(python, place), cores, log, {"ORT_DISABLE_TELEMETRY": "1"}) as server:
        yield server


def new_place(work: Workplace, program: Program, model: str, *, grpc: bool = False) -> Place:
    """Return free ports and an empty folder for a server; the port for gRPC is 0 unless it is wanted."""
    number = len(list(work.folder.iterdir()))
    folder = work.folder / f"{number}-{program.name}-{model}"
    folder.mkdir()
    grpc_port = free_port() if grpc else 0
    return Place(model, work.models[model], free_port(), grpc_port, folder)


def _make_client(
    contender: Contender, load: Load, place: Place, server: Running, reference: Reference
) -> HttpLoad | GrpcLoad:
    """Check that the server answers right, and return the load for it."""
    folder = place.folder / f"{contender.label}-{load}".replace(" ", "-")
    alive = lambda: server.process.poll() is None  # noqa: E731
    try:
        if load.wire == "grpc":
            return make_grpc_load(folder, place.grpc_port, place.model, reference, alive)
        route = contender.routes[load.wire]
        answer_bytes = len(route.codec.encode(reference.outputs[0]).body)
        path = route.path.format(model=place.model, answer_bytes=answer_bytes)
        if contender.label == ECHO:
            wait_for_port(place.http_port, alive)
        else:
            wait_for_answers(over_http(place.http_port, path, route.codec), reference, alive)
    except BenchError as error:
        raise BenchError(f"{contender.label}, {load}: {error}\n{server.last_words()}") from None
    return HttpLoad(
        folder,
        f"http://127.0.0.1:{place.http_port}{path}",
        [route.codec.encode(tensor) for tensor in reference.inputs],
    )


def _measure(pace: Pace, job: _Job, raw: RawLoop, before: RawWindow, client_cores: frozenset[int]) -> Window:
    with _thawed(job.server):
        cpu = job.server.cpu_seconds()
        answered = job.client.run(job.load.clients, pace.seconds, client_cores)
        cpu = job.server.cpu_seconds() - cpu
    return Window(answered, cpu / answered.requests * 1e6, (before, raw.measure(pace.raw_seconds)))


@contextlib.contextmanager
def _thawed(server: Running) -> Iterator[None]:
    server.thaw()
    try:
        yield
    finally:
        server.freeze()
