"""What a run measures: every load of the chosen bars, then the single figures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from bench.bars import jobs_for
from bench.cold_start import measure_cold_start
from bench.contenders import CONTENDERS, OURS, Contender
from bench.image_size import measure_image_size
from bench.machine import BenchError, load_average, real_time
from bench.measure import measure_model, peer_may_fail
from bench.memory import measure_memory
from bench.results import Results
from bench.watching import measure_metrics_cost, measure_probes, measure_scrapes
from bench.workplace import Workplace

_STARTS, _PEER_STARTS = 7, 2
_PEER_REQUESTS = 2_000
_MBV2_REQUESTS = 1_000


@dataclass(frozen=True)
class Choice:
    """What the person who started the run wants measured.

    `requests`: how many the drift of memory covers; `realtime`: whether loads are in the real-time class.
    """

    bars: Sequence[int]
    peers: Sequence[str]
    requests: int
    realtime: bool


def measure(work: Workplace, choice: Choice) -> Results:
    """Measure everything that the choice needs. Raises BenchError when our own server cannot be measured."""
    results = Results()
    results.facts["load_average.before"] = load_average()
    jobs = sorted(jobs_for(choice.bars, choice.peers), key=lambda job: (job[1].model, job[1].cores))
    for (model, cores), group in groupby(jobs, key=lambda job: (job[1].model, job[1].cores)):
        # In that class busy threads take turns of 100 ms, which would keep the loop's thread from working.
        first = choice.realtime and cores == 1
        with real_time() if first else contextlib.nullcontext():
            measure_model(work, model, cores, list(group), results)
    for bar in choice.bars:
        if bar in _SINGLE:
            _SINGLE[bar](work, choice, results)
    results.facts["load_average.after"] = load_average()
    return results


def _weigh(work: Workplace, choice: Choice, results: Results) -> None:
    for contender in _chosen(choice):
        requests = choice.requests if contender.label == OURS else _PEER_REQUESTS
        with peer_may_fail(contender, results.notes):
            results.facts |= measure_memory(work, contender, "ad", requests)
    results.facts |= measure_memory(work, _ours(), "mbv2", _MBV2_REQUESTS)


def _start(work: Workplace, choice: Choice, results: Results) -> None:
    for contender in _chosen(choice):
        times = _STARTS if contender.label == OURS else _PEER_STARTS
        with peer_may_fail(contender, results.notes):
            results.facts |= measure_cold_start(work, contender, "ad", times)
    results.facts |= measure_cold_start(work, _ours(), "mbv2", _STARTS)


def _image(work: Workplace, choice: Choice, results: Results) -> None:
    try:
        results.facts |= measure_image_size()
    except BenchError as error:
        results.notes.append(str(error))


def _count(work: Workplace, choice: Choice, results: Results) -> None:
    results.facts |= measure_metrics_cost(work)
    results.facts |= measure_scrapes(work, _ours())


def _probe(work: Workplace, choice: Choice, results: Results) -> None:
    results.facts |= measure_probes(work, _ours())


_SINGLE: Mapping[int, Callable[[Workplace, Choice, Results], None]] = {
    10: _weigh,
    11: _start,
    12: _image,
    13: _count,
    14: _probe,
}


def _ours() -> Contender:
    return next(contender for contender in CONTENDERS if contender.label == OURS)


def _chosen(choice: Choice) -> list[Contender]:
    """Return us and one contender for each chosen peer that speaks HTTP."""
    named = {contender.program.name: contender for contender in reversed(CONTENDERS) if contender.routes}
    return [named[name] for name in (OURS, *choice.peers) if name in named]
