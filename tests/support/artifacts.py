"""Artifacts and images made of given layers."""

from __future__ import annotations

from edgemodel_operator.oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient

TITLE = "org.opencontainers.image.title"
Layers = list[tuple[bytes, str, str]]


async def push(client: RegistryClient, ref: Reference, layers: Layers) -> Descriptor:
    """Push a manifest with layers of (content, media type, title)."""
    return await push_annotated(
        client,
        ref,
        [(content, media_type, {TITLE: title} if title else {}) for content, media_type, title in layers],
    )


async def push_annotated(
    client: RegistryClient, ref: Reference, layers: list[tuple[bytes, str, dict[str, str]]]
) -> Descriptor:
    """Push a manifest with layers of (content, media type, annotations)."""
    entries = []
    for content, media_type, notes in layers:
        blob = Descriptor.of(media_type, content)
        await client.put_blob(ref, content, blob)
        entries.append({**blob.to_json(), "annotations": notes})
    config = Descriptor.of(OCI_EMPTY, b"{}")
    await client.put_blob(ref, b"{}", config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.to_json(),
        "layers": entries,
    }
    return (await client.put_manifest(ref, canonical_json(manifest), OCI_MANIFEST)).descriptor


def artifact(*files: tuple[str, bytes]) -> Layers:
    return [(content, "application/octet-stream", name) for name, content in files]
