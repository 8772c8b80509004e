"""The build key: what must change it, and what must not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.core.build_key import BuildInputs, build_key, child_tag, index_tag

INPUTS = BuildInputs(
    model_name="line-orientation",
    model_version="7",
    model_format="ONNX",
    source_sha256="a" * 64,
    runtime_digest="sha256:" + "b" * 64,
    platforms=("linux/amd64", "linux/arm64"),
    assembler="assembler/1",
    compressor="zstd-3/1.5",
)


def test_the_key_is_the_same_in_every_release() -> None:
    # A key that changes by accident makes every site build every image again.
    assert build_key(INPUTS) == "6351d5e8e1a1a888244d6b90d7cd523ce97631c198f64bc6199f409a535e8458"


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(BuildInputs)])
def test_every_input_changes_the_key(name: str) -> None:
    other: Any = ("linux/arm64",) if name == "platforms" else "other"
    assert build_key(dataclasses.replace(INPUTS, **{name: other})) != build_key(INPUTS)


def test_order_and_repetition_of_platforms_do_not_matter() -> None:
    shuffled = ("linux/arm64", "linux/amd64", "linux/arm64")
    assert build_key(dataclasses.replace(INPUTS, platforms=shuffled)) == build_key(INPUTS)


@given(st.text(max_size=8), st.text(max_size=8), st.text(max_size=8), st.text(max_size=8))
def test_text_never_moves_from_one_field_to_another(a: str, b: str, c: str, d: str) -> None:
    left = dataclasses.replace(INPUTS, model_name=a, model_version=b)
    right = dataclasses.replace(INPUTS, model_name=c, model_version=d)
    assert (build_key(left) == build_key(right)) == ((a, b) == (c, d))


def test_tags_are_short_and_tell_platforms_apart() -> None:
    key = "0123456789abcdef" * 4
    assert index_tag(key) == "m-0123456789ab"
    assert child_tag(key, "linux/arm64") == "m-0123456789ab-linux-arm64"
