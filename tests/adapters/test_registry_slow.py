"""The registry client when a registry answers, but so slowly that it never comes to an end."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from edgemodel_operator.oci import transport
from edgemodel_operator.oci.errors import RegistryUnavailable
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy, new_session


async def test_headers_that_drip_are_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"X: y\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        ended.set()

    ended = asyncio.Event()
    monkeypatch.setattr(transport, "_HEADERS_SECONDS", 0.1)
    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, new_session() as session:
        client = RegistryClient(session, plain_http={host}, retry=RetryPolicy(attempts=1))
        with pytest.raises(RegistryUnavailable, match="timed out"):
            await asyncio.wait_for(client.head_manifest(Reference(host, "line", "1")), 60)
        await asyncio.wait_for(ended.wait(), 60)
