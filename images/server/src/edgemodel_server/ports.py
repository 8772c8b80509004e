"""The ports of a server: REST always, gRPC where it is wanted; from their opening to an orderly end."""

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgemodel_server.access_log import AccessLog
from edgemodel_server.app import App
from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits
from edgemodel_server.log import log_error
from edgemodel_server.open_files import allow_connections
from edgemodel_server.server_metrics import add_http
from edgemodel_server.settings import Settings

if TYPE_CHECKING:
    from edgemodel_server.grpc.server import GrpcServer

_BACKLOG = 1024


class Ports:
    """Lives on the loop's thread. ``http_port`` and ``grpc_port`` are the real ones, once they are open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, app: App) -> None:
        self._loop = loop
        self._host = settings.host
        self._access_log = None if settings.access_log is None else AccessLog(loop, settings.access_log)
        limits = Limits(settings.max_connections, max_body_bytes=settings.max_body_bytes)
        self._http = Endpoint(loop, app.handle, limits)
        if self._access_log is not None:
            self._http.log_requests(self._access_log)
        app.add_metrics(lambda page: add_http(page, self._http))
        self._grpc = _make_grpc(loop, settings, app, limits, self._access_log)
        self._listeners: list[asyncio.Server] = []
        self.http_port = settings.http_port
        self.grpc_port = settings.grpc_port

    async def open(self) -> bool:
        """Begin to serve; False, with the reason in the log, where a port cannot be had."""
        allow_connections(self._http.limits.max_connections + self._http.limits.spare_connections)
        http_port = await self._listen(self.http_port, lambda: Connection(self._http))
        if http_port is None:
            return False
        self.http_port = http_port
        self._http.start_sweeping()
        if self._grpc is None or self.grpc_port is None:
            return True
        self.grpc_port = await self._listen(self.grpc_port, self._grpc.accept)
        if self.grpc_port is None:
            return False
        self._grpc.start_sweeping()
        return True

    async def _listen(self, port: int, accept: Callable[[], asyncio.Protocol]) -> int | None:
        try:
            listener = open_listener(self._host, port)
        except OSError as error:
            log_error("cannot listen", host=self._host, port=port, error=str(error))
            return None
        server = await self._loop.create_server(accept, sock=listener, backlog=_BACKLOG)
        self._listeners.append(server)
        return int(server.sockets[0].getsockname()[1])

    def announce_end(self) -> None:
        """Tell clients to connect anew, and those that watch the health that we are not ready any more."""
        self._http.draining = True
        if self._grpc is not None:
            self._grpc.announce_end()

    def stop_listening(self) -> None:
        """Take no more connections."""
        for listener in self._listeners:
            listener.close()

    async def finish(self, seconds: float) -> int:
        """Close what is idle, finish what is under way, and return how many connections had to be cut."""
        ends = [self._http.finish(seconds)]
        if self._grpc is not None:
            ends.append(self._grpc.finish(seconds))
        cut = sum(await asyncio.gather(*ends))
        self._http.stop_sweeping()
        if self._access_log is not None:
            self._access_log.flush()
        return cut


def _make_grpc(
    loop: asyncio.AbstractEventLoop,
    settings: Settings,
    app: App,
    limits: Limits,
    access_log: AccessLog | None,
) -> "GrpcServer | None":
    if settings.grpc_port is None:
        return None
    # What only gRPC needs (protobuf, HPACK) is loaded here: a server without this port does not pay for it.
    from edgemodel_server.grpc.server import GrpcServer  # noqa: PLC0415

    return GrpcServer(loop, app, limits, access_log)


def open_listener(host: str | None, port: int) -> socket.socket:
    """Return a listening socket; for host None on all addresses, IPv4 only where the machine has no IPv6."""
    if host is not None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    try:
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return socket.create_server(("", port), backlog=_BACKLOG)
