"""The manifests that cosign keeps under a tag beside an image, one layer for each signed object. Pure.

Under `sha256-<hex>.sig` lie signatures, under `sha256-<hex>.att` attestations. Format: `pkg/oci/static` and
`pkg/oci/mutate` of sigstore/cosign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemodel_operator.oci.descriptor import (
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    InvalidDescriptor,
    canonical_json,
)


@dataclass(frozen=True)
class ManifestToPut:
    """A manifest and the config blob it refers to, ready to be pushed."""

    body: bytes
    config: bytes
    config_descriptor: Descriptor


def layers_of(document: Mapping[str, object]) -> tuple[Descriptor, ...]:
    """Describe the layers of a manifest; entries that are no descriptors are left out."""
    entries = document.get("layers")
    layers = []
    for entry in entries if isinstance(entries, list) else []:
        try:
            layers.append(Descriptor.from_json(entry))
        except InvalidDescriptor:
            continue
    return tuple(layers)


def add_layers(existing: Mapping[str, object], additions: Sequence[Descriptor]) -> ManifestToPut:
    """Return the manifest `existing` (empty: there is none) with layers added at its end.

    What others wrote stays as it is, member for member. The same input gives the same bytes, so that two
    signers who add the same layer write the same manifest.
    """
    old = existing.get("layers")
    layers = [*(old if isinstance(old, list) else []), *(layer.to_json() for layer in additions)]
    config = _config([layer.get("digest") for layer in layers if isinstance(layer, dict)])
    config_descriptor = Descriptor.of(OCI_CONFIG, config)
    document = dict(existing) | {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config_descriptor.to_json(),
        "layers": layers,
    }
    return ManifestToPut(canonical_json(document), config, config_descriptor)


def _config(diff_ids: list[object]) -> bytes:
    # Cosign writes an image config with the zero time; nothing reads it, but image tools expect its shape.
    created = "0001-01-01T00:00:00Z"
    return canonical_json(
        {
            "architecture": "",
            "config": {},
            "created": created,
            "history": [{"created": created} for _ in diff_ids],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )
