"""An asyncio client for OCI registries (distribution specification 1.1).

Every byte read is hashed and compared before it is returned, every write is checked against the digest that
the registry says it stored. How requests are sent (TLS, credentials, retries) is `transport`'s business.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from .auth import Credential
from .bodies import PIECE_BYTES, BlobSource, local_source
from .descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    Descriptor,
    InvalidDescriptor,
    sha256_digest,
)
from .errors import DigestMismatch, NotFound, ProtocolError, RegistryUnavailable, TooLarge
from .image import MAX_CHILDREN, ImageIndex, InvalidImage, make_index, parse_index
from .locks import KeyedLocks
from .reference import Reference, is_digest
from .transport import Request, RetryPolicy, Transport
from .upload import CHUNK_BYTES, Uploader, check_stored, push_scopes

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""The size every registry must accept and no client needs to exceed (distribution specification)."""

_NO_REFERRERS_API = frozenset({400, 404, 405, 406, 501})
_LIST_TYPES = frozenset({OCI_INDEX, "application/json"})
"""How lists of referrers are announced; the second by Harbor up to 2.9."""
_NO_LIST = "{} answers the question what is attached with a page of type {} and no list; try again later."
_ACCEPT = ", ".join(sorted(INDEX_TYPES | MANIFEST_TYPES))
_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60)


@dataclass(frozen=True)
class Manifest:
    """A manifest or index exactly as stored."""

    descriptor: Descriptor
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the body as a JSON object; raises ProtocolError if it is none."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"The manifest {self.descriptor.digest} is not JSON.") from error
        if not isinstance(document, dict):
            raise ProtocolError(f"The manifest {self.descriptor.digest} is not a JSON object.")
        return document


@dataclass(frozen=True)
class PutManifest:
    """What the registry said to a pushed manifest.

    `subject_acknowledged` means it will list the manifest as a referrer of its subject; if false, the pusher
    has to maintain the fallback tag (see `add_referrer_fallback`).
    """

    descriptor: Descriptor
    subject_acknowledged: bool


