"""Where images are kept: what a registry and a folder on disk have in common."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Protocol

from typing_extensions import override

from .bodies import BlobSource
from .descriptor import Descriptor
from .image_layout import LayoutStore, is_layout
from .reference import Reference
from .registry import MAX_MANIFEST_BYTES, Manifest, PutManifest


class ImageStore(Protocol):
    """Reads and writes manifests, blobs and referrers; `RegistryClient` says what each method promises."""

    async def get_manifest(self, ref: Reference, *, max_bytes: int = MAX_MANIFEST_BYTES) -> Manifest:
        """Fetch the manifest or index that the reference names."""
        ...

    async def head_manifest(self, ref: Reference) -> Descriptor | None:
        """Describe the manifest without reading it, None if it does not exist."""
        ...

    async def put_manifest(self, ref: Reference, body: bytes, media_type: str) -> PutManifest:
        """Store these exact bytes under the reference's tag, or under their digest when it has none."""
        ...

    async def get_blob(self, ref: Reference, digest: str, *, max_bytes: int) -> bytes:
        """Fetch a small blob into memory."""
        ...

    def open_blob(self, ref: Reference, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Stream a blob of any size; it is proved by its digest when the iteration ends, not before."""
        ...

    async def blob_exists(self, ref: Reference, digest: str) -> bool:
        """Tell whether the blob is there."""
        ...

    async def put_blob(
        self,
        ref: Reference,
        source: bytes | Path | BlobSource,
        descriptor: Descriptor,
        *,
        mount_from: str | None = None,
    ) -> None:
        """Bring a blob into the repository: nothing if it is there."""
        ...

    async def list_referrers(
        self, ref: Reference, digest: str, *, max_referrers: int = 100
    ) -> tuple[Descriptor, ...]:
        """List the artifacts attached to a manifest."""
        ...

    async def add_referrer_fallback(
        self, ref: Reference, subject_digest: str, descriptor: Descriptor, *, attempts: int = 5
    ) -> None:
        """List a referrer where `put_manifest` said that nobody will."""
        ...


class AnyStore(ImageStore):
    """Sends every call to where its reference leads: to a registry, or to an image layout on disk."""

    def __init__(self, registries: ImageStore) -> None:
        self._registries = registries
        self._layouts = LayoutStore()

    def _at(self, ref: Reference) -> ImageStore:
        return self._layouts if is_layout(ref) else self._registries

    @override
    async def get_manifest(self, ref: Reference, *, max_bytes: int = MAX_MANIFEST_BYTES) -> Manifest:
        return await self._at(ref).get_manifest(ref, max_bytes=max_bytes)

    @override
    async def head_manifest(self, ref: Reference) -> Descriptor | None:
        return await self._at(ref).head_manifest(ref)

    @override
    async def put_manifest(self, ref: Reference, body: bytes, media_type: str) -> PutManifest:
        return await self._at(ref).put_manifest(ref, body, media_type)

    @override
    async def get_blob(self, ref: Reference, digest: str, *, max_bytes: int) -> bytes:
        return await self._at(ref).get_blob(ref, digest, max_bytes=max_bytes)

    @override
    def open_blob(self, ref: Reference, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        return self._at(ref).open_blob(ref, descriptor)

    @override
    async def blob_exists(self, ref: Reference, digest: str) -> bool:
        return await self._at(ref).blob_exists(ref, digest)

    @override
    async def put_blob(
        self,
        ref: Reference,
        source: bytes | Path | BlobSource,
        descriptor: Descriptor,
        *,
        mount_from: str | None = None,
    ) -> None:
        await self._at(ref).put_blob(ref, source, descriptor, mount_from=mount_from)

    @override
    async def list_referrers(
        self, ref: Reference, digest: str, *, max_referrers: int = 100
    ) -> tuple[Descriptor, ...]:
        return await self._at(ref).list_referrers(ref, digest, max_referrers=max_referrers)

    @override
    async def add_referrer_fallback(
        self, ref: Reference, subject_digest: str, descriptor: Descriptor, *, attempts: int = 5
    ) -> None:
        await self._at(ref).add_referrer_fallback(ref, subject_digest, descriptor, attempts=attempts)
