"""The bars: what each figure must reach. The page of the benchmarks explains them in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from buildbench.samples import Samples

MODEL_MB = 23.792792
"""The model of the measurements."""

Figure = Callable[[Samples], float | None]
"""Reads one figure; None where it was not measured."""


@dataclass(frozen=True)
class Limit:
    """One inequality; a bar is reached when all of its limits hold."""

    bar: int
    what: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bound(self) -> str:
        """The inequality in words."""
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"

    def holds(self, samples: Samples) -> bool | None:
        """Tell whether the figure is within the limit; None where it was not measured."""
        value = self.figure(samples)
        if value is None:
            return None
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


def _best(name: str) -> Figure:
    return lambda samples: samples.best(name)


def _worst(name: str) -> Figure:
    return lambda samples: samples.worst(name)


def _times_less(scenario: str, contender: str, own: str = "ours") -> Figure:
    """How many times less wall time we take, best against best."""

    def figure(samples: Samples) -> float | None:
        ours, theirs = (samples.best(f"{scenario}.{name}.wall_s") for name in (own, contender))
        return theirs / ours if ours and theirs else None

    return figure


LIMITS = (
    Limit(1, "model-only change, wall s", _best("change.ours.wall_s"), at_most=2),
    Limit(2, "… largest process, MB", _worst("change.ours.largest_mb"), at_most=128),
    Limit(3, "… times less wall than COPY on the base", _times_less("change", "copy"), at_least=12),
    Limit(4, "… MB pushed", _worst("change.ours.pushed_mb"), at_most=MODEL_MB + 0.1),
    Limit(5, "retrained head, MB pushed", _worst("head.ours.pushed_mb"), at_most=1.2),
    Limit(6, "first image, times less wall than RUN and qemu", _times_less("cold", "run"), at_least=9),
    Limit(6, "… with its runtime image built too", _times_less("cold", "run", "assembled"), at_least=9),
    Limit(7, "reuse by key, s", _best("reuse.seconds"), at_most=0.1),
    Limit(8, "model of 1 GiB, largest process, MB", _worst("big.ours.largest_mb"), at_most=160),
    Limit(9, "50 models at once, longest block of the loop, ms", _best("loop.longest_ms"), at_most=50),
)
