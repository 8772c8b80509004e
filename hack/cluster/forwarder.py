"""The only bridge from the host to the cluster: loopback ports that lead into the cluster's network.

A socket belongs to the network namespace in which it was made. So this program first listens on the host's
loopback, then moves itself into the control plane's namespace for good, and dials from there.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import override

from cluster.namespaces import CONTROL_PLANE, enter_network
from cluster.places import SOURCES
from cluster.processes import Unit, start

PROGRAM = "forwarder"
_CHUNK = 256 * 1024


@dataclass(frozen=True)
class Route:
    """A port of the host's loopback and the address in the cluster that it leads to."""

    port: int
    host: str
    target_port: int

    @override
    def __str__(self) -> str:
        return f"{self.port}={self.host}:{self.target_port}"


def parse_route(text: str) -> Route:
    """Read `PORT=HOST:PORT`; raises ValueError for anything else."""
    port, _, target = text.partition("=")
    host, _, target_port = target.rpartition(":")
    return Route(int(port), host, int(target_port))


def start_forwarder(holder: int, routes: list[Route]) -> None:
    """Start the forwarder in the background."""
    argv = [sys.executable, "-m", "cluster.forwarder", str(holder), *(str(route) for route in routes)]
    start(Unit(CONTROL_PLANE, PROGRAM), argv, env={"PYTHONPATH": str(SOURCES.parent)})


def free_port(preferred: int) -> int:
    """Return the preferred port of the host's loopback, or any other free one when it is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise OSError("there is no free port on the loopback")


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy one direction to its end, then say so to the other side."""
    try:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def _forward(route: Route, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(route.host, route.target_port)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
    finally:
        for side in (writer, far_writer):
            side.close()


async def _serve(holder: int, routes: list[Route]) -> None:
    listeners = [(route, socket.create_server(("127.0.0.1", route.port), backlog=128)) for route in routes]
    enter_network(holder)
    servers = []
    for route, listener in listeners:

        async def accept(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, route: Route = route
        ) -> None:
            await _forward(route, reader, writer)

        servers.append(await asyncio.start_server(accept, sock=listener, limit=_CHUNK))
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Run `python -m cluster.forwarder HOLDER ROUTE...` until it is killed."""
    sys.stderr.write(f"{Path(__file__).stem}: {' '.join(sys.argv[2:])}\n")
    asyncio.run(_serve(int(sys.argv[1]), [parse_route(text) for text in sys.argv[2:]]))


if __name__ == "__main__":
    main()
