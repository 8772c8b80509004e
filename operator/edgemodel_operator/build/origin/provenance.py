"""How an image was built, as SLSA v1 provenance, and the way back: the request that builds it again.

Formats: in-toto Statement v1 (https://in-toto.io/Statement/v1), SLSA provenance v1
(https://slsa.dev/spec/v1.0/provenance). What our `buildType` means is in `docs/origin.md`. Pure.

No time, no invocation and no place where the image was pushed is in it: the same build gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.build.origin.contents import (
    NAMESPACE,
    TOOL,
    Material,
    image_material,
    image_purl,
    without_query,
)
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.oci.descriptor import Descriptor, canonical_json

PROVENANCE_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = f"{NAMESPACE}/build/v1"
BUILDER_ID = f"{NAMESPACE}/builder/v1"
MAX_STATEMENT_BYTES = 4 * 1024 * 1024

RECORDED = frozenset({"model_name", "model", "digests", "image", "runtime", "made_runtimes", "converter"})
"""The fields of a request that decide an image; `digests` go into the source."""
OMITTED = frozenset(
    {
        "target",
        "credentials",
        "source_secret",
        "context_secret",
        "docker",
        "buildah",
        "config_map",
        "volume",
        "plain_http",
        "upload_hosts",
        "authorities",
        "source_limits",
        "adoption",
    }
)
"""Its other fields: secrets, and by which ways things are fetched and pushed."""
RECORDED_OF_IMAGE = frozenset({"platforms", "builder", "dockerfile", "compression", "sharding"})
OMITTED_OF_IMAGE = frozenset({"repository", "pull_secrets", "push_secret", "keep_images", "deletion_policy"})


class InvalidProvenance(ValueError):  # noqa: N818 - reads as the fact it states
    """A statement is no provenance that this version can build from; the message says why."""


@dataclass(frozen=True)
class BuildRecord:
    """What is recorded of a build: its request, and what it resolved and used.

    `digests` are those of the files of the source, `materials` everything that was fetched.
    """

    request: BuildRequest
    digests: tuple[str, ...]
    build_key: str
    materials: tuple[Material, ...]
    version: str


def make_provenance(record: BuildRecord, index: Descriptor, children: Sequence[Descriptor]) -> bytes:
    """Make the statement about an index and the images in it."""
    request = record.request
    inputs = request.inputs(record.digests)
    subjects = [
        _subject(request.model_name, child)
        for child in (index, *sorted(children, key=lambda child: str(child.platform)))
    ]
    runtime = image_material(request.runtime, "runtime")
    return canonical_json(
        {
            "_type": STATEMENT_TYPE,
            "subject": subjects,
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": _parameters(request, record.digests),
                    "internalParameters": {
                        "buildKey": record.build_key,
                        "assembler": inputs.assembler,
                        "compressor": inputs.compressor,
                    },
                    "resolvedDependencies": [_dependency(one) for one in (runtime, *record.materials)],
                },
                "runDetails": {"builder": {"id": BUILDER_ID, "version": {TOOL: record.version}}},
            },
        }
    )


def request_from_provenance(statement: bytes, repository: str) -> BuildRequest:
    """Give the request that builds the image of a statement again, for a repository.

    Logins, Secrets and networks are for the caller to add. Raises InvalidProvenance, also where this version
    would lay the image out in another way than the one that built it.
    """
    definition, builder = _read(statement)
    external, internal = _object(definition, "externalParameters"), _object(definition, "internalParameters")
    image = {**_object(external, "image"), "repository": repository}
    _refuse_others(external, BuildRequest, RECORDED)
    _refuse_others(image, ImageSpec, RECORDED_OF_IMAGE | {"repository"})
    try:
        request = BuildRequest.model_validate({**external, "image": image})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidProvenance(f"externalParameters.{where}: {first['msg']}") from error
    if request.build_key != internal.get("buildKey"):
        ours = request.inputs(request.source.digests)
        raise InvalidProvenance(
            f"it was built by {internal.get('assembler')} with {internal.get('compressor')}; this one has "
            f"{ours.assembler} with {ours.compressor} and would build another image: use the version "
            f"{_object(builder, 'version').get(TOOL)} of {TOOL}"
        )
    return request


def _refuse_others(given: Mapping[str, Any], schema: type[Schema], recorded: Collection[str]) -> None:
    """Refuse fields that no build records: a statement must not choose Secrets, folders or networks."""
    others = given.keys() - {schema.model_fields[name].alias for name in recorded}
    if others:
        raise InvalidProvenance(
            f"its externalParameters have fields of no build: {', '.join(sorted(others))}"
        )


def _parameters(request: BuildRequest, digests: Sequence[str]) -> dict[str, Any]:
    """Give the request without secrets and without what is no matter of the image, its source pinned."""
    model = request.model.model_copy(update={"source": request.model.source.pinned_to(digests)}).to_raw()
    image = request.image.to_raw()
    dropped = {type(request.image).model_fields[name].alias for name in OMITTED_OF_IMAGE}
    image = {name: value for name, value in image.items() if name not in dropped}
    _clean_source(model["source"])
    if "dockerfile" in image:
        _clean_source(image["dockerfile"]["context"])
    made = {"madeRuntimes": list(request.made_runtimes)} if request.made_runtimes else {}
    converter = {"converter": request.converter} if request.converter else {}
    below = {"runtime": request.runtime, **made, **converter}
    return {"modelName": request.model_name, "model": model, "image": image, **below}


def _clean_source(source: dict[str, Any]) -> None:
    """Take queries out of URLs, in place: they may be signatures that let anybody read."""
    http = source.get("http")
    for file in (http, http.get("weights")) if http else ():
        if file:
            file["url"] = without_query(file["url"])


def _subject(name: str, child: Descriptor) -> dict[str, Any]:
    architecture = child.platform.architecture if child.platform else ""
    return {
        "name": image_purl(name, child.digest, architecture),
        "digest": {"sha256": child.digest.removeprefix("sha256:")},
    }


def _dependency(material: Material) -> dict[str, Any]:
    name = {"name": material.name} if material.name else {}
    return {**name, "uri": material.uri, "digest": {"sha256": material.sha256}}


def _read(statement: bytes) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Give the definition of the build and the builder of a statement of ours."""
    if len(statement) > MAX_STATEMENT_BYTES:
        raise InvalidProvenance(f"it has more than {MAX_STATEMENT_BYTES} bytes")
    try:
        document = json.loads(statement)
    except (ValueError, RecursionError) as error:
        raise InvalidProvenance("it is not JSON") from error
    if not isinstance(document, Mapping):
        raise InvalidProvenance("it is not a JSON object")
    kinds = {"_type": STATEMENT_TYPE, "predicateType": PREDICATE_TYPE}
    for name, expected in kinds.items():
        if document.get(name) != expected:
            raise InvalidProvenance(f"its {name} is {document.get(name)!r} instead of {expected!r}")
    predicate = _object(document, "predicate")
    definition = _object(predicate, "buildDefinition")
    if definition.get("buildType") != BUILD_TYPE:
        raise InvalidProvenance(
            f"its buildType is {definition.get('buildType')!r}; only {BUILD_TYPE} is understood"
        )
    return definition, _object(_object(predicate, "runDetails"), "builder")


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    if not isinstance(value, Mapping):
        raise InvalidProvenance(f"it has no object {name!r}")
    return value
