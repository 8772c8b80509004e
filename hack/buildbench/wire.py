"""A registry whose incoming bytes are counted, and a file server: both on the loopback address."""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from typing_extensions import override

from bench.asking import free_port
from bench.machine import BenchError

_CHUNK = 256 * 1024


class Counter:
    """Passes TCP connections on to a port, and counts what clients send."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self.sent = 0
        self._upstream = upstream

    @property
    def host(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self.port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Counter]:
        """Serve from a thread while the block lasts."""
        loop, stop = asyncio.new_event_loop(), asyncio.Event()
        ready = threading.Event()
        thread = threading.Thread(
            target=lambda: loop.run_until_complete(self._serve(ready, stop)), daemon=True
        )
        thread.start()
        ready.wait()
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.close()

    async def _serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        ready.set()
        await stop.wait()
        server.close()
        open_connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_connections:
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            above = await asyncio.open_connection("127.0.0.1", self._upstream, limit=_CHUNK)
        except OSError:
            writer.close()
            return
        pumps = [
            asyncio.create_task(self._pump(reader, above[1], counted=True)),
            asyncio.create_task(self._pump(above[0], writer)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            above[1].close()
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counted: bool = False
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                self.sent += len(chunk) if counted else 0
                writer.write(chunk)
                await writer.drain()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    @override
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def file_server(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP while the block lasts; gives the URL of the folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def wait_for_port(port: int, seconds: float = 20) -> None:
    """Wait until connections are accepted; raises BenchError."""
    pause = threading.Event()
    for _ in range(int(seconds / 0.05)):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        pause.wait(0.05)
    raise BenchError(f"nobody listens on port {port} after {seconds:.0f} s")
