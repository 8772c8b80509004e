"""Small real images to sign: two platforms and the index over them, pushed to a registry."""

from __future__ import annotations

from dataclasses import dataclass

from edgemodel_operator.oci.descriptor import (
    OCI_INDEX,
    OCI_LAYER_TAR,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    sha256_digest,
)
from edgemodel_operator.oci.image import RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.layer import Layer
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient


@dataclass(frozen=True)
class PushedImage:
    """An index in a registry, by digest, and the descriptors of its two platforms."""

    index: Reference
    platforms: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        assert self.index.digest is not None
        return self.index.digest

    @property
    def digests(self) -> tuple[str, ...]:
        return (self.digest, *(platform.digest for platform in self.platforms))

    @property
    def children(self) -> tuple[Reference, ...]:
        return tuple(self.index.with_digest(platform.digest) for platform in self.platforms)


async def push_image(client: RegistryClient, name: Reference, content: bytes = b"model") -> PushedImage:
    """Push an index for amd64 and arm64 whose layer is `content`; equal content gives equal digests."""
    blob = content + b"\0" * (1024 - len(content))
    layer = Layer(Descriptor.of(OCI_LAYER_TAR, blob), sha256_digest(blob))
    children = []
    for architecture in ("amd64", "arm64"):
        settings = RuntimeSettings(entrypoint=("/serve",))
        image = make_image(Platform("linux", architecture), [layer], settings)
        await client.put_blob(name, blob, layer.descriptor)
        await client.put_blob(name, image.config, image.config_descriptor)
        await client.put_manifest(name.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
        children.append(image.descriptor)
    body = make_index(children)
    index = name.with_digest(Descriptor.of(OCI_INDEX, body).digest)
    await client.put_manifest(index, body, OCI_INDEX)
    return PushedImage(index, tuple(children))
