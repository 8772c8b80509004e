"""A socket bound to the state machine of its HTTP/2 connection; slow and silent clients are noticed here."""

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, cast

from edgemodel_server.grpc.frames import ErrorCode
from edgemodel_server.grpc.http2 import Http2
from edgemodel_server.grpc.http2_limits import Http2Limits
from edgemodel_server.grpc.messages import Budget
from edgemodel_server.grpc.rpc import Client
from edgemodel_server.http.access import format_peer
from edgemodel_server.override import override

if TYPE_CHECKING:
    from edgemodel_server.grpc.endpoint import Endpoint

_HIGH_WATER_BYTES = 256 << 10
_NOT_HTTP2 = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n"
    b"this port speaks gRPC (HTTP/2 without TLS): REST is on the other one (--http-port)\n"
)
_HTTP1_METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")


class Connection(asyncio.Protocol):
    """One client; all methods run on the loop's thread."""

    def __init__(self, endpoint: "Endpoint") -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._client = Client("", Budget(0))
        self._transport: asyncio.Transport | None = None
        self._http2: Http2 | None = None
        self._opened = self._heard = self._blocked_since = monotonic()
        self._asked: float | None = None  # when the PING was sent that is not answered
        self._pings_answered = 0
        self._block_since: float | None = None
        self._ended: float | None = None  # when our side was shut

    # -- transport callbacks ---------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take note; our SETTINGS wait for the first bytes, which show whether this is HTTP/2."""
        self._transport = cast("asyncio.Transport", transport)
        self._client = Client(format_peer(transport), Budget(2 * self._limits.max_body_bytes))
        self._transport.set_write_buffer_limits(_HIGH_WATER_BYTES)
        self._endpoint.opened(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End; answers that are still being computed go nowhere."""
        self._transport = None
        if self._http2 is not None:
            self._http2.abandon()
        self._endpoint.closed(self)

    @override
    def data_received(self, data: bytes) -> None:
        """Let the state machine have what came."""
        transport = self._transport
        if transport is None or self._ended is not None:
            return
        self._heard = monotonic()
        http2 = self._http2
        if http2 is None:
            if data.startswith(_HTTP1_METHODS):
                transport.write(_NOT_HTTP2)
                self._linger(transport)
                return
            accept = partial(self._endpoint.switchboard.accept, client=self._client)
            limits = Http2Limits(max_head_bytes=self._limits.max_head_bytes)
            http2 = self._http2 = Http2(transport.write, accept, limits)
        http2.receive(data)
        if http2.ended or http2.idle_and_gone:
            self._linger(transport)

    def _linger(self, transport: asyncio.Transport) -> None:
        """Shut our side, and drop what comes: closing at once could destroy our last words on their way."""
        if self._http2 is not None:
            self._http2.abandon()
        if self._ended is None:
            self._ended = monotonic()
            transport.write_eof()

    @override
    def eof_received(self) -> None:
        """End: a client that cannot widen its windows any more cannot be answered."""
        if self._http2 is not None:
            self._http2.abandon()

    @override
    def pause_writing(self) -> None:
        """Keep DATA back while the client does not read."""
        self._blocked_since = monotonic()
        if self._http2 is not None:
            self._http2.outbox.writable = False

    @override
    def resume_writing(self) -> None:
        """Go on."""
        if self._http2 is not None:
            self._http2.outbox.writable = True
            self._http2.outbox.flush()

    # -- time ------------------------------------------------------------------------------------------------

    def sweep(self, now: float) -> None:
        """Notice, about once a second, what takes too long; forgive what floods over time."""
        http2, transport = self._http2, self._transport
        if transport is None:
            return
        if self._is_late(transport, now) or (http2 is not None and self._is_stuck(http2, now)):
            self.abort()
        elif http2 is not None and not http2.ended:
            http2.allowance.refill()
            self._sweep_streams(http2, now)
            self.close_if_gone()
            if now > self._heard + self._limits.idle_seconds:
                self._ask(http2, now)

    def _sweep_streams(self, http2: Http2, now: float) -> None:
        limits = self._limits
        for stream in tuple(http2.streams.values()):
            stream.receiver.enforce_deadline(now)
            unread = stream.queued_bytes
            if unread and now > stream.since + limits.head_seconds + unread / limits.min_bytes_per_second:
                http2.cut(stream, ErrorCode.CANCEL)

    def _is_late(self, transport: asyncio.Transport, now: float) -> bool:
        """Say whether the client does not begin, does not read, or does not close."""
        limits, http2 = self._limits, self._http2
        if self._ended is not None:
            return now > self._ended + limits.linger_seconds
        if http2 is None or not http2.settled:
            return now > self._opened + limits.head_seconds
        unsent = transport.get_write_buffer_size() / limits.min_bytes_per_second
        return not http2.outbox.writable and now > self._blocked_since + limits.head_seconds + unsent

    def _is_stuck(self, http2: Http2, now: float) -> bool:
        """Say whether the client leaves a header block open, or a PING without an answer."""
        if self._pings_answered != http2.pings_answered:
            self._pings_answered = http2.pings_answered
            self._asked = None
        if not http2.reader.amid_block:
            self._block_since = None
        elif self._block_since is None:
            self._block_since = now
        waits = (since for since in (self._block_since, self._asked) if since is not None)
        return any(now > since + self._limits.head_seconds for since in waits)

    def _ask(self, http2: Http2, now: float) -> None:
        """Send an idle client away; ask a silent one with streams whether it is still there."""
        if self._asked is not None or http2.ended:
            return
        self._asked = now
        if http2.streams:
            http2.ping()
        else:
            http2.go_away()

    # -- ending ----------------------------------------------------------------------------------------------

    def go_away(self) -> None:
        """Begin no more calls, finish those that are under way, and close."""
        http2, transport = self._http2, self._transport
        if http2 is not None and http2.settled:
            http2.go_away()
            for stream in tuple(http2.streams.values()):
                stream.receiver.wind_down()
        elif transport is not None:
            transport.close()

    def close_if_gone(self) -> None:
        """Close if nothing is under way and nothing will be."""
        if self._http2 is not None and self._http2.idle_and_gone and self._transport is not None:
            self._linger(self._transport)

    def abort(self) -> None:
        """Cut the connection."""
        if self._http2 is not None:
            self._http2.abandon()  # first: what is written to a transport that is cut raises an error
        if self._transport is not None:
            self._transport.abort()
