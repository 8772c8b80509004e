"""What an image consists of, by digests: enough to recognize it in what a node reports."""

from __future__ import annotations

from dataclasses import dataclass

from edgemodel_operator.oci.descriptor import INDEX_TYPES
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient

MAX_PLATFORMS = 64


@dataclass(frozen=True)
class Parts:
    """The manifests of an image, itself included, and the configurations of its platforms."""

    manifests: frozenset[str]
    configurations: frozenset[str]


async def read_parts(client: RegistryClient, image: Reference) -> Parts:
    """Read the manifests of an image by digest. Raises RegistryError, InvalidImage."""
    found = await client.get_manifest(image)
    own = found.descriptor.digest
    if found.descriptor.media_type not in INDEX_TYPES:
        return Parts(frozenset({own}), frozenset({parse_manifest(found.body).config.digest}))
    children = [child.digest for child in parse_index(found.body).manifests[:MAX_PLATFORMS]]
    configurations = [await _configuration(client, image.with_digest(digest)) for digest in children]
    return Parts(frozenset({own, *children}), frozenset(filter(None, configurations)))


async def _configuration(client: RegistryClient, platform: Reference) -> str:
    """Name the configuration of a platform; empty for one that was not copied along with its index."""
    try:
        return parse_manifest((await client.get_manifest(platform)).body).config.digest
    except NotFound:
        return ""
