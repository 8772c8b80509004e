"""The base of every type that is stored in Kubernetes, and the way to attach validation rules to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel


class Schema(BaseModel):
    """A frozen type with camelCase fields that refuses what it does not know.

    The docstring under each field becomes its description in the CRD and in the API reference.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        use_attribute_docstrings=True,
    )

    def to_raw(self) -> dict[str, Any]:
        """Give the JSON form as Kubernetes stores it: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Observed(Schema):
    """A type of a status. What a newer version of the operator wrote besides is left out, not refused."""

    model_config = ConfigDict(extra="ignore")


_AnySchema = TypeVar("_AnySchema", bound=Schema)
_OF_EVERY_OBJECT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})


class NotUnderstood(ValueError):  # noqa: N818 - reads as the fact it states
    """An object holds what this version does not know; the message begins with the field."""


def read_spec(kind: type[_AnySchema], raw: Mapping[str, Any]) -> _AnySchema:
    """Read the spec of an object whose unknown fields the API server keeps, and let none pass.

    Fields count by their camelCase names alone, and nothing may stand beside the spec. Raises NotUnderstood.
    """
    try:
        spec = kind.model_validate(raw.get("spec"), by_alias=True, by_name=False)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(("spec", *(str(part) for part in first["loc"])))
        unknown = first["type"] == "extra_forbidden"
        raise NotUnderstood(f"{where}: {_NO_SUCH_FIELD if unknown else first['msg']}") from None
    if stray := sorted(set(raw) - _OF_EVERY_OBJECT):
        raise NotUnderstood(f"{stray[0]}: {_NO_SUCH_FIELD}")
    return spec


_NO_SUCH_FIELD = "there is no such field here (misspelt, in the wrong place, or of a newer version)"


def rules(*pairs: tuple[str, str]) -> dict[str, Any]:
    """Give the schema extension for CEL rules, each a pair of rule and the sentence shown when it fails.

    The API server evaluates them at `kubectl apply`
    (https://kubernetes.io/docs/reference/using-api/cel/). A rule that holds a double quote is easier to
    read in YAML with single-quoted CEL strings.
    """
    return {"x-kubernetes-validations": [{"rule": rule, "message": message} for rule, message in pairs]}


def list_map(*keys: str) -> dict[str, Any]:
    """Give the schema extension of a list whose items are told apart by `keys`."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
