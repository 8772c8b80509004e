"""Images in a folder: the OCI image layout, to write to and to read from.

Format: OCI image specification 1.1, `image-layout.md`; `oci:FOLDER[:TAG]` is how skopeo and others write the
place. The interface is that of a registry, so that everything that works with one works with a folder.

Nothing incomplete is ever visible: every file is written beside its place, synced, and renamed; a manifest
goes in when all that it names is there, and `index.json`, which makes an image findable, comes last. A
process that is killed leaves blobs that nobody refers to, and files named `.partial-…`; `layout_transaction`
removes both.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .bodies import BlobSource, local_source
from .descriptor import INDEX_TYPES, OCI_INDEX, OCI_MANIFEST, Descriptor, InvalidDescriptor, sha256_digest
from .errors import DigestMismatch, NotFound, ProtocolError, TooLarge
from .image import ImageIndex, InvalidImage, make_index, parse_index, parse_manifest
from .reference import InvalidReference, Reference, is_digest, parse_reference
from .registry import MAX_MANIFEST_BYTES, Manifest, PutManifest, fallback_tag

SCHEME = "oci:"
PARTIAL = ".partial-"
ANNOTATION_TAG = "org.opencontainers.image.ref.name"

_MARKER = "oci-layout"
_MARKER_CONTENT = b'{"imageLayoutVersion":"1.0.0"}'
_INDEX = "index.json"


def parse_location(text: str) -> Reference:
    """Read where an image is: `oci:FOLDER[:TAG][@sha256:…]`, or else a reference to a registry.

    Raises InvalidReference. A folder's reference holds its absolute path, so that it means the same in every
    process; no registry can be called `oci:`.
    """
    if not text.startswith(SCHEME):
        return parse_reference(text)
    rest, at, digest = text.removeprefix(SCHEME).partition("@")
    if at and not is_digest(digest):
        raise InvalidReference(f"{text!r}: after '@' there must be sha256: and 64 lower-case hex digits.")
    folder, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        folder, tag = rest, ""
    if not folder:
        raise InvalidReference(f"{text!r} names no folder: write oci:FOLDER or oci:FOLDER:TAG.")
    place = Reference(SCHEME, str(Path(folder).absolute()).lstrip("/"))
    if tag:
        place = place.with_tag(tag)
    return replace(place, digest=digest) if digest else place


def is_layout(ref: Reference) -> bool:
    """Tell whether the reference leads to a folder instead of a registry."""
    return ref.registry == SCHEME


def layout_folder(ref: Reference) -> Path:
    """Give the folder that the reference of a layout leads to."""
    return Path("/", ref.repository)


class LayoutStore:
    """Images in folders, with the interface of `RegistryClient`."""

    async def get_manifest(self, ref: Reference, *, max_bytes: int = MAX_MANIFEST_BYTES) -> Manifest:
        """Read the manifest or index of the digest, or of the tag, or, without both, the only one.

        Raises NotFound, DigestMismatch, TooLarge, ProtocolError.
        """
        layout = _Layout(layout_folder(ref))
        digest = ref.digest or layout.entry(ref).digest
        body = await self.get_blob(ref, digest, max_bytes=max_bytes)
        manifest = Manifest(Descriptor(OCI_MANIFEST, digest, len(body)), body)
        document = manifest.json()
        implied = OCI_INDEX if "manifests" in document else OCI_MANIFEST
        stated = str(document.get("mediaType") or implied)
        return replace(manifest, descriptor=Descriptor(stated, digest, len(body)))

    async def head_manifest(self, ref: Reference) -> Descriptor | None:
        """Describe the manifest, None if it does not exist."""
        try:
            return (await self.get_manifest(ref)).descriptor
        except NotFound:
            return None

    async def put_manifest(self, ref: Reference, body: bytes, media_type: str) -> PutManifest:
        """Store these exact bytes; with a tag, or as a referrer, they are listed in `index.json` as well.

        Raises ProtocolError when something that the manifest names is not in the folder.
        """
        descriptor = Descriptor(media_type, sha256_digest(body), len(body))
        if ref.digest and ref.digest != descriptor.digest:
            raise DigestMismatch(f"{ref}: the manifest to store hashes to {descriptor.digest}.")
        layout = _Layout(layout_folder(ref))
        content = _Content.of(body, media_type)
        layout.require(content.parts)
        await self.put_blob(ref, body, descriptor)
        tag = ref.tag if not ref.digest else None
        if tag:
            named = replace(descriptor, annotations={ANNOTATION_TAG: tag})
            await asyncio.to_thread(layout.change_index, lambda index: _with_tag(index, named, tag, content))
        elif content.subject:
            listed = replace(descriptor, artifact_type=content.artifact_type)
            await asyncio.to_thread(layout.change_index, lambda index: _with_referrer(index, listed))
        return PutManifest(descriptor, subject_acknowledged=True)

    async def get_blob(self, ref: Reference, digest: str, *, max_bytes: int) -> bytes:
        """Read a small blob into memory; raises TooLarge, NotFound, DigestMismatch."""
        path = _Layout(layout_folder(ref)).blob(digest)
        try:
            if path.stat().st_size > max_bytes:
                raise TooLarge(f"{ref.name}: the blob {digest} is larger than {max_bytes} bytes.")
            body = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(f"{ref.name} holds no {digest}.") from error
        if sha256_digest(body) != digest:
            raise DigestMismatch(f"{ref.name}: the blob {digest} hashes to {sha256_digest(body)}.")
        return body

    async def open_blob(self, ref: Reference, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Stream a blob of any size; only the end of the iteration proves its digest."""
        path, digest = _Layout(layout_folder(ref)).blob(descriptor.digest), hashlib.sha256()
        if not path.is_file():
            raise NotFound(f"{ref.name} holds no {descriptor.digest}.")
        if path.stat().st_size != descriptor.size:
            raise DigestMismatch(f"{ref.name}: {descriptor.digest} has {path.stat().st_size} bytes.")
        async with aclosing(local_source(path)(0)) as chunks:
            async for chunk in chunks:
                digest.update(chunk)
                yield chunk
        if f"sha256:{digest.hexdigest()}" != descriptor.digest:
            raise DigestMismatch(f"{ref.name}: the blob {descriptor.digest} hashes to {digest.hexdigest()}.")

    async def blob_exists(self, ref: Reference, digest: str) -> bool:
        """Tell whether the folder has the blob."""
        return _Layout(layout_folder(ref)).blob(digest).is_file()

    async def put_blob(
        self,
        ref: Reference,
        source: bytes | Path | BlobSource,
        descriptor: Descriptor,
        *,
        mount_from: str | None = None,
    ) -> None:
        """Bring a blob into the folder: nothing if it is there. Raises DigestMismatch, TooLarge, OSError."""
        layout = _Layout(layout_folder(ref))
        path = layout.blob(descriptor.digest)
        if path.is_file() and path.stat().st_size == descriptor.size:
            return
        content = local_source(source) if isinstance(source, bytes | Path) else source
        layout.prepare()
        with _replacing(path, layout.folder) as out:
            digest, size = hashlib.sha256(), 0
            async with aclosing(content(0)) as chunks:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > descriptor.size:
                        raise TooLarge("A blob's content is longer than its descriptor says.")
                    digest.update(chunk)
                    out(chunk)
            if f"sha256:{digest.hexdigest()}" != descriptor.digest:
                raise DigestMismatch(f"A blob that was announced as {descriptor.digest} is another one.")

    async def list_referrers(
        self, ref: Reference, digest: str, *, max_referrers: int = 100
    ) -> tuple[Descriptor, ...]:
        """List what is attached to a manifest: listed with it as subject, or under the fallback tag."""
        index = _Layout(layout_folder(ref)).index()
        found: dict[str, Descriptor] = {}
        for entry in index.manifests:
            if entry.annotations.get(ANNOTATION_TAG) == fallback_tag(digest):
                manifest = await self.get_manifest(ref.with_digest(entry.digest))
                found |= {listed.digest: listed for listed in _parse_index(ref, manifest.body).manifests}
            elif entry.media_type not in INDEX_TYPES:
                manifest = await self.get_manifest(ref.with_digest(entry.digest))
                content = _Content.of(manifest.body, entry.media_type)
                if content.subject is not None and content.subject.digest == digest:
                    found[entry.digest] = replace(
                        manifest.descriptor,
                        artifact_type=content.artifact_type,
                        annotations=content.annotations,
                    )
        if len(found) > max_referrers:
            raise TooLarge(f"{ref.name}@{digest} has more than {max_referrers} referrers.")
        return tuple(found.values())

    async def add_referrer_fallback(
        self, ref: Reference, subject_digest: str, descriptor: Descriptor, *, attempts: int = 5
    ) -> None:
        """List a referrer; needless after `put_manifest`, which does it itself."""
        layout = _Layout(layout_folder(ref))
        await asyncio.to_thread(layout.change_index, lambda index: _with_referrer(index, descriptor))


