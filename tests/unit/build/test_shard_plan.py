"""Where weights go: each one once, in order of use, the head by itself, the same for the same shapes."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgemodel_operator.build.shard.plan import (
    HEAD_BYTES,
    MOST_SHARDS,
    PAGE_BYTES,
    SHARD_BYTES,
    SMALLEST_BYTES,
    Part,
    Place,
    plan_shards,
)

MIB = 1024 * 1024
some = st.lists(st.builds(Part, st.integers(1, 6 * MIB), st.integers(-1, 30)), max_size=60)
large = st.builds(Part, st.just(SMALLEST_BYTES), st.integers(-1, 30))
parts = st.tuples(some, large, some).map(lambda drawn: [*drawn[0], drawn[1], *drawn[2]])


def by_shard(places: tuple[Place, ...]) -> list[list[Place]]:
    shards: defaultdict[int, list[Place]] = defaultdict(list)
    for place in places:
        shards[place.shard].append(place)
    assert list(shards) == list(range(len(shards)))
    return list(shards.values())


@given(parts)
def test_every_weight_has_one_place_and_none_overlap(weights: list[Part]) -> None:
    places = plan_shards(weights)
    assert sorted(place.weight for place in places) == list(range(len(weights)))
    shards = by_shard(places)
    assert len(shards) <= min(MOST_SHARDS, -(-sum(part.size for part in weights) // SHARD_BYTES))
    for shard in shards:
        end = 0
        for place in shard:
            size = weights[place.weight].size
            assert end <= place.offset < end + PAGE_BYTES
            assert place.offset % (PAGE_BYTES if size >= 64 * 1024 else 64) == 0
            end = place.offset + size


@given(parts)
def test_weights_lie_in_the_order_of_their_use(weights: list[Part]) -> None:
    places = plan_shards(weights)
    order = [(weights[place.weight].first_use, place.weight) for place in places]
    assert order == sorted(order)


@given(parts)
def test_the_last_shard_is_the_head(weights: list[Part]) -> None:
    places = plan_shards(weights)
    *_, head = by_shard(places)
    last_use = max(part.first_use for part in weights)
    last = {index for index, part in enumerate(weights) if part.first_use == last_use}
    within = {place.weight for place in head}
    assert last <= within
    assert within == last or sum(weights[index].size for index in within) <= HEAD_BYTES


@given(parts, st.integers(1, 5))
def test_the_order_in_the_file_only_decides_among_equals(weights: list[Part], step: int) -> None:
    assume(len({part.first_use for part in weights}) == len(weights))
    turned = weights[step:] + weights[:step]
    assert [(turned[place.weight], place.shard, place.offset) for place in plan_shards(turned)] == [
        (weights[place.weight], place.shard, place.offset) for place in plan_shards(weights)
    ]


@pytest.mark.parametrize(
    ("sizes", "shards"),
    [
        ([], 0),
        ([SMALLEST_BYTES - 1], 0),
        ([SMALLEST_BYTES], 1),
        ([MIB // 4] * 31, 0),
        ([MIB // 4] * 32, 2),
        ([MIB // 4] * 4 * 23, 6),
        ([MIB // 4] * 4 * 100, 8),
        ([300 * MIB, 1000], 2),
    ],
)
def test_how_many_shards_there_are(sizes: list[int], shards: int) -> None:
    places = plan_shards([Part(size, index) for index, size in enumerate(sizes)])
    assert len({place.shard for place in places}) == shards


def test_shards_of_even_weights_are_even() -> None:
    places = plan_shards([Part(MIB // 4, index) for index in range(4 * 30)])
    sizes = [sum(MIB // 4 for _ in shard) for shard in by_shard(places)]
    assert sizes[-1] == MIB
    assert max(sizes[:-1]) - min(sizes[:-1]) <= MIB // 4
