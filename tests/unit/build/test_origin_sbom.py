"""Bills of materials: judged by the validators of their formats, exact, and always the same bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from spdx_tools.spdx.model import Document, RelationshipType
from spdx_tools.spdx.parser.jsonlikedict.json_like_dict_parser import JsonLikeDictParser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.origin.attach import Origin, make_documents
from edgemodel_operator.build.origin.cyclonedx import CYCLONEDX_TYPE
from edgemodel_operator.build.origin.packages import PACKAGES_LABEL, Package
from edgemodel_operator.build.origin.spdx import SPDX_TYPE
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.image import RuntimeSettings, make_image
from support.images import AMD64, make_layer
from support.origin import INDEX, PACKAGES, SOURCE, children_of, make_origin, make_origin_request


def content_of(origin: Origin, media_type: str) -> bytes:
    return next(
        document.content
        for document in make_documents(origin, INDEX, children_of(1))
        if document.media_type == media_type
    )


def read_spdx(origin: Origin) -> Document:
    document = JsonLikeDictParser().parse(json.loads(content_of(origin, SPDX_TYPE)))
    assert validate_full_spdx_document(document) == []
    return document


def read_cyclonedx(origin: Origin) -> dict[str, Any]:
    text = content_of(origin, CYCLONEDX_TYPE).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document: dict[str, Any] = json.loads(text)
    return document


ORIGINS = {
    "everything known": make_origin(),
    "a silent runtime image": make_origin(packages=None),
    "an empty report": make_origin(report=ModelReport()),
    "packages twice": make_origin(packages=(*PACKAGES, *PACKAGES)),
    "a repeated file": make_origin(files=(SOURCE, SOURCE.model_copy(update={"name": "copy.onnx"}))),
}


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS.keys())
def test_both_formats_are_valid(origin: Origin) -> None:
    read_spdx(origin)
    read_cyclonedx(origin)


def test_spdx_names_every_package_with_hash_and_licence() -> None:
    document = read_spdx(make_origin())
    listed = {
        reference.locator: (
            package.name,
            package.version,
            [checksum.value for checksum in package.checksums],
            str(package.license_declared),
        )
        for package in document.packages
        for reference in package.external_references
    }
    assert {purl: listed[purl] for purl in (package.purl for package in PACKAGES)} == {
        package.purl: (
            package.name,
            package.version,
            [package.sha256] if package.sha256 else [],
            package.license or "NOASSERTION",
        )
        for package in PACKAGES
    }
    assert [one.license_id for one in document.extracted_licensing_info] == [
        "LicenseRef-Debian-public-domain"
    ]


def test_spdx_follows_the_model_to_its_source() -> None:
    document = read_spdx(make_origin())
    packages = {package.spdx_id: package for package in document.packages}
    made_of = {
        packages[str(link.related_spdx_element_id)].download_location
        for link in document.relationships
        if link.relationship_type is RelationshipType.GENERATED_FROM
    }
    assert made_of == {"https://models.plant-a.local/line/model.onnx"}


def test_cyclonedx_has_the_model_as_such() -> None:
    document = read_cyclonedx(make_origin())
    (model,) = [one for one in document["components"] if one["type"] == "machine-learning-model"]
    assert model["modelCard"]["modelParameters"] == {
        "inputs": [{"format": "x: FP32[N, 16]"}],
        "outputs": [{"format": "y: FP32[N, 16]"}],
    }
    assert model["hashes"] == [{"alg": "SHA-256", "content": SOURCE.sha256}]
    assert {"name": "edgemodel.dev/model/operator", "value": "MatMul"} in model["properties"]


DOCKERFILE = ImageSpec.model_validate(
    {
        "repository": "registry.plant-a.local/models/line",
        "builder": "Docker",
        "dockerfile": {
            "context": {
                "http": {"url": "https://models.plant-a.local/c.tar", "sha256": "7" * 64},
                "archive": {},
            }
        },
    }
)
FOREIGN = Package(f"pkg:oci/jetson@sha256%3A{'8' * 64}")


@pytest.mark.parametrize(
    ("origin", "coverage"),
    [
        (make_origin(), "complete"),
        (make_origin(packages=None), "unknown"),
        (make_origin(packages=(FOREIGN, *PACKAGES)), "incomplete"),
        (make_origin(request=make_origin_request(image=DOCKERFILE)), "incomplete"),
    ],
    ids=["ours", "silent", "on a base of others", "changed by a Dockerfile"],
)
def test_both_say_how_complete_they_are(origin: Origin, coverage: str) -> None:
    compositions = read_cyclonedx(origin)["compositions"]
    assert {one["assemblies"][0]: one["aggregate"] for one in compositions} == {
        "model": "unknown",
        "runtime": coverage,
    }
    (runtime,) = [package for package in read_spdx(origin).packages if package.name == "runtime"]
    assert bool(runtime.comment) == (coverage != "complete")


@pytest.mark.parametrize("media_type", [SPDX_TYPE, CYCLONEDX_TYPE])
def test_equal_builds_have_equal_documents(media_type: str) -> None:
    shuffled = make_origin(packages=tuple(reversed(PACKAGES)))
    assert content_of(shuffled, media_type) == content_of(make_origin(), media_type)


@pytest.mark.parametrize("media_type", [SPDX_TYPE, CYCLONEDX_TYPE])
def test_no_document_knows_a_registry_or_a_secret(media_type: str) -> None:
    content = content_of(make_origin(), media_type)
    assert b"registry.plant-a.local" not in content
    assert b"hunter2" not in content


def test_a_runtime_image_that_says_nonsense_is_refused() -> None:
    layer, _ = make_layer("opt/server", b"")
    image = make_image(AMD64, [layer], RuntimeSettings(labels={PACKAGES_LABEL: "many"}))
    runtime = (RuntimeChild(AMD64, image.descriptor.digest, image.manifest, image.config),)
    with pytest.raises(BuildError) as caught:
        make_documents(replace(make_origin(), runtime=runtime), INDEX, children_of(1))
    assert caught.value.failure.reason is Reason.RUNTIME_IMAGE_INVALID
    assert PACKAGES_LABEL in caught.value.failure.message
