"""Descriptors, platforms and canonical JSON."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.oci.descriptor import (
    OCI_LAYER_ZSTD,
    Descriptor,
    InvalidDescriptor,
    Platform,
    canonical_json,
    sha256_digest,
)

words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)
platforms = st.builds(Platform, words, words, st.none() | words)
descriptors = st.builds(
    Descriptor,
    media_type=words,
    digest=st.binary(max_size=8).map(sha256_digest),
    size=st.integers(0, 2**50),
    platform=st.none() | platforms,
    annotations=st.dictionaries(words, st.text(max_size=8), max_size=3),
    artifact_type=st.none() | words,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8"), max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
VALID: dict[str, Any] = {"mediaType": OCI_LAYER_ZSTD, "digest": sha256_digest(b""), "size": 0}


@given(descriptors)
def test_a_descriptor_survives_json(descriptor: Descriptor) -> None:
    assert Descriptor.from_json(json.loads(canonical_json(descriptor.to_json()))) == descriptor
    assert hash(descriptor) == hash(Descriptor.from_json(descriptor.to_json()))


@given(json_values)
def test_canonical_json_says_the_same_in_one_way(value: Any) -> None:
    encoded = canonical_json(value)
    assert json.loads(encoded) == value
    assert canonical_json(json.loads(encoded)) == encoded


def test_canonical_json_sorts_and_packs() -> None:
    assert canonical_json({"b": [1, None], "ä": True, "a": {}}) == '{"a":{},"b":[1,null],"ä":true}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"bytes"])
def test_what_json_cannot_say_is_refused(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        canonical_json({"x": value})


@given(json_values)
def test_any_json_is_a_descriptor_or_refused(value: Any) -> None:
    with pytest.raises(InvalidDescriptor):
        Descriptor.from_json(value)


@pytest.mark.parametrize(
    "change",
    [
        {"size": -1},
        {"size": True},
        {"size": "1"},
        {"size": 1.0},
        {"digest": "sha256:abc"},
        {"digest": None},
        {"mediaType": ""},
        {"annotations": {"a": 1}},
        {"annotations": []},
        {"platform": "linux/amd64"},
        {"platform": {"os": "linux"}},
        {"artifactType": 7},
    ],
)
def test_malformed_fields_are_refused(change: dict[str, Any]) -> None:
    Descriptor.from_json(VALID)
    with pytest.raises(InvalidDescriptor):
        Descriptor.from_json({**VALID, **change})


def test_annotations_are_frozen_with_the_descriptor() -> None:
    notes = {"a": "1"}
    descriptor = Descriptor("text/plain", sha256_digest(b""), 0, annotations=notes)
    notes["a"] = "2"
    assert descriptor.annotations == {"a": "1"}
    with pytest.raises(TypeError):
        descriptor.annotations["a"] = "3"  # type: ignore[index]


def test_a_descriptor_of_bytes_tells_their_hash_and_size() -> None:
    described = Descriptor.of("text/plain", b"abc")
    assert (described.digest, described.size) == (f"sha256:{hashlib.sha256(b'abc').hexdigest()}", 3)


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm/v7"])
def test_a_platform_is_written_as_it_is_read(text: str) -> None:
    assert str(Platform.parse(text)) == text


@pytest.mark.parametrize("text", ["", "linux", "linux/", "/amd64", "linux/arm/v7/x"])
def test_incomplete_platforms_are_refused(text: str) -> None:
    with pytest.raises(InvalidDescriptor):
        Platform.parse(text)
