"""What was measured: windows of load, and single figures by name."""

from __future__ import annotations

from dataclasses import dataclass, field

from typing_extensions import override

from bench.loadgen import Answered
from bench.raw import RawWindow


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
        """Requests per call of the bare runtime: at its full pace, in the better of its two measurements."""
        return self.per_second / max(raw.pace for raw in self.raw)

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


def batch_share(model: str) -> str:
    """Name the fact: the runtime's processor time per sample in the best batch of up to 8, by that alone."""
    return f"{model}.batch_share"