@dataclass(frozen=True)
class _Content:
    """What a manifest or index names."""

    parts: tuple[Descriptor, ...]
    subject: Descriptor | None
    artifact_type: str | None
    annotations: dict[str, str]

    @classmethod
    def of(cls, body: bytes, media_type: str) -> _Content:
        try:
            if media_type in INDEX_TYPES:
                index = parse_index(body)
                return cls(index.manifests, index.subject, index.artifact_type, dict(index.annotations))
            manifest = parse_manifest(body)
        except InvalidImage as error:
            raise ProtocolError(str(error)) from error
        kind = manifest.artifact_type or manifest.config.media_type
        parts = (manifest.config, *manifest.layers)
        return cls(parts, manifest.subject, kind, dict(manifest.annotations))


class _Layout:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def blob(self, digest: str) -> Path:
        if not is_digest(digest):
            raise InvalidDescriptor(f"{digest!r} is not a sha256 digest.")
        return self.folder / "blobs" / "sha256" / digest.removeprefix("sha256:")

    def prepare(self) -> None:
        """Make an empty layout, unless it exists; raises OSError."""
        (self.folder / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        if not (self.folder / _MARKER).exists():
            with _replacing(self.folder / _MARKER, self.folder) as out:
                out(_MARKER_CONTENT)

    def require(self, parts: tuple[Descriptor, ...]) -> None:
        """Raise ProtocolError unless all these blobs are here."""
        missing = [part.digest for part in parts if not self.blob(part.digest).is_file()]
        if missing:
            raise ProtocolError(f"{self.folder} lacks {', '.join(missing)}, which the manifest names.")

    def index(self) -> ImageIndex:
        """Read `index.json`; a folder without one holds no image."""
        path = self.folder / _INDEX
        try:
            return parse_index(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return ImageIndex(())
        except InvalidImage as error:
            raise ProtocolError(f"{path}: {error}") from error

    def entry(self, ref: Reference) -> Descriptor:
        """Find the image of the tag, or, without one, the only image; raises NotFound."""
        index = self.index()
        named = {
            entry.annotations.get(ANNOTATION_TAG, ""): entry
            for entry in index.manifests
            if entry.artifact_type is None
        }
        tags = ", ".join(sorted(filter(None, named))) or "none"
        if ref.tag:
            if ref.tag not in named:
                raise NotFound(f"{self.folder} holds no image {ref.tag!r}; it holds: {tags}.")
            return named[ref.tag]
        if not named:
            raise NotFound(f"{self.folder} holds no image.")
        if len({entry.digest for entry in named.values()}) > 1:
            raise NotFound(
                f"{self.folder} holds several images: write oci:{self.folder}:TAG with one of {tags}."
            )
        return next(iter(named.values()))

    def change_index(self, change: Callable[[ImageIndex], ImageIndex]) -> None:
        """Replace `index.json` by what `change` makes of it; all writers take turns. Blocking."""
        self.prepare()
        with (self.folder / _MARKER).open("rb") as marker:
            fcntl.flock(marker, fcntl.LOCK_EX)
            index = change(self.index())
            with _replacing(self.folder / _INDEX, self.folder) as out:
                out(make_index(index.manifests, index.annotations))


def _with_tag(index: ImageIndex, entry: Descriptor, tag: str, content: _Content) -> ImageIndex:
    """List an image under a tag; the tags that its platforms had meanwhile are not needed in a folder."""
    inside = {part.digest for part in content.parts}
    kept = [
        other
        for other in index.manifests
        if other.annotations.get(ANNOTATION_TAG) != tag
        and not (other.digest in inside and other.annotations.get(ANNOTATION_TAG, "").startswith(f"{tag}-"))
    ]
    return replace(index, manifests=(*kept, entry))


def _with_referrer(index: ImageIndex, entry: Descriptor) -> ImageIndex:
    known = any(other.digest == entry.digest for other in index.manifests)
    return index if known else replace(index, manifests=(*index.manifests, entry))


def _parse_index(ref: Reference, body: bytes) -> ImageIndex:
    try:
        return parse_index(body)
    except InvalidImage as error:
        raise ProtocolError(f"{ref.name}: {error}") from error


@contextmanager
def _replacing(path: Path, folder: Path) -> Iterator[Callable[[bytes], object]]:
    """Write a file in full before it gets its name."""
    partial = folder / f"{PARTIAL}{secrets.token_hex(8)}"
    try:
        with partial.open("xb") as out:
            yield out.write
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()
