"""Bringing a grafted image into its repository, in an order that never shows anything incomplete.

1. blobs: the model's layers, the runtime's layers, and the configuration of each platform
2. a question for each of them, since a registry may have lost what it took a moment ago
3. the image of each platform, under its own tag
4. the index, under the tag of the build key: from now on the image can be found

A crash between any two requests leaves blobs that the registry's garbage collection removes, or platform
images that are complete in themselves; the next build goes on where this one ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.graft import GraftedImage
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.build.together import for_each
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.bodies import BlobSource, local_source
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from edgemodel_operator.oci.image import parse_manifest
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference


@dataclass(frozen=True)
class Destination:
    """Where an image goes, where the runtime's blobs come from, and who is to be named in messages."""

    client: ImageStore
    target: Reference
    runtime: Reference
    push_secret: str = ""

    @property
    def mount_from(self) -> str | None:
        """The repository from which the registry can take the runtime's blobs itself."""
        return self.runtime.repository if self.runtime.registry == self.target.registry else None


_AT_ONCE = 3
"""Blobs on their way at the same time: enough to hide the round trips, too few to crowd a registry."""


@dataclass(frozen=True)
class _Blob:
    """A blob of the image: its content, and a repository from which the registry may take it itself."""

    descriptor: Descriptor
    source: BlobSource
    mount_from: str | None = None


class Publisher:
    """Pushes one image; `sent` counts the blob bytes that really went over the wire."""

    def __init__(self, destination: Destination, on_bytes: Callable[[int, int], None]) -> None:
        self._to = destination
        self._on_bytes = on_bytes
        self._total = 0
        self.sent = 0

    async def publish(self, image: GraftedImage, build_key: str) -> None:
        """Push the image and all that it consists of. Raises BuildError."""
        blobs = list(self._blobs(image))
        self._total = sum(blob.descriptor.size for blob in blobs)
        try:
            await for_each(self._put, blobs, at_once=_AT_ONCE)
            await for_each(self._confirm, blobs, at_once=_AT_ONCE)
            for child in image.children:
                tagged = self._to.target.with_tag(child_tag(build_key, str(child.platform)))
                await self._to.client.put_manifest(tagged, child.image.manifest, OCI_MANIFEST)
            tagged = self._to.target.with_tag(index_tag(build_key))
            await self._to.client.put_manifest(tagged, image.index, OCI_INDEX)
        except errors.RegistryError as error:
            raise registry_failure(self._to, error) from error

    async def publish_runtime(self, child: RuntimeChild) -> None:
        """Push the runtime image of one platform, without a tag: nobody is to run it. Raises BuildError."""
        config = parse_manifest(child.manifest).config
        layers = self._runtime_blobs(child.layers, child.blobs)
        blobs = [*layers, _Blob(config, local_source(child.config))]
        self._total = sum(blob.descriptor.size for blob in blobs)
        try:
            await for_each(self._put, blobs, at_once=_AT_ONCE)
            await for_each(self._confirm, blobs, at_once=_AT_ONCE)
            await self._to.client.put_manifest(
                self._to.target.with_digest(child.digest), child.manifest, OCI_MANIFEST
            )
        except errors.RegistryError as error:
            raise registry_failure(self._to, error) from error

    def _blobs(self, image: GraftedImage) -> Iterator[_Blob]:
        """Give every blob once: the model's first, since they are what the image is made for."""
        for written in image.layers:
            yield _Blob(written.layer.descriptor, local_source(written.blob))
        local = {digest: path for child in image.children for digest, path in child.runtime_blobs.items()}
        layers = [layer for child in image.children for layer in child.runtime_layers]
        yield from self._runtime_blobs(layers, local)
        for child in image.children:
            yield _Blob(child.image.config_descriptor, local_source(child.image.config))

    def _runtime_blobs(self, layers: Iterable[Descriptor], local: Mapping[str, Path]) -> Iterator[_Blob]:
        for layer in {layer.digest: layer for layer in layers}.values():
            if layer.digest in local:
                yield _Blob(layer, local_source(local[layer.digest]))
            else:
                yield _Blob(layer, self._from_runtime(layer), self._to.mount_from)

    async def _put(self, blob: _Blob) -> None:
        await self._to.client.put_blob(
            self._to.target, self._counted(blob.source), blob.descriptor, mount_from=blob.mount_from
        )

    async def _confirm(self, blob: _Blob) -> None:
        digest = blob.descriptor.digest
        if not await self._to.client.blob_exists(self._to.target, digest):
            raise errors.NotFound(f"{self._to.target.registry} took {digest} and has lost it since.")

    def _counted(self, source: BlobSource) -> BlobSource:
        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            async with aclosing(source(offset)) as chunks:
                async for chunk in chunks:
                    yield chunk
                    self.sent += len(chunk)
                    self._on_bytes(self.sent, self._total)

        return read

    def _from_runtime(self, layer: Descriptor) -> BlobSource:
        async def read(offset: int) -> AsyncGenerator[bytes, None]:
            skip = offset  # read from the start: only the whole content can be checked
            async with aclosing(self._to.client.open_blob(self._to.runtime, layer)) as chunks:
                async for chunk in chunks:
                    if skip < len(chunk):
                        yield chunk[skip:]
                    skip = max(0, skip - len(chunk))

        return read


def registry_failure(to: Destination, error: errors.RegistryError) -> BuildError:
    """Put an error of the target registry into words."""
    match error:
        case errors.Unauthorized():
            secret = (
                f"the Secret {to.push_secret!r} must allow to pull and push there"
                if to.push_secret
                else "name a Secret that allows it in `image.pushSecret`"
            )
            return fail(Reason.REGISTRY_DENIED, f"{to.target.name} does not let us push: {secret} ({error})")
        case errors.RegistryUnavailable():
            return fail(Reason.REGISTRY_UNAVAILABLE, f"{to.target.registry} gives no usable answer: {error}")
        case _:
            return fail(Reason.REGISTRY_REFUSED, f"{to.target.name} refused the image: {error}")
