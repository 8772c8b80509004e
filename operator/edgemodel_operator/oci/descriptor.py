"""Content descriptors, platforms, digests and canonical JSON.

Formats: OCI image specification 1.1, `descriptor.md` and the `platform` object of `image-index.md`. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from typing_extensions import override

from .reference import is_digest

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})


class InvalidDescriptor(ValueError):  # noqa: N818 - reads as the fact it states, like the other errors here
    """A JSON value is no valid descriptor or platform; the message says which field and why."""


def canonical_json(value: object) -> bytes:
    """Encode as JSON with sorted keys, no spaces, UTF-8 and no NaN: equal values give equal bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sha256_digest(data: bytes) -> str:
    """Return `sha256:<hex>` of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, order=True)
class Platform:
    """What an image runs on, in Go's names: `linux`, `amd64`/`arm64`/`arm`, variant such as `v7`."""

    os: str
    architecture: str
    variant: str | None = None

    @override
    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def to_json(self) -> dict[str, str]:
        """Return the `platform` object of an index entry."""
        variant = {"variant": self.variant} if self.variant else {}
        return {"os": self.os, "architecture": self.architecture, **variant}

    @classmethod
    def from_json(cls, value: object) -> Platform:
        """Read a `platform` object; fields we do not use (`os.version`, `os.features`) are ignored."""
        if not isinstance(value, Mapping):
            raise InvalidDescriptor("A platform must be an object.")
        variant = _text(value, "variant") if value.get("variant") else None
        return cls(_text(value, "os"), _text(value, "architecture"), variant)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read `os/architecture[/variant]`."""
        parts = text.split("/")
        if len(parts) not in {2, 3} or not all(parts):
            raise InvalidDescriptor(f"{text!r} is not a platform: expected os/architecture[/variant].")
        return cls(*parts)


@dataclass(frozen=True)
class Descriptor:
    """A typed pointer to content: what it is, its sha256 and its exact size in bytes."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str | None = None

    def __post_init__(self) -> None:
        if not is_digest(self.digest):
            raise InvalidDescriptor(f"{self.digest!r} is not a sha256 digest.")
        if self.size < 0:
            raise InvalidDescriptor(f"A size of {self.size} bytes is impossible.")
        object.__setattr__(self, "annotations", MappingProxyType(dict(self.annotations)))

    def to_json(self) -> dict[str, Any]:
        """Return the descriptor object of the OCI specification; empty fields are left out."""
        document: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            document["platform"] = self.platform.to_json()
        if self.annotations:
            document["annotations"] = dict(self.annotations)
        if self.artifact_type:
            document["artifactType"] = self.artifact_type
        return document

    @classmethod
    def from_json(cls, value: object) -> Descriptor:
        """Read a descriptor object or raise InvalidDescriptor; unknown fields and `urls` are ignored."""
        if not isinstance(value, Mapping):
            raise InvalidDescriptor("A descriptor must be an object.")
        size = value.get("size")
        if not isinstance(size, int) or isinstance(size, bool):
            raise InvalidDescriptor("A descriptor's size must be a whole number of bytes.")
        return cls(
            media_type=_text(value, "mediaType"),
            digest=_text(value, "digest"),
            size=size,
            platform=Platform.from_json(value["platform"]) if value.get("platform") else None,
            annotations=annotations_from_json(value.get("annotations")),
            artifact_type=_text(value, "artifactType") if value.get("artifactType") else None,
        )

    @classmethod
    def of(cls, media_type: str, data: bytes, *, platform: Platform | None = None) -> Descriptor:
        """Describe the given bytes."""
        return cls(media_type, sha256_digest(data), len(data), platform)


def annotations_from_json(value: object) -> Mapping[str, str]:
    """Read an `annotations` object (absent or null means empty): keys and values must be strings."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidDescriptor("Annotations must be an object.")
    if not all(isinstance(item, str) for pair in value.items() for item in pair):
        raise InvalidDescriptor("Annotation names and values must be strings.")
    return dict(value)


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name)
    if not isinstance(text, str) or not text:
        raise InvalidDescriptor(f"The field {name!r} must be a non-empty string.")
    return text
