"""Pins: what was seen first holds for one source and one version, and for nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.core.pins import is_pinned, known_digests, source_key

MODEL = {"url": "https://files.example.com/a.xml", "weights": {"url": "https://files.example.com/a.bin"}}
SEEN = ("a" * 64, "b" * 64)


def spec(version: str = "1", **changes: Any) -> ModelSpec:
    source = {"http": {**MODEL, **changes}}
    return ModelSpec.model_validate({"format": "OpenVINO", "version": version, "source": source})


def seen(model: ModelSpec, digests: tuple[str, ...] = SEEN) -> ModelReport:
    files = tuple(ModelFile(name="f", sha256=digest) for digest in digests)
    return ModelReport(source_key=source_key(model), files=files)


def test_nothing_is_known_before_the_first_fetch() -> None:
    assert known_digests(spec(), None) == ("", "")
    assert not is_pinned(known_digests(spec(), None))


def test_what_was_seen_holds() -> None:
    assert known_digests(spec(), seen(spec())) == SEEN
    assert is_pinned(SEEN)


@pytest.mark.parametrize(
    "other", [spec("2"), spec(url="https://files.example.com/b.xml"), spec(sha256="c" * 64)]
)
def test_another_version_or_source_is_looked_at_again(other: ModelSpec) -> None:
    assert known_digests(other, seen(spec())) == other.source.digests


def test_what_the_spec_says_counts_before_what_was_seen() -> None:
    model = spec(sha256="c" * 64)
    assert known_digests(model, seen(model)) == ("c" * 64, "b" * 64)


def test_a_report_of_another_shape_pins_nothing() -> None:
    assert known_digests(spec(), seen(spec(), SEEN[:1])) == ("", "")


def test_a_source_takes_its_pins() -> None:
    pinned = spec().source.pinned_to(SEEN)
    assert pinned.digests == SEEN
    assert pinned.kind == "http"
    assert spec().source.pinned_to(("", "")).digests == ("", "")
