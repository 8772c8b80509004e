"""The estimate of what one copy of a model needs in memory.

    estimate = bytes of all stored tensors + the most bytes that are alive at once

A tensor is alive from the operator that makes it (an input of the model: from the start) to the last one that
takes it (an output: to the end), the operators taken in the order in which the file has them. A dimension
that may vary counts as one, so that it is the estimate for a batch of one; a tensor of unknown shape counts
nothing. What a runtime needs besides (its own code, repacked weights, scratch space of kernels) is not in
it; nor is what it saves by computing in place.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from edgemodel_operator.build.inspect.objection import Objection

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Step(Generic[Key]):
    """One operator: the tensors that it takes, and those that it makes."""

    takes: Sequence[Key]
    makes: Sequence[Key]


def peak_bytes(
    steps: Sequence[Step[Key]], sizes: Mapping[Key, int], inputs: Iterable[Key], outputs: Iterable[Key]
) -> int:
    """Give the most bytes that are alive at once; tensors without a size count nothing."""
    last = {key: number for number, step in enumerate(steps) for key in (*step.takes, *step.makes)}
    last |= dict.fromkeys(outputs, len(steps))
    alive = {key for key in inputs if key in sizes}
    held = peak = sum(sizes[key] for key in alive)
    for number, step in enumerate(steps):
        made = {key for key in step.makes if key in sizes} - alive
        alive |= made
        held += sum(sizes[key] for key in made)
        peak = max(peak, held)
        done = {key for key in (*step.takes, *step.makes) if key in alive and last[key] == number}
        alive -= done
        held -= sum(sizes[key] for key in done)
    return peak


def count_elements(shape: Iterable[int | None]) -> int:
    """Multiply the sizes of a tensor; one that may vary (None) counts as one. Raises Objection."""
    sizes = [1 if size is None else size for size in shape]
    if any(size < 0 for size in sizes):
        raise Objection(f"It has a tensor with {min(sizes)} elements in a dimension.")
    return math.prod(sizes)


def count_bytes(elements: int, bits: int) -> int:
    """Give the bytes of packed elements of so many bits."""
    return -(-elements * bits // 8)
