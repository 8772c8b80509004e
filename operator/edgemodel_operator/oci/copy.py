"""Copying whole images between repositories, byte by byte: digests, and with them signatures, survive."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from .bodies import BlobSource
from .descriptor import INDEX_TYPES, Descriptor
from .errors import ProtocolError
from .image import InvalidImage, parse_index, parse_manifest
from .image_store import ImageStore
from .reference import Reference
from .registry import Manifest


@dataclass(frozen=True)
class Endpoint:
    """A repository together with the client (its credentials) to reach it."""

    client: ImageStore
    reference: Reference


async def copy_image(source: Endpoint, target: Endpoint, *, tag_children: bool = True) -> Descriptor:
    """Copy the image, or the index with all its children, that the source's reference names.

    The result carries the target's tag, if it has one. Within one registry blobs are mounted, else streamed,
    so memory stays flat. With `tag_children` each platform's manifest gets the tag
    `<tag>-<os>-<architecture>` too: the garbage collection of common registries removes untagged children of
    a tagged index.
    """
    manifest = await source.client.get_manifest(source.reference)
    if manifest.descriptor.media_type in INDEX_TYPES:
        await _copy_children(source, target, manifest, tag_children=tag_children)
    else:
        await _copy_blobs(source, target, manifest)
    stored = await target.client.put_manifest(
        _put_target(target.reference), manifest.body, manifest.descriptor.media_type
    )
    return stored.descriptor


def child_tag(tag: str, child: Descriptor) -> str | None:
    """Return the tag of a platform's manifest beside the index `tag`; None if it names no real platform."""
    if child.platform is None or child.platform.os == "unknown":
        return None
    return f"{tag}-{str(child.platform).replace('/', '-')}"


async def _copy_children(
    source: Endpoint, target: Endpoint, manifest: Manifest, *, tag_children: bool
) -> None:
    try:
        children = parse_index(manifest.body).manifests
    except InvalidImage as error:
        raise ProtocolError(f"{source.reference}: {error}") from error
    for child in children:
        tag = child_tag(target.reference.tag, child) if tag_children and target.reference.tag else None
        below = target.reference.with_tag(tag) if tag else target.reference.with_digest(child.digest)
        origin = Endpoint(source.client, source.reference.with_digest(child.digest))
        body = await source.client.get_manifest(origin.reference)
        await _copy_blobs(origin, target, body)  # refuses an index inside an index
        await target.client.put_manifest(below, body.body, body.descriptor.media_type)


async def _copy_blobs(source: Endpoint, target: Endpoint, manifest: Manifest) -> None:
    try:
        image = parse_manifest(manifest.body)
    except InvalidImage as error:
        raise ProtocolError(f"{source.reference}: {error}") from error
    same_registry = source.reference.registry == target.reference.registry
    mount_from = source.reference.repository if same_registry else None
    for blob in (*image.layers, image.config):
        await target.client.put_blob(
            target.reference, _remote_source(source, blob), blob, mount_from=mount_from
        )


def _remote_source(source: Endpoint, blob: Descriptor) -> BlobSource:
    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        # Always from the start: the digest can only be checked over the whole content.
        skip = offset
        async with aclosing(source.client.open_blob(source.reference, blob)) as chunks:
            async for chunk in chunks:
                if skip < len(chunk):
                    yield chunk[skip:]
                skip = max(0, skip - len(chunk))

    return read


def _put_target(reference: Reference) -> Reference:
    return reference.with_tag(reference.tag) if reference.tag else reference
