"""Uploading one blob: mount, or POST → PATCH → PUT with resumption.

Source: OCI distribution specification 1.1, "Pushing blobs" and "Resuming".
"""

from __future__ import annotations

import io
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from .bodies import CHUNK_BYTES
from .descriptor import Descriptor
from .errors import DigestMismatch, NotFound, ProtocolError, RegistryError, RegistryUnavailable, TooLarge
from .reference import Reference
from .transport import Answer, Request, Transport

BlobSource = Callable[[int], AsyncGenerator[bytes, None]]
"""Opens the content of a blob at a byte offset; called again for every attempt."""

_SMALL_BYTES = 64 * 1024
_MONOLITHIC_BYTES = 1024 * 1024
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")


@dataclass(frozen=True)
class _Session:
    """An upload in progress: where to continue, and how many bytes the registry has."""

    location: URL
    offset: int


def local_source(source: bytes | Path) -> BlobSource:
    """Make a blob source of bytes in memory or a local file."""

    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            content.seek(offset)
            while chunk := content.read(CHUNK_BYTES):
                yield chunk

    return read


class Uploader:
    """Uploads blobs through a transport; every method is safe to repeat."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def upload(
        self, reference: Reference, source: BlobSource, descriptor: Descriptor, *, mount_from: str | None
    ) -> None:
        """Bring the blob into the reference's repository; a broken upload continues where the registry says.

        Raises DigestMismatch when the registry stored something else, ProtocolError when it refuses the
        content.
        """
        session = await self._begin(reference, descriptor, mount_from)
        attempt = 1
        while session is not None:
            try:
                await self._send(reference, source, descriptor, session)
            except (RegistryUnavailable, NotFound) as error:  # not found: the registry forgot the upload
                failure = error
            else:
                return
            attempt += 1
            await self._transport.wait_before(attempt, failure)
            session = await self._resume(reference, descriptor, session)

    async def _begin(
        self, reference: Reference, descriptor: Descriptor, mount_from: str | None
    ) -> _Session | None:
        """Start an upload; None means that the registry mounted the blob and nothing is left to do."""
        url = self._transport.url(reference, "blobs/uploads/")
        scopes = push_scopes(reference)
        if mount_from is not None and mount_from != reference.repository:
            url = url.update_query({"mount": descriptor.digest, "from": mount_from})
            scopes = (*scopes, f"repository:{mount_from}:pull")
        request = Request("POST", url, reference, scopes, {"Content-Length": "0"})
        status, headers, _ = await self._transport.read(request, {201, 202}, max_bytes=_SMALL_BYTES)
        if status == 201:
            check_stored(headers, descriptor.digest)
            return None
        return _Session(_location(url, headers), 0)

    async def _send(
        self, reference: Reference, source: BlobSource, descriptor: Descriptor, session: _Session
    ) -> None:
        """Send what the registry lacks and close the upload; raises RegistryUnavailable when it broke.

        A small blob goes with the closing PUT; a large one in one PATCH of its own, the form that every
        registry takes and some can resume. Both are sent once: afterwards only the registry knows how much
        it has.
        """
        remaining = descriptor.size - session.offset
        if remaining > _MONOLITHIC_BYTES or session.offset:
            first, last = session.offset, descriptor.size - 1
            span = {"Content-Range": f"{first}-{last}"} if first else {}
            content = _Content(source, first, remaining)
            answer = await self._once("PATCH", session.location, reference, span, content)
            location, content = _location(session.location, answer.headers), _Content(source, 0, 0)
        else:
            location, content = session.location, _Content(source, 0, remaining)
        closing = location.update_query({"digest": descriptor.digest})
        answer = await self._once("PUT", closing, reference, {}, content)
        check_stored(answer.headers, descriptor.digest)

    async def _once(
        self, method: str, url: URL, reference: Reference, headers: Mapping[str, str], content: _Content
    ) -> Answer:
        binary = {"Content-Type": "application/octet-stream", **headers}
        request = Request(
            method, url, reference, push_scopes(reference), binary, body=content.open, size=content.size
        )
        try:
            return await self._transport.read_once(request, {201, 202, 204}, max_bytes=_SMALL_BYTES)
        except RegistryUnavailable:
            if content.failure is not None:
                raise content.failure from None  # our side broke off, not the registry's
            raise

    async def _resume(
        self, reference: Reference, descriptor: Descriptor, session: _Session
    ) -> _Session | None:
        """Ask how far the upload came; begin anew when the registry lost it or cannot say."""
        request = Request("GET", session.location, reference, push_scopes(reference))
        try:
            _, headers, _ = await self._transport.read(request, {204}, max_bytes=_SMALL_BYTES)
        except RegistryError:
            return await self._begin(reference, descriptor, None)
        received = _RANGE.fullmatch(headers.get("Range", ""))
        offset = int(received[1]) + 1 if received else 0
        # `0-0` means one byte or none, depending on the registry: only a plausible larger range can be
        # trusted.
        if not 1 < offset <= descriptor.size:
            return await self._begin(reference, descriptor, None)
        return _Session(_location(session.location, headers, default=session.location), offset)


def push_scopes(reference: Reference) -> tuple[str, ...]:
    """Return the token scopes that writing to the repository needs."""
    return (f"repository:{reference.repository}:pull,push",)


def check_stored(headers: Mapping[str, str], digest: str) -> None:
    """Compare the digest that the registry says it stored, if it says so."""
    stored = headers.get("Docker-Content-Digest")
    if stored is not None and stored != digest:
        raise DigestMismatch(f"The registry stored {stored} where {digest} was sent.")


def _location(url: URL, headers: Mapping[str, str], default: URL | None = None) -> URL:
    """Resolve the Location of an upload; one on another host would receive our content and token."""
    text = headers.get("Location")
    if not text:
        if default is not None:
            return default
        raise ProtocolError(f"{url.host} opened an upload without saying where.")
    location = url.join(URL(text, encoded=True))
    if location.origin() != url.origin():
        raise ProtocolError(
            f"{url.host} sends the upload to {location.host}, another origin; that is refused."
        )
    return location


class _Content:
    """A request body of exactly `size` bytes from `offset`; remembers why our side broke it off.

    aiohttp reports an error of the body as a broken connection, which would be retried in vain.
    """

    def __init__(self, source: BlobSource, offset: int, size: int) -> None:
        self.size = size
        self.failure: RegistryError | OSError | None = None
        self._source, self._offset = source, offset

    def open(self) -> bytes | AsyncIterator[bytes]:
        return self._checked() if self.size else b""

    async def _checked(self) -> AsyncIterator[bytes]:
        sent = 0
        try:
            async with aclosing(self._source(self._offset)) as chunks:
                async for chunk in chunks:
                    sent += len(chunk)
                    if sent > self.size:
                        raise TooLarge("A blob's content is longer than its descriptor says.")
                    yield chunk
            if sent != self.size:
                raise DigestMismatch(f"A blob's content ended after {sent} of {self.size} bytes.")
        except (RegistryError, OSError) as error:
            self.failure = error
            raise
