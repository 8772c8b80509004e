"""What was missed, by how much, and why: as far as the figures of the run itself say so, and no farther.

*There* in the sentences is where the bars were set, with a prototype (`docs/benchmarks.md`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from bench.bars import (
    AD_BINARY_1,
    AD_BINARY_8,
    AD_GRPC_8,
    AD_JSON_8,
    IRIS_BINARY_8,
    LIMITS,
    MBV2_BINARY_1,
    MBV2_BINARY_8,
    MBV2_JSON_8,
    Limit,
)
from bench.contenders import ECHO, OURS
from bench.report import number
from bench.results import Load, Results, batch_share

UNKNOWN = "Why was not measured."

Reason = Callable[[Results, Limit], str]
"""Says why a limit was missed; empty where the run does not hold the figures for it."""


def missed_list(results: Results, bars: Sequence[int]) -> str:
    """Give one line for each limit of the chosen bars that was missed."""
    missed = [limit for limit in LIMITS if limit.bar in bars and limit.holds(results) is False]
    return "\n".join(_line(limit, results) for limit in missed) or "Nothing was missed."


def _line(limit: Limit, results: Results) -> str:
    measured, bound = limit.figure(results), _bound(limit)
    assert measured is not None  # noqa: S101 - what was not measured is not missed
    percent = abs(measured - bound) / bound * 100
    how = "below" if limit.at_least is not None else "above"
    reason = REASONS.get((limit.bar, limit.what))
    why = " ".join(filter(None, (_out_of_reach(limit, results), reason and reason(results, limit))))
    what = f"- **{limit.bar}**, {limit.what}: {number(measured)}, {percent:.0f} % {how} {bound:g}."
    text = f"{what} {why or UNKNOWN}"
    return textwrap.fill(text, 128, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _bound(limit: Limit) -> float:
    bound = limit.at_least if limit.at_least is not None else limit.at_most
    assert bound is not None  # noqa: S101 - a limit has one of them
    return bound


def _out_of_reach(limit: Limit, results: Results) -> str:
    ceiling = limit.ceiling(results) if limit.ceiling else None
    if ceiling is None or limit.at_least is None or ceiling >= limit.at_least:
        return ""
    return f"It is out of reach on this machine: the ceiling is {number(ceiling)}."


def _shares(load: Load) -> Reason:
    """Divide the processor time of a request: the network, the runtime, and what is ours."""

    def reason(results: Results, limit: Limit) -> str:
        ours, echo = results.best(OURS, load), results.best(ECHO, load)
        share = results.facts.get(batch_share(load.model))
        if ours is None or echo is None or share is None:
            return ""
        raw = ours.cpu_us / ours.cpu_ratio
        computing = raw * share
        own, left = ours.cpu_us - echo.cpu_us - computing, raw / _bound(limit) - echo.cpu_us - computing
        text = (
            f"Of {number(ours.cpu_us)} µs of processor time for a request the echo takes "
            f"{number(echo.cpu_us)} and the runtime in its best batch {number(computing)}; the other "
            f"{number(own)} are ours: reading, checking, gathering, writing, and batches that are smaller"
        )
        return f"{text}; the limit leaves {number(left)}." if left > 0 else f"{text}."

    return reason


def _helped_more(peer: str, load: Load, there: tuple[int, int]) -> Reason:
    """Hold the processor time of a peer and ours against what they were where the bars were set (µs)."""

    def reason(results: Results, _limit: Limit) -> str:
        ours, theirs = results.best(OURS, load), results.best(peer, load)
        if ours is None or theirs is None:
            return ""
        return (
            f"Here its requests take {number(theirs.cpu_us)} µs of processor time and ours "
            f"{number(ours.cpu_us)}, there they took {there[0]:,} and {there[1]:,}: this machine helps the "
            "peer more. Why was not measured."
        )

    return reason


def _latency(results: Results, _limit: Limit) -> str:
    echo, ours = results.best(ECHO, AD_BINARY_1), results.best(OURS, AD_BINARY_1)
    if echo is None or ours is None:
        return ""
    trip = echo.answered.p50_ms * 1e3
    rest = ours.answered.p50_ms * 1e3 - ours.raw_median_us - trip
    return (
        f"The echo alone takes {number(trip)} µs, which were 30 there; {number(rest)} are ours. "
        "Of those no profile was taken."
    )


def _beyond_the_call(load: Load) -> Reason:
    """Say how much of the processor time beyond a call of the runtime the bytes explain."""

    def reason(results: Results, _limit: Limit) -> str:
        ours, echo, fastapi = (results.best(label, load) for label in (OURS, ECHO, "fastapi"))
        if ours is None or echo is None:
            return ""
        beyond = ours.cpu_us - ours.cpu_us / ours.cpu_ratio
        beside = f" FastAPI, with the same bytes, is at {number(fastapi.cpu_ratio)} x raw." if fastapi else ""
        return (
            f"A request takes about {number(beyond)} µs of processor time more than the call, and the "
            f"echo of its bytes {number(echo.cpu_us)}; of the rest no profile was taken.{beside}"
        )

    return reason


def _same_computation(results: Results, limit: Limit) -> str:
    theirs = results.best("fastapi+orjson", MBV2_JSON_8)
    if theirs is None:
        return ""
    needed = _bound(limit) * theirs.ratio
    return (
        f"The peer is at {number(theirs.ratio)} x raw here and was at 0.26 there, so that twice as much "
        f"would be {number(needed)} x raw: nearly nothing but the computation, which is the same for both."
    )


def _no_echo(results: Results, limit: Limit) -> str:
    grpc, http = results.best(OURS, AD_GRPC_8), results.best(OURS, AD_BINARY_8)
    if grpc is None or http is None:
        return ""
    allowed = grpc.cpu_us / grpc.cpu_ratio / _bound(limit)
    return (
        f"A request takes {number(grpc.cpu_us)} µs of processor time, the same over HTTP "
        f"{number(http.cpu_us)}; the limit allows {number(allowed)}. An echo over gRPC was not measured, "
        "and so no ceiling."
    )


def _memory(results: Results, _limit: Limit) -> str:
    idle = results.facts.get(f"memory.{OURS}.ad.idle_mb")
    return f"{number(idle)} are there before the load. Which part has grown was not measured." if idle else ""


REASONS: dict[tuple[int, str], Reason] = {
    (1, "`ad` binary c=8, x raw"): _shares(AD_BINARY_8),
    (2, "`ad` binary c=8, x FastAPI (raw bytes)"): _helped_more("fastapi", AD_BINARY_8, (550, 55)),
    (2, "`ad` binary c=8, x KServe"): _helped_more("kserve", AD_BINARY_8, (3148, 55)),
    (3, "`ad` binary c=1, p50 over a raw call, µs"): _latency,
    (4, "`iris` binary c=8, x raw"): _shares(IRIS_BINARY_8),
    (5, "`ad` JSON c=8, x raw"): _shares(AD_JSON_8),
    (5, "`ad` JSON c=8, x KServe"): _helped_more("kserve", AD_JSON_8, (6306, 210)),
    (6, "`mbv2` binary c=1, x raw"): _beyond_the_call(MBV2_BINARY_1),
    (6, "`mbv2` binary c=8, CPU x raw"): _beyond_the_call(MBV2_BINARY_8),
    (7, "`mbv2` JSON c=8, x FastAPI with orjson"): _same_computation,
    (9, "`ad` gRPC c=8, x raw"): _no_echo,
    (10, "`ad` PSS under load, MB"): _memory,
}
"""By bar and figure."""
