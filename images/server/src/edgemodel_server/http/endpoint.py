"""All connections of a server together: limits, time-outs, and the way to an orderly end."""

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING

from edgemodel_server.access_log import AccessLog, Work
from edgemodel_server.http.access import CLIENT_GONE, log_response
from edgemodel_server.http.messages import HeadWriter, Limits, Request
from edgemodel_server.http.repeats import ProvedHeads

if TYPE_CHECKING:
    from edgemodel_server.http.connection import Connection

Handler = Callable[[Request], None]
"""Answers a request, at once or later, by ``request.answer``. It must not raise."""

_SWEEP_SECONDS = 1.0
_LOOK_AT_FIRST = 64


class Endpoint:
    """What the connections of one server share; lives on the loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Handler, limits: Limits) -> None:
        self.loop = loop
        self.handle = handle
        self.limits = limits
        self.heads = HeadWriter()
        self.proved_heads = ProvedHeads()
        self.connections: set[Connection] = set()
        self.crowded = 0
        """How many connections were opened when there were as many as may be."""
        self.draining = False
        self.access_log: AccessLog | None = None
        self.responses = {f"{first}xx": 0 for first in (2, 4, 5)}
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    def log_requests(self, log: AccessLog) -> None:
        """Have every request and what was done for it logged, from now on."""
        handle = self.handle

        def handle_tracked(request: Request) -> None:
            request.work = Work()
            handle(request)

        self.access_log = log
        self.handle = handle_tracked

    def start_sweeping(self) -> None:
        """Look after slow clients once a second, from now on: cheaper than a timer per request."""
        now = monotonic()
        for connection in tuple(self.connections):
            connection.enforce_deadline(now)
        self.heads.refresh()
        self._sweep_handle = self.loop.call_later(_SWEEP_SECONDS, self.start_sweeping)

    def stop_sweeping(self) -> None:
        """Stop looking after slow clients."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()

    def opened(self, connection: "Connection") -> None:
        """Take note of a new connection."""
        self.connections.add(connection)
        self._empty.clear()
        if len(self.connections) > self.limits.max_connections:
            self._make_room(connection)

    def _make_room(self, new: "Connection") -> None:
        """Close what has been idle for longest; where nothing is, leave the new connection to probes only."""
        self.crowded += 1
        few = islice(
            self.connections, _LOOK_AT_FIRST
        )  # a flood must not cost a look at all of them each time
        longest = _find_longest_idle(few, new) or _find_longest_idle(self.connections, new)
        if longest is not None:
            longest.close_if_idle()
            self.connections.discard(longest)  # it ends in a moment: the next one must not find it again
        elif len(self.connections) > self.limits.max_connections + self.limits.spare_connections:
            new.abort()
        else:
            new.probes_only = True

    def closed(self, connection: "Connection") -> None:
        """Forget a connection that ended."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def lost(self, request: Request, transport: asyncio.Transport | None) -> None:
        """Let whoever works on a request know that its client is gone."""
        tell = request.on_lost
        if tell is None:
            return
        request.on_lost = None  # it may lead back here, and the collector seldom runs
        tell()
        if self.access_log is not None:
            log_response(self.access_log, request, CLIENT_GONE, transport)

    def count(self, status: int) -> None:
        """Count a response by its class."""
        self.responses[f"{status // 100}xx"] += 1

    async def finish(self, seconds: float) -> int:
        """Close what is idle, let everything else be answered, and return how many connections had to be cut.

        Called when no new connection can come any more.
        """
        for connection in tuple(self.connections):
            connection.close_if_idle()
        if self.connections:
            self._empty.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        left = tuple(self.connections)
        for connection in left:
            connection.abort()
        return len(left)


def _find_longest_idle(among: "Iterable[Connection]", new: "Connection") -> "Connection | None":
    idle = [(since, one) for one in among if one is not new and (since := one.idle_since) is not None]
    return min(idle, key=lambda pair: pair[0])[1] if idle else None
