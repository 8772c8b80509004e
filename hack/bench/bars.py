"""The bars: what each figure must reach. `docs/benchmarks.md` explains them in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bench.contenders import CONTENDERS, ECHO, OURS, Contender
from bench.results import Load, Results, Window, batch_share

AD_BINARY_8 = Load("ad", "binary", 8)
AD_BINARY_1 = Load("ad", "binary", 1)
AD_JSON_8 = Load("ad", "json", 8)
AD_GRPC_8 = Load("ad", "grpc", 8)
IRIS_BINARY_8 = Load("iris", "binary", 8)
MBV2_BINARY_1 = Load("mbv2", "binary", 1)
MBV2_BINARY_8 = Load("mbv2", "binary", 8)
MBV2_JSON_8 = Load("mbv2", "json", 8)
MBV2_TWO_CORES = Load("mbv2", "binary", 8, cores=2)

WIRES = {"binary": "binary", "json": "JSON", "grpc": "gRPC"}
"""How the reports write them."""

LOADS: dict[int, tuple[Load, ...]] = {
    1: (AD_BINARY_8,),
    2: (AD_BINARY_8,),
    3: (AD_BINARY_1,),
    4: (IRIS_BINARY_8,),
    5: (AD_JSON_8,),
    6: (MBV2_BINARY_1, MBV2_BINARY_8),
    7: (MBV2_JSON_8,),
    8: (MBV2_TWO_CORES,),
    9: (AD_GRPC_8,),
}
"""The loads that a bar needs; the other bars rest on single figures."""

Figure = Callable[[Results], float | None]
"""Reads one figure from the results; None where it was not measured."""


@dataclass(frozen=True)
class Limit:
    """One inequality; a bar is reached when all of its limits hold.

    `ceiling` is what a server without any work of its own would reach on this machine.
    """

    bar: int
    what: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None
    ceiling: Figure | None = None

    def holds(self, results: Results) -> bool | None:
        """Tell whether the figure is within the limit; None where it was not measured."""
        value = self.figure(results)
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def _best(load: Load, read: Callable[[Window], float]) -> Figure:
    def figure(results: Results) -> float | None:
        window = results.best(OURS, load)
        return None if window is None else read(window)

    return figure


def _least(load: Load, read: Callable[[Window], float]) -> Figure:
    """The least of all windows: noise only ever adds to processor time."""
    return lambda results: min(map(read, results.windows.get((OURS, load), ())), default=None)


def _against(peer: str, load: Load) -> Figure:
    """How many times the requests of a peer: each divided by the bare runtime right next to it."""

    def figure(results: Results) -> float | None:
        ours, theirs = results.best(OURS, load), results.best(peer, load)
        return ours.ratio / theirs.ratio if ours and theirs else None

    return figure


def _ceiling(load: Load) -> Figure:
    """What is left of the raw loop when HTTP costs what the kernel and uvloop cost, and parsing nothing.

    With several clients the runtime may compute in batches; one client waits for the network and the runtime
    in turn.
    """

    def figure(results: Results) -> float | None:
        echo = results.best(ECHO, load)
        if echo is None:
            return None
        raw_us = 1e6 / max(raw.pace for raw in echo.raw)
        if load.clients == 1:
            return raw_us / (echo.answered.p50_ms * 1e3 + raw_us)
        return raw_us / (echo.cpu_us + raw_us * results.facts[batch_share(load.model)])

    return figure


def _p99_ms(window: Window) -> float:
    return window.answered.p99_ms


def _p50_over_raw_us(window: Window) -> float:
    return window.answered.p50_ms * 1e3 - window.raw_median_us


def _at_least(bar: int, load: Load, bound: float) -> Limit:
    """The limit that most bars have: requests per call of the bare runtime."""
    what = f"`{load.model}` {WIRES[load.wire]} c={load.clients}, x raw"
    ceiling = _ceiling(load) if load.wire != "grpc" else None
    return Limit(bar, what, _best(load, lambda window: window.ratio), at_least=bound, ceiling=ceiling)


def _fact(name: str) -> Figure:
    return lambda results: results.facts.get(name)


LIMITS: tuple[Limit, ...] = (
    _at_least(1, AD_BINARY_8, 1.5),
    Limit(1, "`ad` binary c=8, p99 ms", _best(AD_BINARY_8, _p99_ms), at_most=1.5),
    Limit(2, "`ad` binary c=8, x FastAPI (raw bytes)", _against("fastapi", AD_BINARY_8), at_least=8),
    Limit(2, "`ad` binary c=8, x KServe", _against("kserve", AD_BINARY_8), at_least=40),
    Limit(3, "`ad` binary c=1, p50 over a raw call, µs", _best(AD_BINARY_1, _p50_over_raw_us), at_most=90),
    _at_least(3, AD_BINARY_1, 0.5),
    _at_least(4, IRIS_BINARY_8, 0.75),
    Limit(
        4,
        "`iris` binary c=8, CPU µs per request",
        _least(IRIS_BINARY_8, lambda window: window.cpu_us),
        at_most=32,
    ),
    _at_least(5, AD_JSON_8, 0.45),
    Limit(5, "`ad` JSON c=8, x FastAPI with orjson", _against("fastapi+orjson", AD_JSON_8), at_least=3),
    Limit(5, "`ad` JSON c=8, x KServe", _against("kserve", AD_JSON_8), at_least=20),
    _at_least(6, MBV2_BINARY_1, 0.93),
    _at_least(6, MBV2_BINARY_8, 0.93),
    Limit(
        6,
        "`mbv2` binary c=8, CPU x raw",
        _least(MBV2_BINARY_8, lambda window: window.cpu_ratio),
        at_most=1.06,
    ),
    _at_least(7, MBV2_JSON_8, 0.5),
    Limit(7, "`mbv2` JSON c=8, x FastAPI with orjson", _against("fastapi+orjson", MBV2_JSON_8), at_least=2),
    Limit(
        8,
        "`mbv2` binary c=8 on 2 cores, x raw with 2 threads",
        _best(MBV2_TWO_CORES, lambda window: window.ratio),
        at_least=0.85,
    ),
    _at_least(9, AD_GRPC_8, 1.2),
    Limit(9, "`ad` gRPC c=8, x grpcio (sync)", _against("grpcio", AD_GRPC_8), at_least=6),
    Limit(10, "`ad` PSS under load, MB", _fact(f"memory.{OURS}.ad.load_mb"), at_most=65),
    Limit(10, "`ad` drift of PSS over all requests, %", _fact(f"memory.{OURS}.ad.drift_percent"), at_most=1),
    Limit(10, "`mbv2` PSS under load, MB", _fact(f"memory.{OURS}.mbv2.load_mb"), at_most=105),
    Limit(11, "`ad` start to first answer, s", _fact(f"cold.{OURS}.ad.seconds"), at_most=0.45),
    Limit(11, "`ad` start to first answer, CPU s", _fact(f"cold.{OURS}.ad.cpu_seconds"), at_most=0.4),
    Limit(11, "`mbv2` start to first answer, s", _fact(f"cold.{OURS}.mbv2.seconds"), at_most=0.5),
    Limit(12, "Python in the ONNX image, unpacked MB", _fact("image.unpacked_mb"), at_most=95),
    Limit(12, "Python in the ONNX image, compressed MB", _fact("image.compressed_mb"), at_most=30),
    Limit(13, "metrics, µs per request", _fact("metrics.us"), at_most=2),
    Limit(13, "`ad` binary c=8, what scrapes add to p99, ms", _fact("metrics.p99_delay_ms"), at_most=1),
    Limit(14, "health probe during a computation of 0.5 s, p99 ms", _fact("probe.p99_ms"), at_most=5),
)

BARS = range(1, 15)


def jobs_for(bars: Iterable[int], peers: Iterable[str]) -> list[tuple[Contender, Load]]:
    """Return who has to be measured under which load, for some bars and some peers."""
    loads = sorted({load for bar in bars for load in LOADS.get(bar, ())})
    wanted = {OURS, ECHO, *peers}
    return [
        (contender, load)
        for load in loads
        for contender in CONTENDERS
        if contender.program.name in wanted and contender.carries(load.wire)
    ]
