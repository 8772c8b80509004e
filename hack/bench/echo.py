"""The ceiling of any server on uvloop: reads requests, computes nothing, answers with zeros.

`python -m bench.echo PORT`; a request for `/2560` is answered with 2560 bytes. The length of the
first request of a connection is taken for that of all, so this is no web server: it costs what the kernel and
the loop cost, and nothing more.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

from edgemodel_server.override import override

_REQUEST = re.compile(
    rb"POST /(\d+) .*?\r\ncontent-length: (\d+)(?=\r\n).*?\r\n\r\n", re.DOTALL | re.IGNORECASE
)


class _Echo(asyncio.Protocol):
    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._request_bytes = 0
        self._missing = 0
        self._answer = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - set first
        if not self._request_bytes:
            self._learn(data)
        self._missing -= len(data)
        if self._missing <= 0:
            self._missing = self._request_bytes
            self._transport.write(self._answer)

    def _learn(self, data: bytes) -> None:
        found = _REQUEST.match(data)
        if found is None:
            raise ValueError("the head of a request must arrive in one piece")
        self._request_bytes = self._missing = found.end() + int(found[2])
        self._answer = b"HTTP/1.1 200 OK\r\nContent-Length: %b\r\n\r\n" % found[1] + bytes(int(found[1]))


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
