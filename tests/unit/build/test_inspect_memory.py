"""The estimate of memory: the most that is alive at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.build.inspect.memory import Step, count_bytes, count_elements, peak_bytes
from edgemodel_operator.build.inspect.objection import Objection


@pytest.mark.parametrize(
    ("steps", "outputs", "peak"),
    [
        ([], "", 1),  # the input alone
        (["x>a"], "a", 1 + 10),
        (["x>a", "a>b"], "b", 10 + 100),
        (["x>a", "a>b", "xb>c"], "c", 1 + 100 + 1000),  # the input is needed to the end
        (["x>a", "x>b", "x>c"], "", 1 + 1000),  # nobody takes a or b
        (["x>a", "x>b"], "a", 1 + 10 + 100),  # an output stays
        (["x>a", "ax>a"], "a", 1 + 10),  # made twice: counted once
        (["w>a"], "a", 1 + 10),  # a weight has no size here
    ],
)
def test_a_tensor_lives_from_its_maker_to_its_last_taker(steps: list[str], outputs: str, peak: int) -> None:
    sizes = {"x": 1, "a": 10, "b": 100, "c": 1000}
    walk = [Step(tuple(takes), tuple(makes)) for takes, makes in (step.split(">") for step in steps)]
    assert peak_bytes(walk, sizes, "x", outputs) == peak


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))), st.sets(st.integers(0, 9))
)
def test_the_peak_lies_between_the_largest_step_and_everything(
    walk: list[tuple[list[int], list[int]]], outputs: set[int]
) -> None:
    sizes = {number: 2**number for number in range(10)}
    steps = [Step(takes, makes) for takes, makes in walk]
    peak = peak_bytes(steps, sizes, range(3), outputs)
    assert peak <= sum(sizes.values())
    assert peak >= max((sum(sizes[one] for one in {*step.makes}) for step in steps), default=0)


def test_dimensions_that_vary_count_as_one() -> None:
    assert count_elements([None, 3, 4]) == 12
    assert count_elements([]) == 1
    with pytest.raises(Objection, match="-2 elements"):
        count_elements([3, -2])


def test_small_elements_are_packed() -> None:
    assert [count_bytes(3, bits) for bits in (2, 4, 8, 32)] == [1, 2, 3, 12]
