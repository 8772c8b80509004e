"""Which weights share a shard, and where in it each one lies. Pure.

The plan is made from the sizes of the weights and the order of their use alone: a model that was retrained
and kept its shapes has the same plan, so that only the shards whose weights have changed are new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

SMALLEST_BYTES = 8 * 1024 * 1024
"""Models with less weight than this stay whole: two layers would save nothing worth a request."""

SHARD_BYTES = 4 * 1024 * 1024
MOST_SHARDS = 8
HEAD_BYTES = 1024 * 1024
"""The last shard holds about as much of the end of the graph: the head, which is what gets retrained."""

PAGE_BYTES = 4096
_PAGED_BYTES = 64 * 1024
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Part:
    """A weight to place: its size (bytes), and the position of the first node that uses it."""

    size: int
    first_use: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where the weight of this index lies: the shard, and the offset in it (bytes)."""

    weight: int
    shard: int
    offset: int


def plan_shards(parts: Sequence[Part]) -> tuple[Place, ...]:
    """Give the places of all weights, by shard and offset; none where the model stays whole."""
    total = sum(part.size for part in parts)
    if total < SMALLEST_BYTES:
        return ()
    count = min(MOST_SHARDS, -(-total // SHARD_BYTES))
    order = sorted(range(len(parts)), key=lambda index: (parts[index].first_use, index))
    body, head = _split_head(parts, order)
    groups = [*_split_evenly(parts, body, count - 1), head]
    return tuple(
        place for shard, group in enumerate(filter(None, groups)) for place in _arrange(parts, shard, group)
    )


def _split_head(parts: Sequence[Part], order: Sequence[int]) -> tuple[list[int], list[int]]:
    """Take the weights of the last nodes off: always those of the last one, then as many as fit."""
    nodes = [list(group) for _, group in groupby(order, key=lambda index: parts[index].first_use)]
    head = nodes.pop()
    room = HEAD_BYTES - sum(parts[index].size for index in head)
    while nodes and (room := room - sum(parts[index].size for index in nodes[-1])) >= 0:
        head = nodes.pop() + head
    return [index for node in nodes for index in node], head


def _split_evenly(parts: Sequence[Part], order: Sequence[int], count: int) -> list[list[int]]:
    """Cut the sequence into `count` stretches of about the same size; some may be empty."""
    total = sum(parts[index].size for index in order)
    groups: list[list[int]] = [[] for _ in range(count)]
    before = 0
    for index in order:
        size = parts[index].size
        middle = 2 * before + size  # twice the middle, so that all stays whole numbers
        groups[min(count - 1, middle * count // (2 * total))].append(index)
        before += size
    return groups


def _arrange(parts: Sequence[Part], shard: int, group: Sequence[int]) -> list[Place]:
    places, end = [], 0
    for index in group:
        # Pages for what is worth mapping, as onnx.proto recommends; the rest as wide as a vector register.
        alignment = PAGE_BYTES if parts[index].size >= _PAGED_BYTES else _ALIGNMENT
        offset = -(-end // alignment) * alignment
        places.append(Place(index, shard, offset))
        end = offset + parts[index].size
    return places
