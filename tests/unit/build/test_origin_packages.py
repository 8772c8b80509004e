"""The label with which a runtime image says what it holds."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packageurl import PackageURL

from edgemodel_operator.build.graft import FACTS
from edgemodel_operator.build.origin.packages import (
    InvalidPackages,
    Package,
    packages_label,
    packages_of,
    parse_packages,
)
from edgemodel_operator.oci.image import graft
from support.images import AMD64
from support.origin import PACKAGES, make_runtime_image

words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=20)


def test_a_label_is_read_as_it_was_written() -> None:
    assert parse_packages(packages_label(PACKAGES)) == tuple(sorted(PACKAGES))


def test_order_and_repetition_make_no_difference() -> None:
    assert packages_label([*reversed(PACKAGES), PACKAGES[0]]) == packages_label(PACKAGES)


@given(name=words, version=words)
def test_names_and_versions_are_those_of_the_purl(name: str, version: str) -> None:
    purl = PackageURL("generic", None, name, version, {"arch": "amd64"}).to_string()
    package = Package(purl)
    known = PackageURL.from_string(purl)
    assert (package.kind, package.name, package.version) == ("generic", known.name, known.version)


def test_what_is_not_known_is_left_out() -> None:
    assert Package("pkg:pypi/numpy@2").to_json() == {"purl": "pkg:pypi/numpy@2"}


def test_a_configuration_gives_its_list() -> None:
    assert packages_of(make_runtime_image(AMD64)[0].config) == tuple(sorted(PACKAGES))
    assert packages_of(make_runtime_image(AMD64, None)[0].config) is None
    assert packages_of(b'{"os":"linux"}') is None


@pytest.mark.parametrize(
    ("label", "sentence"),
    [
        ("[", "not JSON"),
        ("{}", "not a list"),
        ("[1]", "not an object"),
        ('[{"purl": 1}]', "not an object of texts"),
        ('[{"purl": "pkg:pypi/a@1", "path": "/x"}]', "path"),
        ('[{"purl": "numpy"}]', "'numpy' is not a purl"),
        ('[{"purl": "pkg:pypi/a@1", "sha256": "abc"}]', "64 hex digits"),
        (json.dumps([{}] * 10_001), "at most 10000"),
    ],
)
def test_a_label_that_is_none_of_ours_is_refused(label: str, sentence: str) -> None:
    with pytest.raises(InvalidPackages, match=sentence):
        parse_packages(label)


def test_a_model_image_does_not_repeat_the_list() -> None:
    """It would only make containerd warn of a long label at every start of a container."""
    runtime = make_runtime_image(AMD64)[0]
    image = graft(runtime.manifest, runtime.config, [], labels={"a": "b"}, without_labels=FACTS)
    assert packages_of(image.config) is None
    assert json.loads(image.config)["config"]["Labels"] == {"a": "b"}
