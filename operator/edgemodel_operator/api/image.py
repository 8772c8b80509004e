"""The image of an EdgeModel: where it goes, how it is made, and what becomes of it afterwards."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from edgemodel_operator.api.base import Schema, list_map, rules
from edgemodel_operator.api.references import SecretName
from edgemodel_operator.api.source import RelativePath, Source

_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_PORT = "(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})"
_HOST = f"((localhost|{_LABEL}([.]{_LABEL})+)(:{_PORT})?|{_LABEL}:{_PORT})"
_COMPONENT = "[a-z0-9]+(([.]|__?|-+)[a-z0-9]+)*"
REPOSITORY = f"^{_HOST}(/{_COMPONENT})+$"
"""As `oci.reference` reads it: a first part without dot and port would be a path on a public registry."""
_NO_REPOSITORY = (
    "repository takes no tag and no digest: write host[:port]/path, the path in lower case, and the port "
    "where the host has no dot"
)


class PlatformName(StrEnum):
    """The platforms that an image can hold."""

    LINUX_AMD64 = "linux/amd64"
    LINUX_ARM64 = "linux/arm64"


CONTEXT_KINDS = ("http", "s3", "oci")
"""Where the context of a Dockerfile may come from."""


class Builder(StrEnum):
    """What makes the runtime below the model."""

    GRAFT = "Graft"
    """Nothing: the published runtime image is taken as it is."""
    DOCKER = "Docker"
    """A Dockerfile, built by the Docker Engines that the operator's configuration names."""
    BUILDAH = "Buildah"
    """A Dockerfile, built by a Job on a node of each architecture, without a daemon and without root."""


class Compression(StrEnum):
    """How the layers of the model are compressed."""

    ZSTD = "Zstd"
    GZIP = "Gzip"


class Sharding(StrEnum):
    """Whether the weights of an ONNX model are spread over several layers."""

    AUTO = "Auto"
    """From 8 MiB on, so that a retrained head moves its own bytes alone."""
    DISABLED = "Disabled"
    """The file stays as it is."""


class DeletionPolicy(StrEnum):
    """What becomes of the images when the EdgeModel is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Dockerfile(Schema):
    """A Dockerfile of the user's own. It makes the runtime; the model is put on top of it."""

    context: Source
    """The build context: an archive."""
    path: RelativePath = "Dockerfile"
    """The Dockerfile in the context."""
    args: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)] = {}
    """Build arguments. `RUNTIME_IMAGE` is always given: the published runtime image of the platform."""


class ImageSpec(Schema):
    """The image that is built."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "(has(self.builder) && self.builder != 'Graft') == has(self.dockerfile)",
                "`builder: Docker` and `builder: Buildah` need a `dockerfile`, `builder: Graft` takes none",
            ),
            (
                "!has(self.dockerfile) || has(self.dockerfile.context.archive)",
                "the context of a Dockerfile is an archive: add `archive: {}` beside its source",
            ),
            (
                "!has(self.dockerfile) || "
                + " || ".join(
                    f"(has(self.dockerfile.context.{kind}) && has(self.dockerfile.context.{kind}.sha256))"
                    for kind in CONTEXT_KINDS
                ),
                "the context of a Dockerfile comes from `http`, `s3` or `oci`, and needs its `sha256`",
            ),
        )
    )

    repository: Annotated[
        str,
        Field(
            min_length=3,
            max_length=255,
            json_schema_extra=rules((f"self.matches('{REPOSITORY}')", _NO_REPOSITORY)),
        ),
    ]
    """The repository to push to: `host[:port]/path`, without tag or digest."""
    platforms: Annotated[tuple[PlatformName, ...], Field(max_length=8)] = ()
    """The platforms to build. Empty: every platform of the runtime image, so that a new node never changes
    the image of the others."""
    pull_secrets: Annotated[
        tuple[SecretName, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    """Secrets of type `kubernetes.io/dockerconfigjson` with which nodes pull, and the operator pushes."""
    push_secret: SecretName | None = None
    """The Secret with which the operator pushes, where it differs from the pull secrets."""
    builder: Builder = Builder.GRAFT
    """What makes the runtime below the model."""
    dockerfile: Dockerfile | None = None
    """The Dockerfile, for the builders that take one."""
    compression: Compression = Compression.ZSTD
    """Zstd is smaller and unpacks faster; Gzip is for registries and engines that know nothing else."""
    sharding: Sharding = Sharding.AUTO
    """Whether the weights of an ONNX model are spread over several layers."""
    keep_images: Annotated[int, Field(ge=0, le=100)] = 2
    """How many images are kept in the repository besides the current one, the previous one, and those that a
    node runs or may go back to."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What becomes of the images when the EdgeModel is deleted."""

    @field_validator("repository")
    @classmethod
    def _require_a_repository(cls, text: str) -> str:
        if re.fullmatch(REPOSITORY, text) is None:
            raise ValueError(_NO_REPOSITORY)
        return text

    @model_validator(mode="after")
    def _require_a_dockerfile(self) -> Self:
        if (self.builder is not Builder.GRAFT) != (self.dockerfile is not None):
            raise ValueError(
                "`builder: Docker` and `builder: Buildah` need a `dockerfile`, `Graft` takes none"
            )
        if self.dockerfile is not None and self.dockerfile.context.archive is None:
            raise ValueError("the context of a Dockerfile is an archive: add `archive: {}` beside its source")
        context = self.dockerfile.context if self.dockerfile is not None else None
        if context is not None and (context.kind not in CONTEXT_KINDS or not all(context.digests)):
            raise ValueError("the context of a Dockerfile comes from http, s3 or oci, and needs its sha256")
        return self
