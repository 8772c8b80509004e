"""Image configurations, manifests and indexes: reading, making, and grafting layers onto an existing image.

Formats: OCI image specification 1.1 (`config.md`, `manifest.md`, `image-index.md`). Pure. What we make is
always OCI-typed canonical JSON; what we read may also be Docker's schema 2.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_LAYER_TAR,
    OCI_LAYER_ZSTD,
    OCI_MANIFEST,
    Descriptor,
    InvalidDescriptor,
    Platform,
    annotations_from_json,
    canonical_json,
)
from .layer import Layer

MAX_LAYERS = 120
"""Overlay mounts fail beyond about 127 lower directories; refuse before a node has to."""

MAX_CHILDREN = 128

EPOCH = "1970-01-01T00:00:00Z"

_OCI_NAMES = {
    "application/vnd.docker.container.image.v1+json": OCI_CONFIG,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar.zstd": OCI_LAYER_ZSTD,
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER_TAR,
}


class InvalidImage(ValueError):  # noqa: N818 - reads as the fact it states
    """A manifest, index or configuration is malformed or inconsistent; the message says where."""


@dataclass(frozen=True)
class ImageManifest:
    """A parsed image manifest (or artifact manifest: then `config` is usually empty)."""

    config: Descriptor
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str | None = None


@dataclass(frozen=True)
class ImageIndex:
    """A parsed image index: one descriptor per platform."""

    manifests: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Descriptor | None = None
    artifact_type: str | None = None

    def choose(self, platform: Platform) -> Descriptor | None:
        """Return the first child for the platform; a child without variant also serves a wanted variant."""
        exact = [child for child in self.manifests if child.platform == platform]
        close = [
            child
            for child in self.manifests
            if child.platform
            and (child.platform.os, child.platform.architecture) == (platform.os, platform.architecture)
            and (child.platform.variant is None or platform.variant is None)
        ]
        return next(iter(exact + close), None)


@dataclass(frozen=True)
class RuntimeSettings:
    """What an image configuration says about running it; empty means unset."""

    entrypoint: Sequence[str] = ()
    command: Sequence[str] = ()
    env: Sequence[str] = ()
    user: str = ""
    working_dir: str = ""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)


class Image(NamedTuple):
    """One platform's image as bytes: push the configuration as a blob first, then the manifest."""

    config: bytes
    manifest: bytes

    @property
    def config_descriptor(self) -> Descriptor:
        """Describe the configuration blob."""
        return Descriptor.of(OCI_CONFIG, self.config)

    @property
    def descriptor(self) -> Descriptor:
        """Describe the manifest with its platform, as an index wants it."""
        return Descriptor.of(OCI_MANIFEST, self.manifest, platform=platform_of(self.config))


def parse_manifest(body: bytes) -> ImageManifest:
    """Read an image manifest; raises InvalidImage.

    A body that could also be read as an index is refused: two readers must never see two images in one digest
    (CVE-2021-41190).
    """
    document = _object(body, "manifest")
    if "manifests" in document or document.get("mediaType", OCI_MANIFEST) not in MANIFEST_TYPES:
        raise InvalidImage("The document is not an image manifest.")
    layers = _descriptors(document.get("layers"), "layers", MAX_LAYERS)
    try:
        return ImageManifest(Descriptor.from_json(document.get("config")), layers, **_common(document))
    except InvalidDescriptor as error:
        raise InvalidImage(f"The manifest is malformed: {error}") from error


def parse_index(body: bytes) -> ImageIndex:
    """Read an image index (or Docker manifest list); raises InvalidImage, also on such ambiguity."""
    document = _object(body, "index")
    ambiguous = any(name in document for name in ("layers", "config", "fsLayers"))
    if ambiguous or document.get("mediaType", OCI_INDEX) not in INDEX_TYPES:
        raise InvalidImage("The document is not an image index.")
    manifests = _descriptors(document.get("manifests"), "manifests", MAX_CHILDREN)
    try:
        return ImageIndex(manifests, **_common(document))
    except InvalidDescriptor as error:
        raise InvalidImage(f"The index is malformed: {error}") from error


def platform_of(config: bytes) -> Platform:
    """Read the platform an image configuration was made for; raises InvalidImage."""
    try:
        return Platform.from_json(_object(config, "configuration"))
    except InvalidDescriptor as error:
        raise InvalidImage(f"The image configuration names no platform: {error}") from error


