"""What a server occupies: idle, under load, and after very many requests."""

from __future__ import annotations

from dataclasses import dataclass

from bench.clients import make_client
from bench.contenders import OURS, Contender
from bench.machine import CLIENT_CORES, SERVER_CORES
from bench.processes import Running
from bench.results import Load
from bench.workplace import Workplace, new_place, serving

_CLIENTS = 8
_MB = 1e6
_ROUND_SECONDS = 2.0


@dataclass(frozen=True)
class _Mark:
    """Memory after some number of requests."""

    requests: int
    pss_mb: float
    rss_mb: float


def measure_memory(work: Workplace, contender: Contender, model: str, requests: int) -> dict[str, float]:
    """Weigh a server alone on its processor: after the first answer, then after every round of load.

    The load ends when `requests` have been answered. The drift is counted from the first tenth on: until then
    the allocators fill their caches, which is part of `load`, not of a leak.
    """
    wire = "binary" if contender.carries("binary") else "json"
    place = new_place(work, contender.program, model)
    name = f"memory.{contender.label}.{model}"
    step = work.progress.step(f"{model}: {requests:,} requests to {contender.label}, weighed")
    with step, serving(work, contender.program, place, SERVER_CORES) as server:
        client = make_client(contender, Load(model, wire, _CLIENTS), place, server)
        marks = [_weigh(server, 0)]
        while marks[-1].requests < requests:
            answered = client.run(_CLIENTS, _ROUND_SECONDS, CLIENT_CORES)
            marks.append(_weigh(server, marks[-1].requests + answered.requests))
            if contender.label == OURS:
                work.progress.say(f"  {marks[-1].requests:,} requests: {marks[-1].pss_mb:.2f} MB")
    drift = drift_percent([(mark.requests, mark.pss_mb) for mark in marks], requests / 10)
    return {
        f"{name}.idle_mb": marks[0].pss_mb,
        f"{name}.load_mb": max(mark.pss_mb for mark in marks),
        f"{name}.load_rss_mb": max(mark.rss_mb for mark in marks),
        f"{name}.requests": marks[-1].requests,
        f"{name}.drift_percent": drift,
    }


def drift_percent(marks: list[tuple[int, float]], warm: float) -> float:
    """Return how much the last weight is above the first one with at least `warm` requests behind it."""
    begun = next((weight for requests, weight in marks if requests >= warm), marks[-1][1])
    return (marks[-1][1] / begun - 1) * 100


def _weigh(server: Running, requests: int) -> _Mark:
    memory = server.memory()
    return _Mark(requests, memory.pss / _MB, memory.rss / _MB)