class RegistryClient:
    """Reads and writes manifests, blobs and referrers; safe for concurrent use in one event loop."""

    def __init__(  # noqa: PLR0913 - all but the session have a default
        self,
        session: aiohttp.ClientSession,
        *,
        credentials: Mapping[str, Credential] | None = None,
        plain_http: Collection[str] = (),
        retry: RetryPolicy | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
        upload_hosts: Collection[str] = (),
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        """Use the given session (see `transport.new_session`), which stays the caller's to close.

        `plain_http` names the registries (`host:port`) spoken to without TLS, `upload_hosts` the hosts
        besides the registry itself to which it may send uploads; `chunk_bytes` of a blob go at once.
        """
        self._transport = Transport(
            session,
            credentials=credentials or {},
            plain_http=plain_http,
            retry=retry or RetryPolicy(),
            timeout=timeout,
        )
        self._uploader = Uploader(self._transport, hosts=upload_hosts, chunk_bytes=chunk_bytes)
        self._locks = KeyedLocks()

    async def get_manifest(self, ref: Reference, *, max_bytes: int = MAX_MANIFEST_BYTES) -> Manifest:
        """Fetch the manifest or index that the reference's digest, or else its tag, names.

        Raises NotFound, DigestMismatch, TooLarge, or ProtocolError when its two statements of its own type
        differ.
        """
        request = self._pull("GET", ref, f"manifests/{ref.target}", {"Accept": _ACCEPT})
        _, headers, body = await self._transport.read(request, {200}, max_bytes=max_bytes)
        digest = sha256_digest(body)
        promised = ref.digest or headers.get("Docker-Content-Digest", digest)
        if digest != promised:
            raise DigestMismatch(f"{ref}: the manifest hashes to {digest}, not to {promised}.")
        manifest = Manifest(Descriptor(_content_type(headers), digest, len(body)), body)
        stated = manifest.json().get("mediaType", manifest.descriptor.media_type)
        if stated != manifest.descriptor.media_type:
            raise ProtocolError(
                f"{ref}: served as {manifest.descriptor.media_type}, but it calls itself {stated}."
            )
        return manifest

    async def head_manifest(self, ref: Reference) -> Descriptor | None:
        """Describe the manifest without reading it, None if it does not exist.

        For a tag the answer is the registry's word alone; content fetched by its digest is always checked.
        """
        request = self._pull("HEAD", ref, f"manifests/{ref.target}", {"Accept": _ACCEPT})
        async with self._transport.open(request, {200, 404}) as response:
            if response.status == 404:
                return None
            digest = response.headers.get("Docker-Content-Digest", ref.digest or "")
            length = response.headers.get("Content-Length", "")
            media_type = _content_type(response.headers)
        if not is_digest(digest) or not length.isdigit():
            return (await self.get_manifest(ref)).descriptor  # a registry that answers HEAD sparingly
        if ref.digest and digest != ref.digest:
            raise DigestMismatch(f"{ref}: the registry offers {digest} instead.")
        return Descriptor(media_type, digest, int(length))

    async def put_manifest(self, ref: Reference, body: bytes, media_type: str) -> PutManifest:
        """Store these exact bytes under the reference's tag, or under their digest when it has none.

        Push blobs before manifests, and children before indexes: registries refuse dangling manifests.
        """
        descriptor = Descriptor(media_type, sha256_digest(body), len(body))
        if ref.digest and ref.digest != descriptor.digest:
            raise DigestMismatch(f"{ref}: the manifest to push hashes to {descriptor.digest}.")
        target = ref.tag if ref.tag and not ref.digest else descriptor.digest
        request = Request(
            "PUT",
            self._transport.url(ref, f"manifests/{target}"),
            ref,
            push_scopes(ref),
            {"Content-Type": media_type},
            body=lambda: body,
        )
        _, headers, _ = await self._transport.read(request, {200, 201, 202}, max_bytes=64 * 1024)
        check_stored(headers, descriptor.digest)
        return PutManifest(descriptor, subject_acknowledged="OCI-Subject" in headers)

    async def delete_manifest(self, ref: Reference) -> bool:
        """Delete the manifest of the digest, or the tag; False if it was not there.

        Raises DeletionForbidden where the registry deletes nothing.
        """
        request = Request(
            "DELETE", self._transport.url(ref, f"manifests/{ref.target}"), ref, _delete_scopes(ref)
        )
        status, _, _ = await self._transport.read(request, {200, 202, 404}, max_bytes=64 * 1024)
        return status != 404

    async def get_blob(self, ref: Reference, digest: str, *, max_bytes: int) -> bytes:
        """Fetch a small blob into memory; raises TooLarge, NotFound, DigestMismatch."""
        request = self._pull("GET", ref, f"blobs/{_checked(digest)}")
        _, _, body = await self._transport.read(request, {200}, max_bytes=max_bytes)
        if sha256_digest(body) != digest:
            raise DigestMismatch(f"{ref.name}: the blob {digest} hashes to {sha256_digest(body)}.")
        return body

    async def open_blob(self, ref: Reference, descriptor: Descriptor) -> AsyncGenerator[bytes, None]:
        """Stream a blob of any size in chunks; a connection that breaks is resumed where it broke.

        The digest can only be compared after the last chunk: treat what was received as untrusted until the
        iteration ends without DigestMismatch. Never yields more than `descriptor.size` bytes.
        """
        digest, received, attempt = hashlib.sha256(), 0, 1
        while received < descriptor.size:
            try:
                async with aclosing(self._blob_from(ref, descriptor, received)) as chunks:
                    async for chunk in chunks:
                        digest.update(chunk)
                        received += len(chunk)
                        yield chunk
                        attempt = 1
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = RegistryUnavailable(
                    f"{ref.name}: {descriptor.digest} broke off at byte {received}."
                )
                failure.__cause__ = error
            else:
                break
            attempt += 1
            await self._transport.wait_before(attempt, failure)
        if f"sha256:{digest.hexdigest()}" != descriptor.digest:
            raise DigestMismatch(f"{ref.name}: the blob {descriptor.digest} hashes to {digest.hexdigest()}.")

    async def blob_exists(self, ref: Reference, digest: str) -> bool:
        """Tell whether the repository has the blob; raises (never answers False) when it cannot be known."""
        request = self._pull("HEAD", ref, f"blobs/{_checked(digest)}")
        async with self._transport.open(request, {200, 404}) as response:
            return response.status == 200

    async def put_blob(
        self,
        ref: Reference,
        source: bytes | Path | BlobSource,
        descriptor: Descriptor,
        *,
        mount_from: str | None = None,
    ) -> None:
        """Bring a blob into the repository: nothing if it is there, a mount if possible, else an upload.

        `mount_from` is a repository of the same registry that may hold the blob.
        """
        content = local_source(source) if isinstance(source, bytes | Path) else source
        # One at a time: besides saving the bytes, two uploads of one blob race in common registries' storage.
        async with self._locks.hold((ref.name, descriptor.digest)):
            if not await self.blob_exists(ref, descriptor.digest):
                await self._uploader.upload(ref, content, descriptor, mount_from=mount_from)

    async def list_referrers(
        self, ref: Reference, digest: str, *, max_referrers: int = 100
    ) -> tuple[Descriptor, ...]:
        """List the artifacts attached to a manifest (signatures, attestations, SBOMs).

        Asks the referrers API and, where a registry has none, the fallback tag `sha256-<hex>`. A registry
        that knows nothing of the API need not answer 404: some send whatever they do not know to a page for
        people, status 200. A proxy's maintenance page looks the same, so then the fallback tag decides only
        if there is one: else what is attached is not known, and that is no empty list.
        Raises TooLarge above `max_referrers`: a cut list would silently hide signatures. Raises ProtocolError
        for what is no list.
        """
        url: URL | None = self._transport.url(ref, f"referrers/{_checked(digest)}")
        found: list[Descriptor] = []
        while url is not None:
            request = Request("GET", url, ref, _pull_scopes(ref), {"Accept": OCI_INDEX})
            status, headers, body = await self._transport.read(
                request, {200, *_NO_REFERRERS_API}, max_bytes=MAX_MANIFEST_BYTES
            )
            if status != 200 or _content_type(headers) not in _LIST_TYPES:
                listed = await self._fallback_index(ref, digest)
                if listed is None and status == 200:
                    raise ProtocolError(_NO_LIST.format(ref.registry, _content_type(headers)), retryable=True)
                found = list(listed.manifests) if listed else []
                break
            found += _parse_referrers(ref, body).manifests
            if len(found) > max_referrers:
                break
            url = _next_page(url, headers)
        if len(found) > max_referrers:
            raise TooLarge(f"{ref.name}@{digest} has more than {max_referrers} referrers.")
        return tuple(found)

    async def add_referrer_fallback(
        self, ref: Reference, subject_digest: str, descriptor: Descriptor, *, attempts: int = 5
    ) -> None:
        """Add a referrer to the fallback tag's index, for registries without the referrers API.

        Registries offer no compare-and-swap on tags. Writers of this process take turns; after each write
        the index is read again and the write repeated if another process has replaced it meanwhile. Repeat
        the whole signing pass now and then: a writer that replaces it later still can not be seen here.
        """
        tag = ref.with_tag(fallback_tag(subject_digest))
        async with self._locks.hold(str(tag)):
            for _ in range(attempts):
                index = await self._fallback_index(ref, subject_digest) or ImageIndex(())
                if any(entry.digest == descriptor.digest for entry in index.manifests):
                    return
                body = make_index([*index.manifests, descriptor], index.annotations)
                await self.put_manifest(tag, body, OCI_INDEX)
        index = await self._fallback_index(ref, subject_digest) or ImageIndex(())
        if all(entry.digest != descriptor.digest for entry in index.manifests):
            raise RegistryUnavailable(f"Other writers keep replacing {tag}; try again later.")

    async def _fallback_index(self, ref: Reference, digest: str) -> ImageIndex | None:
        """Read what the fallback tag lists; None where there is no such tag."""
        try:
            manifest = await self.get_manifest(ref.with_tag(fallback_tag(digest)))
        except NotFound:
            return None
        if manifest.descriptor.digest == digest:
            # A registry that takes the tag for the digest itself: these are children, not referrers.
            return None
        return _parse_referrers(ref, manifest.body)

    async def _blob_from(
        self, ref: Reference, descriptor: Descriptor, offset: int
    ) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={offset}-{descriptor.size - 1}"} if offset else {}
        request = self._pull("GET", ref, f"blobs/{descriptor.digest}", headers)
        async with self._transport.open(request, {200, 206} if offset else {200}) as response:
            skip = offset if response.status == 200 else 0  # the server may ignore Range
            announced = response.content_length
            if announced is not None and announced != descriptor.size - offset + skip:
                raise DigestMismatch(f"{ref.name}: {descriptor.digest} comes with {announced} bytes.")
            remaining = descriptor.size - offset
            async for chunk in response.content.iter_chunked(PIECE_BYTES):
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                remaining -= len(fresh)
                if remaining < 0:
                    raise TooLarge(f"{ref.name}: {descriptor.digest} is longer than {descriptor.size} bytes.")
                if fresh:
                    yield fresh

    def _pull(
        self, method: str, ref: Reference, path: str, headers: Mapping[str, str] | None = None
    ) -> Request:
        return Request(method, self._transport.url(ref, path), ref, _pull_scopes(ref), headers or {})


def fallback_tag(digest: str) -> str:
    """Return the tag under which referrers of a digest are listed where the API is missing."""
    return _checked(digest).replace(":", "-")


def _checked(digest: str) -> str:
    if not is_digest(digest):
        raise InvalidDescriptor(f"{digest!r} is not a sha256 digest.")
    return quote(digest, safe=":")


def _pull_scopes(ref: Reference) -> tuple[str, ...]:
    return (f"repository:{ref.repository}:pull",)


def _delete_scopes(ref: Reference) -> tuple[str, ...]:
    return (f"repository:{ref.repository}:pull,push,delete",)


def _content_type(headers: Mapping[str, str]) -> str:
    return headers.get("Content-Type", "").partition(";")[0].strip() or "application/octet-stream"


def _parse_referrers(ref: Reference, body: bytes) -> ImageIndex:
    try:
        return parse_index(body)
    except InvalidImage as error:
        listed = _listed(body)
        if listed is None:  # how some servers write that there are none
            return ImageIndex(())
        if isinstance(listed, list) and len(listed) > MAX_CHILDREN:
            raise TooLarge(f"{ref.name}: the list of referrers has {len(listed)} entries.") from None
        raise ProtocolError(f"{ref.name}: the list of referrers is malformed. {error}") from error


def _listed(body: bytes) -> object:
    """Give the member `manifests` of something that is no index; False where there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return document.get("manifests", False) if isinstance(document, dict) else False


def _next_page(url: URL, headers: Mapping[str, str]) -> URL | None:
    """Follow an RFC 8288 `Link: <…>; rel="next"` on the same host only."""
    target, _, parameters = headers.get("Link", "").partition(">")
    if not target.startswith("<") or 'rel="next"' not in parameters:
        return None
    following = url.join(URL(target[1:], encoded=True))
    if following.origin() != url.origin():
        raise ProtocolError(
            f"{url.host} continues the list of referrers on {following.host}; that is refused."
        )
    return following
