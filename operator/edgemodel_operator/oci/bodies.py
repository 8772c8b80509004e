"""Reading response bodies within a limit."""

from __future__ import annotations

import aiohttp

from .errors import TooLarge

CHUNK_BYTES = 256 * 1024


async def read_capped(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    """Read a body of at most `max_bytes`; a longer one raises TooLarge."""
    announced = response.content_length
    if announced is not None and announced > max_bytes:
        raise TooLarge(f"{response.url.host} announced {announced} bytes; the limit is {max_bytes}.")
    body = bytearray()
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"{response.url.host} sent more than the limit of {max_bytes} bytes.")
    return bytes(body)
