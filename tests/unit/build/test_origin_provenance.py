"""Provenance: complete, without secrets, and a way back to the same image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from edgemodel_operator.api.image import Compression, ImageSpec, PlatformName, Sharding
from edgemodel_operator.build.origin.attach import Origin, make_documents
from edgemodel_operator.build.origin.contents import Material
from edgemodel_operator.build.origin.provenance import (
    OMITTED,
    OMITTED_OF_IMAGE,
    PROVENANCE_TYPE,
    RECORDED,
    RECORDED_OF_IMAGE,
    InvalidProvenance,
    request_from_provenance,
)
from edgemodel_operator.build.request import BuildRequest, Login
from support.origin import INDEX, SOURCE, children_of, make_origin, make_origin_request

REPOSITORY = "registry.plant-b.local/models/line"


def provenance_of(origin: Origin) -> bytes:
    *_, last = make_documents(origin, INDEX, children_of())
    assert (last.media_type, last.subject) == (PROVENANCE_TYPE, INDEX)
    return last.content


def with_request(request: BuildRequest) -> Origin:
    return replace(make_origin(), request=request, build_key=request.build_key)


def test_every_field_of_a_request_is_recorded_or_left_out_on_purpose() -> None:
    """A field that is new must be put into one of the sets, and one that decides an image is recorded."""
    assert set(BuildRequest.model_fields) == RECORDED | OMITTED
    assert set(ImageSpec.model_fields) == RECORDED_OF_IMAGE | OMITTED_OF_IMAGE


def test_the_subjects_are_the_index_and_its_images() -> None:
    subjects = json.loads(provenance_of(make_origin()))["subject"]
    assert [one["digest"]["sha256"][0] for one in subjects] == ["b", "c", "d"]
    assert subjects[2]["name"] == f"pkg:oci/line-orientation@sha256%3A{'d' * 64}?arch=arm64"
    assert len({one["name"] for one in subjects}) == 3


def test_it_names_what_went_into_the_image() -> None:
    converter = Material("oci://registry.plant-a.local/convert@sha256:" + "9" * 64, "9" * 64, "converter")
    statement = json.loads(provenance_of(replace(make_origin(), materials=(converter,))))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    definition = statement["predicate"]["buildDefinition"]
    assert [(one["name"], one["digest"]["sha256"][0]) for one in definition["resolvedDependencies"]] == [
        ("runtime", "e"),
        ("model.onnx", "a"),
        ("converter", "9"),
    ]
    assert definition["internalParameters"]["buildKey"] == make_origin_request().build_key
    assert statement["predicate"]["runDetails"]["builder"]["version"] == {"edgemodel-operator": "0.1.0"}


def test_it_holds_no_secret() -> None:
    request = make_origin_request(
        credentials=(Login(host="registry.plant-a.local", username="robot", password=SecretStr("hunter2")),),
        source_secret={"token": SecretStr("aHVudGVyMg==")},
        config_map={"key": "aHVudGVyMg=="},
    )
    statement = provenance_of(with_request(request))
    assert [word for word in (b"hunter2", b"aHVudGVyMg", b"robot", b"token") if word in statement] == []


REQUESTS: dict[str, Callable[[BuildRequest], dict[str, Any]]] = {
    "plain": lambda _: {},
    "one platform": lambda one: {
        "image": one.image.model_copy(update={"platforms": (PlatformName.LINUX_ARM64,)})
    },
    "other compression": lambda one: {
        "image": one.image.model_copy(update={"compression": Compression.GZIP, "sharding": Sharding.DISABLED})
    },
    "pinned beside the spec": lambda one: {
        "model": one.model.model_copy(update={"source": one.model.source.pinned_to([""])}),
        "digests": (SOURCE.sha256,),
    },
}


@pytest.mark.parametrize("changes", REQUESTS.values(), ids=REQUESTS.keys())
def test_the_way_back_ends_at_the_same_image(changes: Callable[[BuildRequest], dict[str, Any]]) -> None:
    request = make_origin_request()
    request = request.model_copy(update=changes(request))
    again = request_from_provenance(provenance_of(with_request(request)), REPOSITORY)
    assert again.build_key == request.build_key
    assert again.image.repository == REPOSITORY
    assert again.source.digests == (SOURCE.sha256,)


def change(path: str, value: object) -> bytes:
    statement = json.loads(provenance_of(make_origin()))
    *parents, last = path.split(".")
    inner = statement
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return json.dumps(statement).encode()


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1", "its _type"),
        ("predicateType", "https://slsa.dev/provenance/v0.2", "its predicateType"),
        ("predicate", [], "no object 'predicate'"),
        ("predicate.buildDefinition.buildType", "https://example.com/other", "its buildType"),
        ("predicate.buildDefinition.externalParameters.runtime", "cpu", "externalParameters.runtime"),
        ("predicate.buildDefinition.externalParameters.volume", "/etc", "of no build: volume"),
        ("predicate.buildDefinition.externalParameters.image.pushSecret", {"name": "x"}, "build: pushSecret"),
        ("predicate.buildDefinition.internalParameters.buildKey", "0" * 64, "use the version 0.1.0"),
    ],
)
def test_a_statement_of_others_is_refused(path: str, value: object, sentence: str) -> None:
    with pytest.raises(InvalidProvenance, match=sentence):
        request_from_provenance(change(path, value), REPOSITORY)


@pytest.mark.parametrize(
    "statement", [b"[", b"[]", b'"' + b"x" * 5_000_000 + b'"'], ids=["half", "list", "long"]
)
def test_what_is_no_statement_is_refused(statement: bytes) -> None:
    with pytest.raises(InvalidProvenance):
        request_from_provenance(statement, REPOSITORY)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def paths_of(document: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = document.items() if isinstance(document, dict) else ()
    return [prefix, *(path for name, value in inner for path in paths_of(value, (*prefix, name)))][
        bool(not prefix) :
    ]


STATEMENT = json.loads(provenance_of(make_origin()))


@given(path=st.sampled_from(paths_of(STATEMENT)), value=json_values)
def test_any_other_value_is_refused_or_gives_the_same_image(path: tuple[str, ...], value: Any) -> None:
    try:
        request = request_from_provenance(change(".".join(path), value), REPOSITORY)
    except InvalidProvenance:
        return
    assert request.build_key == make_origin_request().build_key
