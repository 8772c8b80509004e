"""The generated CustomResourceDefinitions: structural, complete, and of one mind with the types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import edgemodel_operator
from edgemodel_operator.api.acceleratorclass import AcceleratorClass
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.crd import KINDS, Kind, crd_document
from edgemodel_operator.api.edgemodel import EdgeModel
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.trustexception import TrustException
from edgemodel_operator.api.trustpolicy import TrustPolicy
from edgemodel_operator.generate import ROOT, generated_files
from support.builders import fleet, make_model
from support.simulator import installed

Json = dict[str, Any]

MINIMAL: dict[type[Schema], Json] = {
    EdgeModel: {"spec": make_model().raw},
    AcceleratorClass: {
        "spec": {
            "runtimes": [{"format": "ONNX", "variant": "onnxruntime-npu", "provider": "Npu"}],
            "sharing": "Shared",
        }
    },
    TrustPolicy: {
        "spec": {
            "images": ["registry.example.com/**"],
            "authorities": [{"name": "plant", "keys": [{"secretRef": {"name": "plant"}}]}],
        }
    },
    TrustException: {
        "spec": {
            "images": ["registry.example.com/line"],
            "namespaces": ["plant-a"],
            "expires": "2027-01-31T00:00:00Z",
            "reason": "the supplier signs it next week",
        }
    },
}

each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def schema_of(kind: Kind) -> Json:
    schema: Json = crd_document(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@pytest.mark.parametrize("path", generated_files(), ids=str)
def test_generated_files_are_up_to_date(path: Path) -> None:
    assert (ROOT / path).read_text(encoding="utf-8") == generated_files()[path], "run `make generate`"


@each_kind
def test_defaults_of_the_definition_are_those_of_the_types(kind: Kind) -> None:
    raw = MINIMAL[kind.type]
    defaulted = with_defaults(schema_of(kind), raw)
    assert defaulted != raw
    assert kind.type.model_validate(defaulted) == kind.type.model_validate(raw)
    assert defaulted["spec"] == kind.type.model_validate(raw).to_raw()["spec"]


def with_defaults(schema: Json, value: Any) -> Any:
    """Fill in defaults as the API server does: from the outside in."""
    if isinstance(value, list):
        return [with_defaults(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    filled = dict(value)
    for name, child in properties.items():
        if name not in filled and "default" in child:
            filled[name] = child["default"]
    return {name: with_defaults(properties.get(name, {}), item) for name, item in filled.items()}


@each_kind
def test_schemas_are_structural(kind: Kind) -> None:
    for path, node in walk(schema_of(kind), kind.name):
        assert "type" in node or "x-kubernetes-int-or-string" in node, path
        assert not {"$ref", "anyOf", "oneOf", "allOf", "$defs", "title", "const"} & set(node), path
        assert node.get("additionalProperties") is not False, path
        assert not ("properties" in node and "additionalProperties" in node), path
        if node["type"] == "array":
            assert "items" in node, path


@each_kind
def test_unknown_fields_are_kept_where_they_could_ask_for_more_trust(kind: Kind) -> None:
    schema = schema_of(kind)
    status = list(walk(schema["properties"].pop("status", {"type": "object"}), "status"))
    del schema["properties"]["metadata"]  # the API server reads it by itself
    objects = [(path, node) for path, node in walk(schema, kind.name) if node["type"] == "object"]
    keeping = {path for path, node in objects if node.get("x-kubernetes-preserve-unknown-fields")}
    grants_trust = kind.type in (TrustPolicy, TrustException)
    assert keeping == ({path for path, _ in objects} if grants_trust else set())
    assert not any("x-kubernetes-preserve-unknown-fields" in node for _, node in status)


@each_kind
def test_every_field_is_described(kind: Kind) -> None:
    for path, node in walk(schema_of(kind), kind.name):
        is_item = path.endswith(("[]", "{}", ".apiVersion", ".kind", ".metadata"))
        assert is_item or node.get("description"), path


@each_kind
def test_everything_in_a_spec_is_bounded(kind: Kind) -> None:
    for path, node in walk(schema_of(kind)["properties"]["spec"], "spec"):
        match node["type"]:
            case "string" if "enum" not in node:
                assert "maxLength" in node, path
            case "array":
                assert "maxItems" in node, path
            case "object" if "additionalProperties" in node:
                assert "maxProperties" in node, path


def walk(node: Json, path: str) -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from walk(node["additionalProperties"], f"{path}{{}}")


def test_a_real_status_is_stored_without_loss() -> None:
    schema = schema_of(KINDS[0])["properties"]["status"]
    simulation = installed(make_model().with_waves(1, "100%"), fleet(2))
    assert len(simulation.history) > 3
    for status in simulation.history:
        raw = status.to_raw()
        jsonschema.validate(raw, schema)
        assert pruned(schema, raw) == raw
        assert EdgeModelStatus.model_validate(with_defaults(schema, raw)) == status


def pruned(schema: Json, value: Any) -> Any:
    """Drop what the API server would drop: fields that the schema does not name."""
    if isinstance(value, list):
        return [pruned(schema["items"], item) for item in value]
    if not isinstance(value, dict):
        return value
    if "additionalProperties" in schema:
        return {name: pruned(schema["additionalProperties"], item) for name, item in value.items()}
    properties = schema.get("properties", {})
    return {name: pruned(properties[name], item) for name, item in value.items() if name in properties}


@each_kind
def test_printer_columns_show_fields_that_exist(kind: Kind) -> None:
    paths = {path for path, _ in walk(schema_of(kind), "")}
    for column in kind.columns:
        plain = re.sub(r"\[.*\]", "[]", column.path)
        assert plain in paths or plain == ".metadata.creationTimestamp", column


def test_the_source_folder_is_no_package() -> None:
    package = Path(str(edgemodel_operator.__file__)).parent
    assert package.parent.name == "operator"
    assert not (package.parent / "__init__.py").exists(), "it would hide the standard library's operator"
