"""Names that we write into clusters: always valid, never the same for different things."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.names import (
    NODE_LABEL_PREFIX,
    active_label,
    assignment_value,
    child_name,
    model_key,
    next_label,
    short,
)

LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
LABEL_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

revisions = st.from_regex(r"[0-9a-f]{10}", fullmatch=True)
models = st.from_regex(r"[a-z]([-a-z0-9]{0,50}[a-z0-9])?", fullmatch=True)
objects = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?){0,3}", fullmatch=True
).filter(lambda name: len(name) <= 253)


@given(models, objects)
def test_label_keys_are_valid_for_any_model(model: str, namespace: str) -> None:
    key = model_key(namespace, model)
    assert active_label(key) != next_label(key)
    for label in (active_label(key), next_label(key)):
        prefix, _, name = label.partition("/")
        assert SUBDOMAIN.fullmatch(prefix)
        assert LABEL_NAME.fullmatch(name)


def test_a_kubelet_may_not_write_our_node_labels() -> None:
    assert NODE_LABEL_PREFIX.endswith(".node-restriction.kubernetes.io/")


@given(revisions, objects)
def test_assignments_are_label_values_that_give_the_revision_back(revision: str, target: str) -> None:
    value = assignment_value(revision, target)
    assert LABEL_VALUE.fullmatch(value)
    assert value.partition(".")[0] == revision
    assert assignment_value(revision, value.partition(".")[2]) == value


@given(models, objects, revisions)
def test_child_names_are_valid_and_leave_room_for_the_suffix_of_a_pod(
    model: str, target: str, revision: str
) -> None:
    for name in (child_name(model, target, revision), child_name(model, target, revision, "prefetch")):
        assert len(name) + len("-abcde") <= 64
        assert SUBDOMAIN.fullmatch(name)


@given(objects, objects, st.integers(20, 63))
def test_shortening_keeps_different_names_apart(one: str, other: str, limit: int) -> None:
    assert len(short(one, limit)) <= limit
    assert (short(one, limit) == short(other, limit)) == (one == other)


@given(st.tuples(objects, models), st.tuples(objects, models))
def test_model_keys_tell_models_apart(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (model_key(*one) == model_key(*other)) == (one == other)
