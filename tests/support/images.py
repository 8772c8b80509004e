"""Small real images to push to test registries."""

from __future__ import annotations

import io
from collections.abc import Mapping

from edgemodel_operator.oci.descriptor import (
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    canonical_json,
)
from edgemodel_operator.oci.image import Image, RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.layer import File, Layer, write_layer
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")


def make_layer(path: str, content: bytes) -> tuple[Layer, bytes]:
    """Make a layer with one file; returns it with its blob."""
    out = io.BytesIO()
    return write_layer([File(path, content)], out), out.getvalue()


async def push_image(
    client: RegistryClient,
    ref: Reference,
    platform: Platform,
    content: bytes,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """Push a one-layer image under its digest (the caller tags it)."""
    layer, blob = make_layer("opt/content", content)
    image = make_image(
        platform, [layer], RuntimeSettings(entrypoint=["/opt/content"], user="65532", labels=labels or {})
    )
    await client.put_blob(ref, blob, layer.descriptor)
    await client.put_blob(ref, image.config, image.config_descriptor)
    await client.put_manifest(ref.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
    return image


async def push_index(
    client: RegistryClient,
    ref: Reference,
    content: bytes = b"content",
    labels: Mapping[str, str] | None = None,
) -> Descriptor:
    """Push an index of two platforms that share nothing but their shape; returns what was stored."""
    images = [
        await push_image(client, ref, platform, content + str(platform).encode(), labels)
        for platform in (AMD64, ARM64)
    ]
    body = make_index([image.descriptor for image in images])
    return (await client.put_manifest(ref, body, OCI_INDEX)).descriptor


async def attach(client: RegistryClient, ref: Reference, subject: Descriptor, note: str) -> Descriptor:
    """Attach an artifact to a manifest, with the fallback tag where the registry needs it."""
    empty = Descriptor.of(OCI_EMPTY, b"{}")
    await client.put_blob(ref, b"{}", empty)
    manifest = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.note",
            "config": empty.to_json(),
            "layers": [empty.to_json()],
            "subject": subject.to_json(),
            "annotations": {"note": note},
        }
    )
    pinned = ref.with_digest(Descriptor.of(OCI_MANIFEST, manifest).digest)
    pushed = await client.put_manifest(pinned, manifest, OCI_MANIFEST)
    if not pushed.subject_acknowledged:
        await client.add_referrer_fallback(ref, subject.digest, pushed.descriptor)
    return pushed.descriptor
