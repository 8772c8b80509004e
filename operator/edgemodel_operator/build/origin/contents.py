"""What the documents about an image speak of: its packages, its model, and where both come from. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.source import (
    ConfigMapSource,
    HttpSource,
    OciSource,
    PvcSource,
    S3Source,
    Source,
)
from edgemodel_operator.build.origin.packages import Package
from edgemodel_operator.oci.descriptor import Descriptor

TOOL = "edgemodel-operator"
NAMESPACE = "https://edgemodel.dev"


class Coverage(StrEnum):
    """How much the list of packages of a runtime image says of it."""

    COMPLETE = "complete"
    """All of it: it was written when the image was assembled."""
    INCOMPLETE = "incomplete"
    """A part: a Dockerfile of the user's, or a base that is not ours, added what nobody listed."""
    UNKNOWN = "unknown"
    """Nothing: it has no list."""


class NamedFile(Protocol):
    """A file that is known by its content: what is fetched, what lies in an image."""

    @property
    def name(self) -> str:
        """Its relative name."""
        ...

    @property
    def sha256(self) -> str:
        """Its SHA-256 (hex)."""
        ...

    @property
    def size(self) -> int:
        """Its size (bytes)."""
        ...


@dataclass(frozen=True)
class Material:
    """Something that went into a build: a URI without secrets, its SHA-256 (hex), and its name."""

    uri: str
    sha256: str
    name: str = ""


@dataclass(frozen=True)
class ModelContents:
    """The model in an image: what it is, its files there, and the files that these were made of."""

    name: str
    version: str
    format: str
    files: tuple[NamedFile, ...]
    sources: tuple[Material, ...]
    report: ModelReport


@dataclass(frozen=True)
class ImageContents:
    """The image of one platform.

    `subject` describes its manifest. `packages` is what the runtime image `runtime` (a digest) says of
    itself; None if it says nothing. `altered` tells that a Dockerfile changed it after it said so. `version`
    is that of the operator that built it.
    """

    subject: Descriptor
    runtime: str
    packages: tuple[Package, ...] | None
    model: ModelContents
    version: str
    altered: bool = False

    @property
    def coverage(self) -> Coverage:
        """How far the packages are all that there is below the model."""
        if self.packages is None:
            return Coverage.UNKNOWN
        foreign = any(package.kind == "oci" for package in self.packages)
        return Coverage.INCOMPLETE if self.altered or foreign else Coverage.COMPLETE

    @property
    def purl(self) -> str:
        """The image as a purl. It names no registry: copies of an image have one bill of materials."""
        platform = self.subject.platform
        return image_purl(self.model.name, self.subject.digest, platform.architecture if platform else "")


def image_purl(name: str, digest: str, architecture: str = "") -> str:
    """Give the purl of an image (`pkg:oci/…`); the architecture as Go calls it, empty for an index."""
    return f"pkg:oci/{name}@{quote(digest, safe='')}" + (f"?arch={architecture}" if architecture else "")


def materials_of(source: Source, fetched: Sequence[NamedFile]) -> tuple[Material, ...]:
    """Say where the fetched files come from; one for each file of the source, the main one first."""
    return tuple(
        Material(uri, file.sha256, file.name) for uri, file in zip(_uris(source), fetched, strict=True)
    )


def context_material(source: Source) -> Material:
    """Say where the context of a Dockerfile comes from, whose SHA-256 its source names."""
    return Material(_uris(source)[0], source.digests[0], "context")


def image_material(image: str, name: str) -> Material:
    """Name an image, given by digest, that had a part in the build."""
    return Material(f"oci://{image}", image.rpartition("@sha256:")[2], name)


def without_query(url: str) -> str:
    """Give a URL without query and fragment, which often are a password for a day."""
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def _uris(source: Source) -> tuple[str, ...]:
    chosen = source.chosen
    match chosen:
        case HttpSource():
            files = [chosen.url, *([chosen.weights.url] if chosen.weights else ())]
            return tuple(without_query(url) for url in files)
        case S3Source():
            keys = [chosen.key, *([chosen.weights.key] if chosen.weights else ())]
            return tuple(f"{chosen.endpoint.rstrip('/')}/{chosen.bucket}/{quote(key)}" for key in keys)
        case OciSource():
            paths = [chosen.path, *([chosen.weights.path] if chosen.weights else ())]
            return tuple(f"oci://{chosen.reference}" + (f"#{quote(path)}" if path else "") for path in paths)
        case PvcSource():
            paths = [chosen.path, *([chosen.weights.path] if chosen.weights else ())]
            return tuple(f"pvc://{chosen.claim_name}/{quote(path)}" for path in paths)
        case ConfigMapSource():
            entries = [chosen.key, *([chosen.weights.key] if chosen.weights else ())]
            return tuple(f"configmap://{chosen.name}/{quote(key)}" for key in entries)
