"""What was measured: samples by name, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass, field

from buildbench.meter import Cost


@dataclass
class Samples:
    """Every measurement of a run. Less is better in all of them."""

    values: dict[str, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, value: float) -> None:
        """Keep a measurement."""
        self.values.setdefault(name, []).append(value)

    def add_cost(self, scenario: str, contender: str, cost: Cost, pushed_bytes: int) -> None:
        """Keep what a build cost, and how many bytes went to the registry."""
        for name, value in (
            ("wall_s", cost.wall_s),
            ("cpu_s", cost.cpu_s),
            ("largest_mb", cost.largest_mb),
            ("sum_mb", cost.sum_mb),
            ("pushed_mb", pushed_bytes / 1e6),
        ):
            self.add(f"{scenario}.{contender}.{name}", value)

    def best(self, name: str) -> float | None:
        """Give the least of the samples: noise only ever adds."""
        return min(self.values.get(name, ()), default=None)

    def worst(self, name: str) -> float | None:
        """Give the greatest of the samples."""
        return max(self.values.get(name, ()), default=None)
