"""Uploading one blob: mount, or POST → PATCH … → PUT with resumption.

Source: OCI distribution specification 1.1, "Pushing blobs", "Pushing a blob in chunks" and "Resuming".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from yarl import URL

from .bodies import BlobSource, Outgoing
from .descriptor import Descriptor
from .errors import DigestMismatch, NotFound, ProtocolError, RegistryError, RegistryUnavailable
from .reference import Reference
from .transport import Answer, Request, Transport

CHUNK_BYTES = 64 * 1024 * 1024
"""How much one PATCH carries: what a broken link costs at most, and less than common proxies allow."""

_SMALL_BYTES = 64 * 1024
_MONOLITHIC_BYTES = 1024 * 1024
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")
_OUT_OF_STEP = 416
"""Range Not Satisfiable: the registry has another number of bytes than we think."""


@dataclass(frozen=True)
class _Session:
    """An upload in progress: where to continue, how many bytes the registry has, how many to send at once."""

    location: URL
    scopes: tuple[str, ...]
    chunk: int
    offset: int = 0


class Uploader:
    """Uploads blobs through a transport; every method is safe to repeat.

    `hosts` (`host[:port]`) may take uploads besides the registry itself, which then get no credentials.
    """

    def __init__(
        self, transport: Transport, *, hosts: Collection[str] = (), chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._transport = transport
        self._hosts = frozenset(hosts)
        self._chunk_bytes = chunk_bytes

    async def upload(
        self, reference: Reference, source: BlobSource, descriptor: Descriptor, *, mount_from: str | None
    ) -> None:
        """Bring the blob into the reference's repository; a broken upload continues where the registry says.

        Raises DigestMismatch when the registry stored something else, ProtocolError when it refuses the
        content.
        """
        if mount_from is not None and mount_from != reference.repository:
            session = await self._mount(reference, descriptor, mount_from)
        else:
            session = await self._begin(reference)
        if session is None:
            return
        content = Outgoing(source, descriptor.size)
        try:
            await self._send_until_stored(reference, content, descriptor, session)
        finally:
            await content.close()

    async def _mount(self, reference: Reference, descriptor: Descriptor, origin: str) -> _Session | None:
        """Have the registry take the blob from another repository; None means that it did.

        One that cannot answers 202 and has begun an upload. Some answer 4xx where the blob is not there or
        the credentials do not reach it: that is no reason not to upload it.
        """
        url = self._transport.url(reference, "blobs/uploads/")
        url = url.update_query({"mount": descriptor.digest, "from": origin})
        scopes = (*push_scopes(reference), f"repository:{origin}:pull")
        request = Request("POST", url, reference, scopes, {"Content-Length": "0"})
        try:
            status, headers, _ = await self._transport.read(request, {201, 202}, max_bytes=_SMALL_BYTES)
        except RegistryError as error:
            if error.retryable:
                raise
            return await self._begin(reference)
        if status == 201:
            check_stored(headers, descriptor.digest)
            return None
        return self._session(url, headers, scopes)

    async def _begin(self, reference: Reference) -> _Session:
        url = self._transport.url(reference, "blobs/uploads/")
        scopes = push_scopes(reference)
        request = Request("POST", url, reference, scopes, {"Content-Length": "0"})
        _, headers, _ = await self._transport.read(request, {202}, max_bytes=_SMALL_BYTES)
        return self._session(url, headers, scopes)

    def _session(self, url: URL, headers: Mapping[str, str], scopes: tuple[str, ...]) -> _Session:
        wanted = headers.get("OCI-Chunk-Min-Length", "")
        least = int(wanted) if wanted.isascii() and wanted.isdigit() and len(wanted) < 12 else 0
        return _Session(self._location(url, headers), scopes, max(self._chunk_bytes, least))

    async def _send_until_stored(
        self, reference: Reference, content: Outgoing, descriptor: Descriptor, session: _Session
    ) -> None:
        attempt, furthest = 1, 0
        while True:
            try:
                session = await self._send_chunks(reference, content, session)
                await self._close(reference, content, descriptor, session)
            except _ChunksRefused:
                session = replace(await self._begin(reference), chunk=content.size)
                continue
            except _Interrupted as interrupted:
                session, failure = interrupted.session, interrupted.failure
            except (RegistryUnavailable, NotFound) as error:  # not found: the registry forgot the upload
                failure = error
            else:
                return
            attempt = 2 if session.offset > furthest else attempt + 1
            furthest = max(furthest, session.offset)
            await self._transport.wait_before(attempt, failure)
            session = await self._resume(reference, content, session)

    async def _send_chunks(self, reference: Reference, content: Outgoing, session: _Session) -> _Session:
        """Send what the registry lacks but for what goes with the closing PUT.

        A small blob goes with the PUT alone; a larger one in a PATCH, the form that every registry takes; one
        above the size of a chunk in several, in order. Each is sent once: afterwards only the registry knows
        how much it has. Raises _Interrupted with the state of the upload when one of them broke, and
        _ChunksRefused for a registry that takes a blob only in one piece.
        """
        if session.offset == 0 and content.size <= _MONOLITHIC_BYTES:
            return session
        while session.offset < content.size:
            try:
                session = await self._send_chunk(reference, content, session)
            except (RegistryUnavailable, NotFound) as error:
                raise _Interrupted(session, error) from error
            except ProtocolError as error:
                if session.chunk >= content.size:
                    raise
                raise _ChunksRefused from error
        return session

    async def _send_chunk(self, reference: Reference, content: Outgoing, session: _Session) -> _Session:
        size = min(session.chunk, content.size - session.offset)
        end = session.offset + size
        # A blob in one piece goes without a range, as common clients send it.
        headers = {} if size == content.size else {"Content-Range": f"{session.offset}-{end - 1}"}
        request = _upload_request("PATCH", session, reference, headers, content, size)
        answer = await self._once(request, content, {201, 202, 204, _OUT_OF_STEP})
        if answer.status == _OUT_OF_STEP:
            raise RegistryUnavailable(f"{reference.registry} has another part of the blob than was sent.")
        location = self._location(session.location, answer.headers)
        return replace(session, location=location, offset=_taken(answer.headers, session.offset, end))

    async def _close(
        self, reference: Reference, content: Outgoing, descriptor: Descriptor, session: _Session
    ) -> None:
        closing = replace(session, location=session.location.update_query({"digest": descriptor.digest}))
        request = _upload_request("PUT", closing, reference, {}, content, content.size - session.offset)
        answer = await self._once(request, content, {201, 202, 204})
        check_stored(answer.headers, descriptor.digest)

    async def _once(self, request: Request, content: Outgoing, accept: Collection[int]) -> Answer:
        content.failure = None
        try:
            return await self._transport.read_once(request, accept, max_bytes=_SMALL_BYTES)
        except RegistryUnavailable:
            if content.failure is not None:
                raise content.failure from None  # our side broke off, not the registry's
            raise

    async def _resume(self, reference: Reference, content: Outgoing, session: _Session) -> _Session:
        """Ask how far the upload came; begin anew when the registry lost it or cannot say."""
        request = Request("GET", session.location, reference, session.scopes)
        try:
            _, headers, _ = await self._transport.read(request, {200, 204}, max_bytes=_SMALL_BYTES)
        except RegistryError:
            return replace(await self._begin(reference), chunk=session.chunk)
        received = _RANGE.fullmatch(headers.get("Range", ""))
        offset = int(received[1]) + 1 if received else 0
        # `0-0` means one byte or none, depending on the registry: only a plausible larger range can be
        # trusted.
        if not 1 < offset <= content.size:
            return replace(await self._begin(reference), chunk=session.chunk)
        location = self._location(session.location, headers, default=session.location)
        return replace(session, location=location, offset=offset)

    def _location(self, url: URL, headers: Mapping[str, str], default: URL | None = None) -> URL:
        """Resolve the Location of an upload; one on another host would receive our content."""
        text = headers.get("Location")
        if not text:
            if default is not None:
                return default
            raise ProtocolError(f"{url.host} opened an upload without saying where.")
        location = url.join(URL(text, encoded=True))
        if location.origin() == url.origin():
            return location
        if url.scheme == "https" and location.scheme != "https":
            raise ProtocolError(
                f"{url.host} sends the upload from https to {location.scheme}, which is refused: have the "
                "proxy before the registry set X-Forwarded-Proto."
            )
        if location.host_port_subcomponent not in self._hosts:
            raise ProtocolError(
                f"{url.host} sends the upload to {location.host_port_subcomponent}, another host, which is "
                "refused: name it in `registries.allowedUploadHosts` if it belongs to the registry."
            )
        return location


class _Interrupted(Exception):  # noqa: N818 - reads as the fact it states
    """A chunk did not arrive for sure; carries what is known of the upload."""

    def __init__(self, session: _Session, failure: RegistryError) -> None:
        super().__init__(str(failure))
        self.session = session
        self.failure = failure


class _ChunksRefused(Exception):  # noqa: N818 - reads as the fact it states
    """The registry refused one of several chunks."""


def push_scopes(reference: Reference) -> tuple[str, ...]:
    """Return the token scopes that writing to the repository needs."""
    return (f"repository:{reference.repository}:pull,push",)


def check_stored(headers: Mapping[str, str], digest: str) -> None:
    """Compare the digest that the registry says it stored, if it says so."""
    stored = headers.get("Docker-Content-Digest")
    if stored is not None and stored != digest:
        raise DigestMismatch(f"The registry stored {stored} where {digest} was sent.")


def _taken(headers: Mapping[str, str], first: int, end: int) -> int:
    """Say how many bytes the registry has after a chunk; it may say that it took less than it was sent."""
    said = _RANGE.fullmatch(headers.get("Range", ""))
    offset = int(said[1]) + 1 if said else end
    return offset if first < offset < end and offset > 1 else end


def _upload_request(
    method: str,
    session: _Session,
    reference: Reference,
    headers: Mapping[str, str],
    content: Outgoing,
    size: int,
) -> Request:
    return Request(
        method,
        session.location,
        reference,
        session.scopes,
        {"Content-Type": "application/octet-stream", **headers},
        body=lambda: content.read(session.offset, size) if size else b"",
        size=size,
    )
