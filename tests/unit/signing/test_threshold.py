"""Counting different signers: one key counts once, under however many names it is known."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.signing.threshold import different_authorities, unmatched_authorities


@pytest.mark.parametrize(
    ("signers", "want"),
    [
        ({}, 0),
        ({"k1": ["a"]}, 1),
        ({"k1": ["a", "b", "c"]}, 1),
        ({"k1": ["a"], "k2": ["a"]}, 1),
        ({"k1": ["a"], "k2": ["b"]}, 2),
        ({"k1": ["a", "b"], "k2": ["a"]}, 2),
        ({"k1": ["a", "b"], "k2": ["a", "b"], "k3": ["a", "b"]}, 2),
        ({"k1": ["a", "b"], "k2": ["b", "c"], "k3": ["a"]}, 3),
    ],
)
def test_case_41_each_authority_needs_a_key_that_stands_for_no_other(
    signers: dict[str, list[str]], want: int
) -> None:
    assert different_authorities(signers) == want


def test_case_41_required_authorities_need_keys_of_their_own_as_well() -> None:
    assert unmatched_authorities({"k1": ["a", "b"]}, {"a"}) == frozenset()
    assert len(unmatched_authorities({"k1": ["a", "b"]}, {"a", "b"})) == 1
    assert unmatched_authorities({"k1": ["a", "b"], "k2": ["b"]}, {"a", "b"}) == frozenset()
    assert unmatched_authorities({"k1": ["a"]}, {"c"}) == {"c"}


GRAPHS = st.dictionaries(
    st.sampled_from(["k1", "k2", "k3", "k4"]), st.lists(st.sampled_from("abcd"), max_size=4), max_size=4
)


def brute_force(signers: dict[str, list[str]]) -> int:
    """Try every order of the keys, each taking the first name that is free, for every order of names."""
    best = 0
    for order in permutations(signers):
        for names in permutations("abcd"):
            taken: set[str] = set()
            for key in order:
                free = [name for name in names if name in signers[key] and name not in taken]
                taken.update(free[:1])
            best = max(best, len(taken))
    return best


@given(GRAPHS)
def test_the_count_is_the_largest_that_any_assignment_reaches(signers: dict[str, list[str]]) -> None:
    assert different_authorities(signers) == brute_force(signers)


@given(GRAPHS, st.sampled_from(["k1", "k9"]), st.lists(st.sampled_from("abcd"), max_size=4))
def test_a_further_signature_never_lowers_the_count(
    signers: dict[str, list[str]], key: str, names: list[str]
) -> None:
    more = signers | {key: [*signers.get(key, []), *names]}
    assert different_authorities(signers) <= different_authorities(more) <= different_authorities(signers) + 1