def make_image(
    platform: Platform,
    layers: Sequence[Layer],
    settings: RuntimeSettings,
    *,
    created: str = EPOCH,
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Make a whole image from layers, bottom first."""
    container = {
        "Entrypoint": list(settings.entrypoint),
        "Cmd": list(settings.command),
        "Env": list(settings.env),
        "User": settings.user,
        "WorkingDir": settings.working_dir,
        "Labels": dict(settings.labels),
    }
    config = canonical_json(
        {
            **platform.to_json(),
            "created": created,
            "config": {name: value for name, value in container.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
    )
    return Image(config, make_manifest(config, [layer.descriptor for layer in layers], annotations))


def make_manifest(
    config: bytes, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> bytes:
    """Make the manifest of an image from its configuration and layers, bottom first."""
    if len(layers) > MAX_LAYERS:
        raise InvalidImage(f"{len(layers)} layers are too many; nodes can mount at most {MAX_LAYERS}.")
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": Descriptor.of(OCI_CONFIG, config).to_json(),
        "layers": [layer.to_json() for layer in layers],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    return canonical_json(document)


def make_index(
    children: Sequence[Descriptor],
    annotations: Mapping[str, str] | None = None,
    *,
    artifact_type: str | None = None,
) -> bytes:
    """Make an image index; children are sorted by platform: their order carries no information."""
    ordered = sorted(children, key=lambda child: (str(child.platform or ""), child.digest))
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [child.to_json() for child in ordered],
    }
    if annotations:
        document["annotations"] = dict(annotations)
    if artifact_type:
        document["artifactType"] = artifact_type
    return canonical_json(document)


def graft(
    runtime_manifest: bytes,
    runtime_config: bytes,
    layers: Sequence[Layer],
    *,
    labels: Mapping[str, str] | None = None,
    without_labels: Collection[str] = (),
    annotations: Mapping[str, str] | None = None,
) -> Image:
    """Put layers on top of an existing image of one platform, without touching the bytes below.

    Everything else of the runtime's configuration is kept, but for its time; of its labels `without_labels`
    are left out and `labels` added, `annotations` become those of the new manifest. Raises InvalidImage when
    manifest and configuration do not belong together.
    """
    manifest = parse_manifest(runtime_manifest)
    config = _object(runtime_config, "configuration")
    diff_ids = _diff_ids(config)
    if manifest.config.digest != Descriptor.of(OCI_CONFIG, runtime_config).digest:
        raise InvalidImage("The configuration is not the one that the manifest names.")
    if len(diff_ids) != len(manifest.layers):
        raise InvalidImage(
            f"The configuration lists {len(diff_ids)} layers, the manifest {len(manifest.layers)}."
        )
    grafted = {
        **config,
        "created": EPOCH,
        "config": _with_labels(config.get("config"), labels or {}, without_labels),
        "rootfs": {"type": "layers", "diff_ids": [*diff_ids, *(layer.diff_id for layer in layers)]},
    }
    if config.get("history"):
        # Some readers pair history with layers one to one; keep that true where it was.
        grafted["history"] = [*config["history"], *({"created_by": "edgemodel graft"} for _ in layers)]
    below = [_in_oci_terms(layer) for layer in manifest.layers]
    body = canonical_json(grafted)
    return Image(body, make_manifest(body, [*below, *(layer.descriptor for layer in layers)], annotations))


def _with_labels(container: object, labels: Mapping[str, str], dropped: Collection[str]) -> dict[str, Any]:
    kept: dict[str, Any] = dict(container) if isinstance(container, Mapping) else {}
    below = kept.pop("Labels", None) or {}
    merged = {**{name: text for name, text in below.items() if name not in dropped}, **labels}
    return {**kept, "Labels": merged} if merged else kept


def _diff_ids(config: Mapping[str, Any]) -> list[str]:
    rootfs = config.get("rootfs")
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, Mapping) else None
    if not isinstance(diff_ids, list) or not all(isinstance(item, str) for item in diff_ids):
        raise InvalidImage("The image configuration has no list rootfs.diff_ids.")
    return diff_ids


def _in_oci_terms(layer: Descriptor) -> Descriptor:
    media_type = _OCI_NAMES.get(layer.media_type, layer.media_type)
    return Descriptor(media_type, layer.digest, layer.size, annotations=layer.annotations)


def _common(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "annotations": annotations_from_json(document.get("annotations")),
        "subject": Descriptor.from_json(document["subject"]) if document.get("subject") else None,
        "artifact_type": str(document["artifactType"]) if document.get("artifactType") else None,
    }


def _descriptors(value: object, name: str, limit: int) -> tuple[Descriptor, ...]:
    if not isinstance(value, list) or len(value) > limit:
        raise InvalidImage(f"The field {name!r} must be a list of at most {limit} descriptors.")
    try:
        return tuple(Descriptor.from_json(item) for item in value)
    except InvalidDescriptor as error:
        raise InvalidImage(f"An entry of {name!r} is malformed: {error}") from error


def _object(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidImage(f"The {what} is not JSON.") from error
    if not isinstance(document, dict):
        raise InvalidImage(f"The {what} is not a JSON object.")
    return document
