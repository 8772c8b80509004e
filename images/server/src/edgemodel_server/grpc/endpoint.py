"""All gRPC connections of a server together: the sweep over slow clients, and the way to an orderly end."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from edgemodel_server.grpc.connection import Connection
from edgemodel_server.grpc.rpc import Desk, Method
from edgemodel_server.grpc.switchboard import Switchboard
from edgemodel_server.http.messages import Limits

_SWEEP_SECONDS = 1.0
_LAST_LOOKS_SECONDS = 0.02


class Endpoint:
    """What the connections share; lives on the loop's thread.

    ``on_sweep`` is called about once a second: the place for what has to be noticed, but not at once.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        methods: Sequence[Method],
        limits: Limits,
        on_sweep: Callable[[], None],
    ) -> None:
        self.limits = limits
        self.desk = Desk(limits, loop.call_later)
        self.switchboard = Switchboard(methods, self.desk)
        self.connections: set[Connection] = set()
        self._loop = loop
        self._on_sweep = on_sweep
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    def start_sweeping(self) -> None:
        """Look after slow clients, and whatever else changes slowly, from now on."""
        now = monotonic()
        for connection in tuple(self.connections):
            connection.sweep(now)
        self._on_sweep()
        self._sweep_handle = self._loop.call_later(_SWEEP_SECONDS, self.start_sweeping)

    def stop_sweeping(self) -> None:
        """Stop looking."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()

    def opened(self, connection: Connection) -> None:
        """Take note of a new connection."""
        self.connections.add(connection)
        self._empty.clear()
        if len(self.connections) > self.limits.max_connections:
            connection.abort()  # to its client the server is unavailable, which it may try again

    def closed(self, connection: Connection) -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    async def finish(self, seconds: float) -> int:
        """Send every client away, let their calls be answered, and return how many had to be cut.

        Called when no new connection can come any more.
        """
        for connection in tuple(self.connections):
            connection.go_away()
        end = monotonic() + seconds
        while self.connections and monotonic() < end:
            self._empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), _LAST_LOOKS_SECONDS)
            for connection in tuple(self.connections):
                connection.close_if_gone()
        left = tuple(self.connections)
        for connection in left:
            connection.abort()
        return len(left)
