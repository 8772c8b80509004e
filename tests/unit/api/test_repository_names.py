"""A repository that the API server lets in is one that the operator can read: the two grammars agree."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.image import REPOSITORY
from edgemodel_operator.oci.reference import InvalidReference, parse_reference

NAME = re.compile(REPOSITORY.removesuffix("$") + r"\Z")
PIECES = (
    "registry",
    "Plant-A",
    "localhost",
    "local",
    "a",
    "0",
    ".",
    "..",
    "-",
    "_",
    "__",
    "/",
    ":5000",
    ":0",
)


def can_be_read(name: str) -> bool:
    try:
        return parse_reference(name).tag is None
    except InvalidReference:
        return False


@given(st.lists(st.sampled_from(PIECES), min_size=2, max_size=9).map("".join))
def test_what_is_let_in_can_be_read_and_what_can_be_read_is_let_in(name: str) -> None:
    assert (NAME.match(name) is not None) == can_be_read(name)


@pytest.mark.parametrize(
    "name",
    ["localhost/x", "registry:5000/models/line", "10.0.0.1/x", "Registry.Plant-A.local:65535/a/b.c__d--e"],
)
def test_these_are_let_in(name: str) -> None:
    assert NAME.match(name)


@pytest.mark.parametrize(
    "name", ["registry/models/line", "registry.local:65536/x", "a..b/x", "a.b/x..y", "a.b"]
)
def test_these_are_not(name: str) -> None:
    assert not NAME.match(name)
