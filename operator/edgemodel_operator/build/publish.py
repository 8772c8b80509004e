"""Bringing a grafted image into its repository, in an order that never shows anything incomplete.

1. blobs: the model layer, then for each platform the runtime's layers and the configuration
2. the image of each platform, under its own tag
3. the index, under the tag of the build key: from now on the image can be found

A crash between any two requests leaves blobs that the registry's garbage collection removes, or platform
images that are complete in themselves; the next build goes on where this one ended.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.graft import GraftedChild, GraftedImage
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.upload import BlobSource, local_source


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


class Publisher:
    """Pushes one image; `sent` counts the blob bytes that really went over the wire."""

    def __init__(self, destination: Destination, on_bytes: Callable[[int, int], None]) -> None:
        self._to = destination
        self._on_bytes = on_bytes
        self._total = 0
        self.sent = 0

    async def publish(self, image: GraftedImage, layer_file: Path, build_key: str) -> None:
        """Push the image whose model layer lies in `layer_file`. Raises BuildError."""
        runtime = {layer.digest: layer for child in image.children for layer in child.runtime_layers}
        self._total = image.layer.descriptor.size + sum(layer.size for layer in runtime.values())
        try:
            await self._put(image.layer.descriptor, local_source(layer_file))
            for layer in runtime.values():
                await self._put(layer, self._from_runtime(layer), mount_from=self._to.mount_from)
            for child in image.children:
                await self._publish_child(child, build_key)
            tagged = self._to.target.with_tag(index_tag(build_key))
            await self._to.client.put_manifest(tagged, image.index, OCI_INDEX)
        except errors.RegistryError as error:
            raise registry_failure(self._to, error) from error

    async def _publish_child(self, child: GraftedChild, build_key: str) -> None:
        config = child.image.config
        await self._to.client.put_blob(self._to.target, config, child.image.config_descriptor)
        tagged = self._to.target.with_tag(child_tag(build_key, str(child.platform)))
        await self._to.client.put_manifest(tagged, child.image.manifest, OCI_MANIFEST)

    async def _put(self, blob: Descriptor, source: BlobSource, *, mount_from: str | None = None) -> None:
        await self._to.client.put_blob(self._to.target, self._counted(source), blob, mount_from=mount_from)

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
