"""What every builder of Dockerfiles is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.compression import Compressor
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference

RUNTIME_ARGUMENT = "RUNTIME_IMAGE"
"""The build argument that names the published runtime image."""


@dataclass(frozen=True)
class DockerfileBuild:
    """What is to be built: the opened context, and what the spec says of it."""

    files: Mapping[str, Path]
    """The files of the context: name in the archive → where it lies."""
    dockerfile: str
    """The name of the Dockerfile among them."""
    arguments: Mapping[str, str]
    owner: str
    """Names this build on the engines: lower-case letters and digits, equal for the same build again."""
    compressor: Compressor
    """For the layers that the Dockerfile adds."""
    on_line: Callable[[str], None]
    """Takes what the engines print, line by line, without secrets."""


@dataclass(frozen=True)
class PublishedRuntime:
    """The runtime image below the Dockerfile, and where its blobs are."""

    store: ImageStore
    reference: Reference
    children: Sequence[RuntimeChild]
