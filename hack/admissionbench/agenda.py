"""What is measured, in which order; every figure is kept of every round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from admissionbench.asking import Tally, at_a_rate, at_once, one_by_one
from admissionbench.workplace import Workplace, question
from cluster.progress import Progress
from edgemodel_operator.oci.reference import parse_reference

RATE = 100.0
"""Reviews per second of the bar."""
LARGE_BYTES = 3_000_000
CONNECTIONS = 8
FLOOD_CONNECTIONS = 600
"""Three times as many requests at once as the program takes."""
UNKNOWN = 1000
"""Images that do not exist: for each the registry must be asked."""


@dataclass
class Figures:
    """Figure → its value in each round."""

    values: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        """Keep a value."""
        self.values.setdefault(name, []).append(value)

    def best(self, name: str) -> float | None:
        """Give the least value: noise only ever adds to a time."""
        return min(self.values.get(name, ()), default=None)

    def most(self, name: str) -> float | None:
        """Give the greatest value."""
        return max(self.values.get(name, ()), default=None)

    def add_times(self, name: str, tally: Tally) -> None:
        """Keep the quantiles of a tally (ms)."""
        self.add(f"{name}.p50_ms", tally.quantile(0.5))
        self.add(f"{name}.p99_ms", tally.quantile(0.99))
        self.add(f"{name}.largest_ms", tally.quantile(1))


async def measure(place: Workplace, rounds: int, seconds: float, progress: Progress) -> Figures:
    """Measure everything. The images are new to the program at first, and known from then on."""
    figures = Figures()
    new = [question(place.endpoint, image) for image in place.images.indexes]
    with progress.step("images that nobody asked about before"):
        await _uncached(place, new, figures)
    for number in range(1, rounds + 1):
        with progress.step(f"known images, round {number} of {rounds}"):
            await _cached(place, new, seconds, figures)
    with progress.step("more than there is room for"):
        await _overload(place, seconds, figures)
    figures.add("program.memory_mb", place.memory_mb)
    return figures


async def _uncached(place: Workplace, new: Sequence[bytes], figures: Figures) -> None:
    times = []
    for image in place.images.indexes:
        began = time.perf_counter()
        await place.client.get_manifest(parse_reference(image))
        times.append(1000 * (time.perf_counter() - began))
    figures.add("registry.manifest_p50_ms", statistics.median(times))
    tally = await one_by_one(place.endpoint, new)
    _require(tally, len(new))
    figures.add_times("uncached", tally)
    many = await one_by_one(place.endpoint, [question(place.endpoint, *place.images.many)])
    _require(many, 1)
    figures.add("many_uncached.ms", many.quantile(0))


async def _cached(place: Workplace, known: Sequence[bytes], seconds: float, figures: Figures) -> None:
    before = place.cpu_s
    tally = await at_a_rate(place.endpoint, known, RATE, seconds)
    _require(tally, len(tally.answers))
    figures.add_times("cached", tally)
    figures.add("cached.cpu_share", (place.cpu_s - before) / tally.seconds)
    fast = await at_once(place.endpoint, known, CONNECTIONS, seconds)
    _require(fast, len(fast.answers))
    figures.add("fastest.per_second", fast.per_second)
    large = await one_by_one(
        place.endpoint, [question(place.endpoint, place.images.indexes[0], filler=LARGE_BYTES)] * 10
    )
    _require(large, 10)
    figures.add("large.p50_ms", large.quantile(0.5))
    many = await one_by_one(place.endpoint, [question(place.endpoint, *place.images.many)] * 20)
    _require(many, 20)
    figures.add("many.p50_ms", many.quantile(0.5))


async def _overload(place: Workplace, seconds: float, figures: Figures) -> None:
    """Ask over more connections than there is room: known images, unsigned ones, and ones that nobody has."""
    name = parse_reference(place.images.unsigned).name
    unknown = (f"{name}@sha256:{number:064x}" for number in range(UNKNOWN))
    images = [place.images.indexes[0], place.images.unsigned, *unknown]
    flood = [question(place.endpoint, image) for image in images]
    tally = await at_once(place.endpoint, flood, FLOOD_CONNECTIONS, seconds)
    figures.add("overload.answers", len(tally.answers))
    figures.add("overload.shed", tally.count(lambda one: one.shed))
    figures.add("overload.broken", tally.count(lambda one: one.broken))
    figures.add("overload.untrusted_admitted", tally.count(lambda one: one.allowed and one.asked > 0))
    figures.add_times("overload", tally)


def _require(tally: Tally, allowed: int) -> None:
    """Make sure that what is measured is the work that was meant."""
    found = tally.count(lambda one: one.allowed)
    if found != allowed:
        raise AssertionError(f"{found} of {len(tally.answers)} were admitted, not {allowed}")
