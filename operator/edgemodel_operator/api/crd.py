"""Turn the types into CustomResourceDefinition documents: structural schemas with CEL rules.

What Kubernetes asks of a schema: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.api.acceleratorclass import AcceleratorClass
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.edgemodel import EdgeModel
from edgemodel_operator.api.names import GROUP, VERSION
from edgemodel_operator.api.trustexception import TrustException
from edgemodel_operator.api.trustpolicy import TrustPolicy

Json = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A printer column of `kubectl get`."""

    name: str
    path: str
    kind: str = "string"
    priority: int = 0


@dataclass(frozen=True)
class Kind:
    """One kind of the API group."""

    type: type[Schema]
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    has_status: bool
    columns: tuple[Column, ...]
    keeps_unknown: bool = False
    """Whether fields that the definition does not name are stored instead of dropped.

    For kinds that grant trust: a requirement that is dropped because it was misspelt, or is of a newer
    version, would silently ask for less. The types refuse such a field wherever it is read.
    """

    @property
    def name(self) -> str:
        """The kind as written in manifests."""
        return self.type.__name__

    @property
    def file_name(self) -> str:
        """The file that holds the generated definition."""
        return f"{GROUP}_{self.plural}.yaml"


AGE = Column("Age", ".metadata.creationTimestamp", "date")

KINDS = (
    Kind(
        type=EdgeModel,
        plural="edgemodels",
        short_names=("em",),
        namespaced=True,
        has_status=True,
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Revision", ".status.currentRevision"),
            Column("Nodes", ".status.nodes.summary"),
            Column("Version", ".status.version"),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
            AGE,
        ),
    ),
    Kind(
        type=AcceleratorClass,
        plural="acceleratorclasses",
        short_names=("acc",),
        namespaced=False,
        has_status=False,
        columns=(
            Column("Runtime", ".spec.runtimes[0].variant"),
            Column("Provider", ".spec.runtimes[0].provider"),
            Column("Resource", ".spec.match.extendedResource"),
            Column("Sharing", ".spec.sharing"),
            AGE,
        ),
    ),
    Kind(
        type=TrustPolicy,
        plural="trustpolicies",
        short_names=("tp",),
        namespaced=False,
        has_status=True,
        columns=(
            Column("Mode", ".spec.mode"),
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
            Column("Checked", ".status.checked", "integer"),
            Column("Untrusted", ".status.untrusted", "integer"),
            Column("Images", ".spec.images", priority=1),
            AGE,
        ),
        keeps_unknown=True,
    ),
    Kind(
        type=TrustException,
        plural="trustexceptions",
        short_names=("te",),
        namespaced=True,
        has_status=False,
        columns=(
            Column("Images", ".spec.images"),
            Column("Expires", ".spec.expires"),
            Column("Reason", ".spec.reason"),
            AGE,
        ),
        keeps_unknown=True,
    ),
)


def crd_document(kind: Kind) -> Json:
    """Give the CustomResourceDefinition of a kind."""
    version: Json = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
        "schema": {"openAPIV3Schema": _root_schema(kind)},
    }
    if kind.has_status:
        version["subresources"] = {"status": {}}
    singular = kind.name.lower()
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": singular,
                "shortNames": list(kind.short_names),
            },
            "versions": [version],
        },
    }


def _column(column: Column) -> Json:
    document: Json = {"name": column.name, "type": column.kind, "jsonPath": column.path}
    if column.priority:
        document["priority"] = column.priority
    return document


def _root_schema(kind: Kind) -> Json:
    raw = kind.type.model_json_schema(by_alias=True, mode="validation")
    schema: Json = structural(raw, raw.get("$defs", {}))
    schema["properties"] = {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object"},
        **schema["properties"],
    }
    if kind.keeps_unknown:
        schema["x-kubernetes-preserve-unknown-fields"] = True
        _keep_unknown(schema["properties"]["spec"])
    return schema


def _keep_unknown(node: Json) -> None:
    """Have the API server store unknown fields of every object: it prunes each level by itself."""
    if node["type"] == "object":
        node["x-kubernetes-preserve-unknown-fields"] = True
    for child in (*node.get("properties", {}).values(), *filter(None, [node.get("items")])):
        _keep_unknown(child)


DROPPED = frozenset({"title", "$defs", "const"})
WRITTEN_AS_RULE = frozenset({"pattern", "minItems"})
"""Where a CEL rule says the same in a sentence, the bare keyword would only hide it: the API server does
not evaluate rules on a value that breaks a keyword."""


def structural(node: Any, definitions: Json) -> Any:
    """Turn a JSON schema as pydantic writes it into a structural one: no references, no unions with null."""
    if isinstance(node, list):
        return [structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = _in_old_words(_resolved(_without_null(_resolved(node, definitions)), definitions))
    return {
        key: _keyword(key, value, node, definitions)
        for key, value in node.items()
        if not _is_dropped(key, value, node)
    }


def _is_dropped(key: str, value: Any, node: Json) -> bool:
    if key == "additionalProperties":
        return not isinstance(value, dict)
    return key in DROPPED or (key in WRITTEN_AS_RULE and "x-kubernetes-validations" in node)


def _keyword(key: str, value: Any, node: Json, definitions: Json) -> Any:
    match key:
        case "properties":
            return {name: structural(child, definitions) for name, child in value.items()}
        case "description":
            return " ".join(value.split())
        case "default":
            return _default(value, node)
        case "enum" | "required" | "x-kubernetes-validations":
            return copy.deepcopy(value)  # else YAML shares what two fields have in common
        case _:
            return structural(value, definitions)


def _resolved(node: Json, definitions: Json) -> Json:
    """Put the referenced definition in the place of the reference; what stands beside it wins."""
    while "$ref" in node:
        target = definitions[node["$ref"].rsplit("/", 1)[-1]]
        beside = {key: value for key, value in node.items() if key != "$ref"}
        merged = {**target, **beside}
        rules = target.get("x-kubernetes-validations", []) + beside.get("x-kubernetes-validations", [])
        if rules:
            merged["x-kubernetes-validations"] = rules
        node = merged
    return node


def _in_old_words(node: Json) -> Json:
    """Write an open bound as OpenAPI 3.0 does: the bound, and beside it that it is open."""
    if "exclusiveMinimum" not in node:
        return node
    return {**node, "minimum": node["exclusiveMinimum"], "exclusiveMinimum": True}


def _default(value: Any, node: Json) -> Any:
    """Give the default as a user would write it: an object as `{}`, since its fields have their own."""
    if isinstance(value, dict) and "properties" in node:
        return {}
    if isinstance(value, list | tuple):
        return [
            {key: part for key, part in item.items() if part is not None} if isinstance(item, dict) else item
            for item in value
        ]
    return value


def _without_null(node: Json) -> Json:
    """Write `anyOf: [X, null]`, an optional field, as X."""
    if "anyOf" not in node:
        return node
    choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
    if len(choices) != 1:
        raise TypeError(f"a structural schema cannot express the union {node['anyOf']}")
    beside = {key: value for key, value in node.items() if key not in ("anyOf", "default")}
    return {**choices[0], **beside}
