"""Names of other objects in the namespace of an EdgeModel."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgemodel_operator.api.base import Schema

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME_PATTERN)]


class SecretName(Schema):
    """A Secret in the namespace of the EdgeModel."""

    name: ObjectName
    """The name of the Secret."""


class ConfigMapName(Schema):
    """A ConfigMap in the namespace of the EdgeModel."""

    name: ObjectName
    """The name of the ConfigMap."""
