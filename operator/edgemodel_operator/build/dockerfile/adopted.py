"""Taking over an image that a builder made: its layers as ours, its configuration without chance.

Layers of the published runtime image are known by their `diff_id` and stay the blobs that are in the registry
already; only what the Dockerfile added is written anew and pushed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemodel_operator.api.names import GROUP
from edgemodel_operator.build.dockerfile.contract import broken_promises
from edgemodel_operator.build.dockerfile.foreign_layer import rewrite_layer
from edgemodel_operator.build.dockerfile.saved_image import SavedImage
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.compression import Compressor
from edgemodel_operator.oci.descriptor import Descriptor, canonical_json, sha256_digest
from edgemodel_operator.oci.image import EPOCH, make_manifest

LABEL_OWNER = f"{GROUP}/dockerfile-build"
"""Which build an image or a container of an engine belongs to."""
LABEL_DEADLINE = f"{GROUP}/dockerfile-deadline"
"""When that build is over in any case (seconds since the epoch)."""
BUILD_LABELS = (LABEL_OWNER, LABEL_DEADLINE)

STATEMENT_LABELS = (f"{GROUP}/packages", f"{GROUP}/operators")
"""What a published runtime image says of its own content; of another content it says nothing."""

_SETTINGS = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
)


@dataclass(frozen=True)
class Adoption:
    """How images are taken over: on top of what, where to, how compressed, how large each layer may be."""

    base: RuntimeChild
    folder: Path
    compressor: Compressor
    max_bytes: int


def adopt_image(saved: SavedImage, adoption: Adoption) -> RuntimeChild:
    """Give the runtime image of a platform that a builder made on top of the published one.

    Blocking. Raises BuildError(DockerfileInvalid) when it breaks the contract, InvalidImage, OSError.
    """
    base = adoption.base
    base_config = json.loads(base.config)
    if broken := broken_promises(saved.config, base_config, base.platform):
        raise fail(
            Reason.DOCKERFILE_INVALID,
            f"The Dockerfile's image for {base.platform} cannot run as a model: {'; '.join(broken)}.",
        )
    published = dict(zip(base_config["rootfs"]["diff_ids"], base.layers, strict=True))
    layers, diff_ids, blobs = _take_layers(saved, adoption, published)
    added = diff_ids != list(published)
    config = canonical_json(
        {
            **base.platform.to_json(),
            "created": EPOCH,
            "config": _settings(saved.config, base_config, added=added),
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
    manifest = make_manifest(config, layers)
    return RuntimeChild(base.platform, sha256_digest(manifest), manifest, config, blobs)


def _take_layers(
    saved: SavedImage, adoption: Adoption, published: Mapping[str, Descriptor]
) -> tuple[list[Descriptor], list[str], dict[str, Path]]:
    layers: list[Descriptor] = []
    diff_ids: list[str] = []
    blobs: dict[str, Path] = {}
    adoption.folder.mkdir(parents=True, exist_ok=True)
    for number, diff_id in enumerate(saved.diff_ids):
        if diff_id in published:
            layers.append(published[diff_id])
            diff_ids.append(diff_id)
            continue
        path = adoption.folder / f"layer-{number}"
        with saved.open_layer(diff_id) as source, path.open("wb") as out:
            layer = rewrite_layer(
                source, diff_id, out, compressor=adoption.compressor, max_bytes=adoption.max_bytes
            )
        layers.append(layer.descriptor)
        diff_ids.append(layer.diff_id)
        blobs[layer.descriptor.digest] = path
    return layers, diff_ids, blobs


def _settings(config: Mapping[str, Any], base: Mapping[str, Any], *, added: bool) -> dict[str, Any]:
    """Keep what decides how the image runs. History goes: it holds times and the values of arguments."""
    container = config.get("config") or {}
    labels = dict(container.get("Labels") or {})
    stated = (base.get("config") or {}).get("Labels") or {}
    for name in (*BUILD_LABELS, *STATEMENT_LABELS):
        if name in BUILD_LABELS or (added and labels.get(name) == stated.get(name)):
            labels.pop(name, None)
    settings = {name: container[name] for name in _SETTINGS if container.get(name)}
    return {**settings, "Labels": labels} if labels else settings
