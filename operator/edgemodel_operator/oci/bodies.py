"""The bodies of requests and responses, each within the bounds that were promised."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path

import aiohttp

from .errors import DigestMismatch, RegistryError, TooLarge

PIECE_BYTES = 256 * 1024

BlobSource = Callable[[int], AsyncGenerator[bytes, None]]
"""Opens the content of a blob at a byte offset; called again for every attempt."""


async def read_capped(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body of at most `max_bytes`; a longer one raises TooLarge."""
    announced = response.content_length
    if announced is not None and announced > max_bytes:
        raise TooLarge(f"{response.url.host} announced {announced} bytes; the limit is {max_bytes}.")
    body = bytearray()
    async for piece in response.content.iter_chunked(PIECE_BYTES):
        body += piece
        if len(body) > max_bytes:
            raise TooLarge(f"{response.url.host} sent more than the limit of {max_bytes} bytes.")
    return bytes(body)


def local_source(source: bytes | Path) -> BlobSource:
    """Make a blob source of bytes in memory or a local file."""

    async def read(offset: int) -> AsyncGenerator[bytes, None]:
        with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as content:
            content.seek(offset)
            while piece := content.read(PIECE_BYTES):
                yield piece

    return read


class Outgoing:
    """The content of a blob on its way out: exactly `size` bytes, read in ranges.

    Ranges that follow each other are served by one opening of the source: one that comes over the network
    is not fetched anew for each. `failure` is why our side broke off, if it did: aiohttp reports an error of
    a body as a broken connection, which would be retried in vain.
    """

    def __init__(self, source: BlobSource, size: int) -> None:
        self.size = size
        self.failure: RegistryError | OSError | None = None
        self._source = source
        self._pieces: AsyncGenerator[bytes, None] | None = None
        self._position = 0
        self._rest = b""

    async def read(self, first: int, size: int) -> AsyncIterator[bytes]:
        """Yield `size` bytes from `first`; the very last byte only once it is known that nothing follows.

        Raises DigestMismatch for a source that ends before, TooLarge for one that goes on.
        """
        try:
            if self._pieces is None or self._position != first:
                await self._open(first)
            left = size
            while left:
                piece = await self._take(left)
                left -= len(piece)
                yield piece
        except (RegistryError, OSError) as error:
            self.failure = error
            raise

    async def close(self) -> None:
        """Give back what the source holds open."""
        if self._pieces is not None:
            await self._pieces.aclose()
            self._pieces = None

    async def _open(self, offset: int) -> None:
        await self.close()
        self._pieces, self._position, self._rest = self._source(offset), offset, b""

    async def _take(self, most: int) -> bytes:
        piece = self._rest or await self._next()
        if not piece:
            raise DigestMismatch(f"A blob's content ended after {self._position} of {self.size} bytes.")
        piece, self._rest = piece[:most], piece[most:]
        self._position += len(piece)
        if self._position == self.size and (self._rest or await self._next()):
            raise TooLarge("A blob's content is longer than its descriptor says.")
        return piece

    async def _next(self) -> bytes:
        """Give the next piece that is not empty; empty at the end."""
        if self._pieces is not None:
            async for piece in self._pieces:
                if piece:
                    return piece
        return b""
