"""Pushing built images: blobs once, children before the index, a tag for each."""

from __future__ import annotations

import asyncio

from edgemodel_operator.oci.copy import Endpoint, child_tag, copy_image
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Platform
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient

from .assemble import BuiltImage
from .foreign import ForeignBase
from .layers import StoredLayer


async def push(
    client: RegistryClient, built: BuiltImage, reference: Reference, *, mount_from: str | None = None
) -> Reference:
    """Push the image under the reference's tag and return its name by digest.

    `mount_from` is the repository of the same registry that holds the base's layers.

    Each platform's manifest gets a tag of its own: the garbage collection of common registries would
    otherwise remove the children of a tagged index.
    """
    if built.foreign is not None:
        await _copy_base(client, built.foreign, reference)
    for platform in built.images:
        await _push_blobs(client, built, platform, reference, mount_from)
    for image in built.images.values():
        tag = child_tag(built.version, image.descriptor)
        target = reference.with_tag(tag) if tag else reference.with_digest(image.descriptor.digest)
        await client.put_manifest(target, image.manifest, OCI_MANIFEST)
    stored = await client.put_manifest(reference, built.index, OCI_INDEX)
    return reference.with_digest(stored.descriptor.digest)


async def _copy_base(client: RegistryClient, base: ForeignBase, reference: Reference) -> None:
    """Bring the base's own layers to the repository: mounted within one registry, else streamed."""
    for child in base.children.values():
        source = Endpoint(client, base.reference.with_digest(child.digest))
        await copy_image(source, Endpoint(client, reference.with_digest(child.digest)))


async def _push_blobs(
    client: RegistryClient,
    built: BuiltImage,
    platform: Platform,
    reference: Reference,
    mount_from: str | None,
) -> None:
    uploads = asyncio.Semaphore(3)

    async def push_layer(stored: StoredLayer) -> None:
        async with uploads:
            await client.put_blob(reference, stored.blob, stored.layer.descriptor, mount_from=mount_from)

    await asyncio.gather(*(push_layer(stored) for stored in built.layers[platform]))
    image = built.images[platform]
    await client.put_blob(reference, image.config, image.config_descriptor)
