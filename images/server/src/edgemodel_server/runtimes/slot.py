"""Memory that a runtime computes in, prepared once: a request is copied in, the answer is read in place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from edgemodel_server.datatypes import Tensor


@dataclass(frozen=True, slots=True)
class Geometry:
    """The exact shapes of one computation, by tensor name and in the model's order.

    ``rows`` is 0 where the shapes are fixed. Otherwise dimension 0 of every tensor is the number of
    independent rows, here 1, and a slot has room for ``rows`` of them.
    """

    inputs: Mapping[str, tuple[int, ...]]
    outputs: Mapping[str, tuple[int, ...]]
    rows: int = 0


class Slot(Protocol):
    """Bound memory of one model; used by one thread at a time."""

    @property
    def inputs(self) -> Sequence[Tensor]:
        """The arrays to fill, in the order of the model's inputs."""

    def run(self, rows: int) -> Sequence[Tensor]:
        """Compute the first ``rows`` rows; returns the output arrays, overwritten by the next run."""


@runtime_checkable
class Binding(Protocol):
    """A model that can prepare slots."""

    def bind(self, geometry: Geometry) -> Slot | None:
        """Return a slot for these shapes, or None where a tensor has no plain memory (text)."""
