"""Removing one image from its registry, with all that belongs to it, killed at any moment and begun again.

Order: the index, from when on nobody finds the image; then each platform's image, after what is attached to
it (found through it alone); at last what is attached to the index, whose digest is recorded. Everything is
deleted by digest. Blobs are left to the registry's own garbage collection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from edgemodel_operator.adapters.registries import Registries
from edgemodel_operator.api.edgemodel_status import VariantImage
from edgemodel_operator.core.annotations import BUILD_KEY
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.core.garbage import RemovalError
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.errors import (
    DeletionForbidden,
    NotFound,
    ProtocolError,
    RegistryError,
    Unauthorized,
)
from edgemodel_operator.oci.image import InvalidImage, parse_index
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference
from edgemodel_operator.oci.registry import Manifest, RegistryClient, fallback_tag

MAX_REFERRERS = 1000
MAX_DEPTH = 3
"""Signatures of a bill of materials of an image: referrers have referrers."""
TAGGED_ATTACHMENTS = ("", ".sig", ".att", ".sbom")
"""What is kept under `sha256-<hex>` and an ending: the referrers of registries without their API, and what
cosign attaches in its older form."""


@dataclass(frozen=True)
class ImageRemover:
    """Removes images."""

    registries: Registries

    async def remove(self, image: VariantImage, credentials: Mapping[str, Credential]) -> bool:
        """Remove an image; False if what is stored under its digest is none of ours. Raises RemovalError."""
        try:
            reference = parse_reference(image.image)
            return await _Removal(self.registries.client(credentials), reference, image).run()
        except DeletionForbidden as error:
            host = image.image.partition("/")[0]
            message = (
                f"{host} forbids to delete images ({error}): enable deletion in its configuration, or remove "
                "them there by hand"
            )
            raise RemovalError("DeletionForbidden", message, is_final=True) from error
        except Unauthorized as error:
            message = (
                f"{image.image} cannot be deleted: the Secret in `image.pushSecret` must allow it ({error})"
            )
            raise RemovalError("DeletionDenied", message, is_final=True) from error
        except RegistryError as error:
            message = f"{image.image} cannot be removed now: {error}"
            raise RemovalError("RegistryUnavailable", message, stops=error.retryable) from error
        except (InvalidImage, InvalidReference) as error:
            message = f"{image.image} cannot be removed: {error}"
            raise RemovalError("RegistryUnavailable", message, stops=False) from error


@dataclass(frozen=True)
class _Removal:
    client: RegistryClient
    index: Reference
    image: VariantImage

    async def run(self) -> bool:
        manifest = await self._read(self.index.digest or "")
        children = await self._tagged_children()
        if manifest is not None:
            parsed = parse_index(manifest.body)
            if parsed.annotations.get(BUILD_KEY) != self.image.build_key:
                return False
            children |= {child.digest for child in parsed.manifests}
            await self.client.delete_manifest(self.index)
        for digest in sorted(children):
            await self._remove_child(digest)
        await self._remove_attached(self.index.digest or "", MAX_DEPTH)
        for tag in (index_tag(self.image.build_key), *self._child_tags()):
            await self._untag(tag)
        return True

    def _child_tags(self) -> list[str]:
        return [child_tag(self.image.build_key, platform) for platform in self.image.platforms]

    async def _tagged_children(self) -> set[str]:
        """Find the platforms' images by their tags: all that is left of an image whose index is gone."""
        found = [await self.client.head_manifest(self.index.with_tag(tag)) for tag in self._child_tags()]
        return {descriptor.digest for descriptor in found if descriptor is not None}

    async def _remove_child(self, digest: str) -> None:
        manifest = await self._read(digest)
        annotations = manifest.json().get("annotations") if manifest is not None else None
        if not isinstance(annotations, dict) or annotations.get(BUILD_KEY) != self.image.build_key:
            return  # gone, or somebody else's under our tag
        await self._remove_attached(digest, MAX_DEPTH)
        await self.client.delete_manifest(self.index.with_digest(digest))

    async def _remove_attached(self, digest: str, depth: int) -> None:
        for entry in await self.client.list_referrers(self.index, digest, max_referrers=MAX_REFERRERS):
            manifest = await self._read(entry.digest)
            subject = manifest.json().get("subject") if manifest is not None else None
            if not isinstance(subject, dict) or subject.get("digest") != digest:
                continue  # a list can say anything; the manifest itself knows what it belongs to
            if depth:
                await self._remove_attached(entry.digest, depth - 1)
            await self.client.delete_manifest(self.index.with_digest(entry.digest))
        for ending in TAGGED_ATTACHMENTS:
            tag = fallback_tag(digest) + ending
            tagged = await self.client.head_manifest(self.index.with_tag(tag))
            # Some registries read the tag as the digest itself.
            if tagged is not None and tagged.digest != digest:
                await self.client.delete_manifest(self.index.with_digest(tagged.digest))
                await self._untag(tag)

    async def _untag(self, tag: str) -> None:
        """Take away a tag whose manifest is gone. Most registries did that with the manifest."""
        tagged = await self.client.head_manifest(self.index.with_tag(tag))
        if tagged is None or await self._read(tagged.digest) is not None:
            return
        with contextlib.suppress(ProtocolError, DeletionForbidden):  # some delete nothing by its tag
            await self.client.delete_manifest(self.index.with_tag(tag))

    async def _read(self, digest: str) -> Manifest | None:
        try:
            return await self.client.get_manifest(self.index.with_digest(digest))
        except NotFound:
            return None
