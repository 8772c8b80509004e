"""What the plugin reads out of an EdgeModel, and how the trail of an image is written down."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.cli.kubectl_trail import ModelSource, Occurrence, Sighting, Statement, Trail
from edgemodel_operator.cli.kubectl_trail_report import SECTIONS, source_place, trail_document, trail_lines
from edgemodel_operator.cli.model_images import images_of, revision_images
from edgemodel_operator.cli.verify_report import VerifyReport
from edgemodel_operator.oci.reference import parse_reference

A, B, C = (f"registry.plant-a.local:5000/models/line@sha256:{letter * 64}" for letter in "abc")


def revision(name: str, *images: str) -> dict[str, Any]:
    return {"name": name, "targets": [{"accelerator": "cpu", "image": image} for image in images]}


def model(**status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "plant-a", "name": "line"}, "spec": {}, "status": status}


def test_the_images_are_those_of_the_revision_that_runs_and_of_the_one_that_is_asked_for() -> None:
    revisions = [revision("new", B, B, C), revision("old", A), revision("older", C)]
    found = revision_images(model(currentRevision="old", targetRevision="new", revisions=revisions))
    assert [(one.name, one.roles, [str(image) for image in one.images]) for one in found] == [
        ("old", ("current",), [A]),
        ("new", ("target",), [B, C]),
    ]


def test_one_revision_can_play_both_parts() -> None:
    (found,) = revision_images(model(currentRevision="r", targetRevision="r", revisions=[revision("r", A)]))
    assert found.roles == ("current", "target")


def test_before_the_first_revision_there_is_what_was_built() -> None:
    (found,) = revision_images(model(images=[{"variant": "cpu", "image": A}]))
    assert (found.name, found.roles, str(found.images[0])) == ("", ("built",), A)


@pytest.mark.parametrize("status", [{}, {"currentRevision": "gone", "revisions": []}])
def test_without_images_there_is_nothing(status: dict[str, Any]) -> None:
    assert revision_images(model(**status)) == ()


def test_every_image_of_a_model_is_known_with_its_build_key_where_there_is_one() -> None:
    found = images_of(
        model(
            images=[{"image": A, "buildKey": "k1"}],
            retainedImages=[{"image": A, "buildKey": "k1"}, {"image": B, "buildKey": "k2"}],
            revisions=[revision("r", C, "not an image!")],
        )
    )
    assert [(str(image), key) for image, key in found] == [(A, "k1"), (B, "k2"), (C, "")]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"http": {"url": "https://a.plant-a.local/m.onnx"}}, "http https://a.plant-a.local/m.onnx"),
        ({"oci": {"reference": A}}, f"oci {A}"),
        ({"pvc": {"claimName": "models", "path": "m.onnx"}}, "pvc models m.onnx"),
        ({"archive": {"path": "x"}, "configMap": {"name": "m", "key": "m.onnx"}}, "configMap m m.onnx"),
        ({}, "unknown"),
    ],
)
def test_where_a_source_lies_is_one_text(source: dict[str, Any], text: str) -> None:
    assert source_place(source) == text


def trail(**parts: Any) -> Trail:
    nothing = VerifyReport(A, (), "no TrustPolicy matches it")
    given = {
        "sources": (),
        "verification": nothing,
        "statements": (),
        "events": (),
        "sightings": (),
        **parts,
    }
    return Trail(image=parse_reference(A), **given)


def test_a_trail_says_of_every_part_that_there_is_nothing() -> None:
    lines = trail_lines(trail())
    assert [line for line in lines if line in SECTIONS] == list(SECTIONS[:-1])
    assert "  no EdgeModel in the cluster tells of this image" in lines
    assert "  it runs nowhere" in lines
    assert trail_document(trail())["provenance"] is None


def test_what_could_not_be_read_is_said_at_the_end() -> None:
    assert trail_lines(trail(problems=("the registry did not answer",)))[-2:] == [
        "not known",
        "  the registry did not answer",
    ]


def test_a_provenance_of_any_shape_is_written_without_an_error() -> None:
    """Whoever signs may sign anything: what it says is not what we expect, perhaps."""
    for predicate in ({}, {"runDetails": 1}, {"buildDefinition": {"resolvedDependencies": [1, {}]}}):
        statement = Statement(
            "https://slsa.dev/provenance/v1", f"sha256:{'a' * 64}", "Bundle", ("x",), "k", predicate
        )
        assert any("attested by x, key k" in line for line in trail_lines(trail(statements=(statement,))))


def test_everything_known_is_in_the_document() -> None:
    source = ModelSource("plant-a/line", "7", {"http": {"url": "u"}}, ({"name": "m"},), "k", "t")
    full = trail(
        sources=(source,),
        events=(Occurrence("t", "ImageRefused", "Namespace plant-a", "m"),),
        sightings=(Sighting("edge-a", "plant-a", "line-x", "containers[main]", "t"),),
    )
    document = trail_document(full)
    assert document["sources"][0]["build_key"] == "k"
    assert document["events"][0]["reason"] == "ImageRefused"
    assert document["nodes"][0]["node"] == "edge-a"
