"""TrustPolicy: who must have signed an image before it may run."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, list_map, rules


class SecretKey(Schema):
    """A Secret in the operator's own namespace, laid out as `cosign generate-key-pair k8s://` does."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The name of the Secret; its key `cosign.pub` is used."""


class PublicKey(Schema):
    """A public key: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.data) != has(self.secretRef)",
                "give the key once: either the PEM text in `data` or a Secret in `secretRef`",
            )
        )
    )

    data: Annotated[
        str | None,
        Field(
            max_length=8192,
            pattern=r"^-----BEGIN PUBLIC KEY-----",
            json_schema_extra=rules(
                (
                    "self.startsWith('-----BEGIN PUBLIC KEY-----')",
                    "data must be a public key in PEM form, beginning with -----BEGIN PUBLIC KEY-----",
                )
            ),
        ),
    ] = None
    """The key in PEM form."""
    secret_ref: SecretKey | None = None
    """The Secret that holds it."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.data is None) == (self.secret_ref is None):
            raise ValueError("give the key once: `data` or `secretRef`")
        return self


class Authority(Schema):
    """Somebody whose signature counts."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """A name for messages and metrics."""
    key: PublicKey
    """The public key."""


class Mode(StrEnum):
    """What follows when an image is not vouched for."""

    ENFORCE = "Enforce"
    AUDIT = "Audit"


class TrustPolicySpec(Schema):
    """Which images need whose signature. Every policy that matches an image must hold."""

    images: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=255)], ...],
        Field(
            min_length=1,
            max_length=64,
            json_schema_extra=rules(
                (
                    "size(self) > 0",
                    'name at least one image glob, for example ["registry.plant-a.local:5000/models/*"]',
                )
            ),
        ),
    ]
    """Globs over `host[:port]/repository`: `*` stays within one path segment, `**` does not."""
    authorities: Annotated[
        tuple[Authority, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra=list_map("name")
            | rules(("size(self) > 0", "name at least one authority: a policy without one could never hold")),
        ),
    ]
    """The signature of any one of them is enough."""
    namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...], Field(max_length=64)
    ] = ()
    """Globs over the namespaces of the pods. Empty: all."""
    mode: Mode = Mode.ENFORCE
    """Enforce: refuse. Audit: admit with a warning."""


class TrustPolicy(Schema):
    """Who must have signed an image before it may run."""

    spec: TrustPolicySpec
    """Which images need whose signature."""
