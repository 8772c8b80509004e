"""One call: from the head of its request to its status.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2). A call has one or several messages each way; the handler of its
method gets them one after the other and answers each before it gets the next.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from edgemodel_server.access_log import AccessLog, Entry, Work
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.header_block import Head
from edgemodel_server.grpc.messages import PREFIX_BYTES, Budget, MessageReader, add_prefix, check_prefix
from edgemodel_server.grpc.status import (
    HEAD,
    OK_TRAILERS,
    Code,
    RpcError,
    from_api_error,
    make_trailers,
    parse_timeout,
)
from edgemodel_server.grpc.stream import Receiver, Stream
from edgemodel_server.http.messages import Limits
from edgemodel_server.log import log_exception
from edgemodel_server.override import override
from edgemodel_server.trace import read_trace

Handler = Callable[["Rpc", bytes], None]
"""Answers one message, at once or later. It may raise ApiError or RpcError, which end the call."""

Later = Callable[[float, Callable[[], None]], "Timer"]


class Timer(Protocol):
    """What was asked for later."""

    def cancel(self) -> None:
        """Do not do it."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a service; ``path`` is ``/package.Service/Method``.

    ``streaming``: the client may send any number of messages, and has an answer to each.
    """

    path: str
    handle: Handler
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Client:
    """Who is at the other end of a connection, and what its unfinished messages may take."""

    peer: str
    budget: Budget


class Desk:
    """What all calls share: limits, time, numbers, log. ``later`` calls back after some seconds."""

    def __init__(self, limits: Limits, later: Later) -> None:
        self.limits = limits
        self.later = later
        self.ended: dict[str, list[int]] = {}
        """How many calls of each method, by its path, ended with each status."""
        self.access_log: AccessLog | None = None


_STOPPING = RpcError(Code.UNAVAILABLE, "the server was told to stop: connect again")


class Rpc(Receiver):
    """A call under way. ``received`` is when its request began, ``deadline`` until when the client waits.

    ``on_abandon``, where a handler sets it, is called once if the answer is not wanted any more.
    """

    __slots__ = (
        "_advancing", "_busy", "_bytes_before", "_client", "_desk", "_done", "_half_closed", "_head",
        "_head_sent", "_held_credit", "_last", "_reader", "_sent_bytes", "_since", "_timer", "deadline",
        "method", "on_abandon", "received", "stream", "work",
    )  # fmt: skip

    def __init__(self, desk: Desk, stream: Stream, method: Method, head: Head, client: Client) -> None:
        self._desk = desk
        self._client = client
        self._head = head
        self._reader: MessageReader | None = None
        self._busy = False  # the handler has a message
        self._advancing = False
        self._half_closed = False
        self._head_sent = False
        self._done = False
        self._last = False  # no message after the present one
        self._held_credit = 0
        self._sent_bytes = 0
        self._timer: Timer | None = None
        self.stream = stream
        self.method = method
        self.received = self._since = monotonic()
        self._bytes_before = 0  # the body's, when the present message began at _since
        self.deadline = math.inf
        self.on_abandon: Callable[[], None] | None = None
        self.work: Work | None = None
        """What the access log says of the work that was done."""

    def limit_time(self, timeout: bytes) -> None:
        """End the call when its client stops waiting."""
        try:
            seconds = parse_timeout(timeout)
        except RpcError as error:
            self.fail(error)
            return
        self.deadline = self.received + seconds
        self._timer = self._desk.later(seconds, self._expire)

    @property
    def logged(self) -> bool:
        """Whether there is an access log, and so a use for ``work``."""
        return self._desk.access_log is not None

    def hand_over_deadline(self) -> None:
        """Leave the deadline to the handler: the call itself watches it no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _expire(self) -> None:
        self.drop(RpcError(Code.DEADLINE_EXCEEDED, "the deadline of the call has passed"))

    # -- the request -----------------------------------------------------------------------------------------

    @override
    def take(self, chunk: bytes, *, end: bool) -> None:
        """Take a piece of the body."""
        if self._done:
            return
        try:
            self._take(chunk, end=end)
        except RpcError as error:
            self.drop(error)

    def _take(self, chunk: bytes, *, end: bool) -> None:
        self._half_closed = end
        limit = self._desk.limits.max_body_bytes
        reader = self._reader
        if reader is None:
            if end and len(chunk) >= PREFIX_BYTES and check_prefix(chunk, limit) == len(chunk) - PREFIX_BYTES:
                self._handle(chunk[PREFIX_BYTES:])  # the usual case: one message, one frame
                return
            reader = self._reader = MessageReader(limit, self._client.budget)
        if not reader.amid_message:
            self._since = monotonic()
            self._bytes_before = self.stream.received_bytes
        reader.feed(chunk)
        if self.method.streaming:
            self._held_credit += len(chunk)
            self._advance(reader)
        else:
            self._complete(reader)
            self.stream.credit(len(chunk))

    def _complete(self, reader: MessageReader) -> None:
        """Begin a call with one message when its request is complete."""
        if len(reader.complete) > 1:
            raise RpcError(Code.UNIMPLEMENTED, "this method takes one message")
        if not self._half_closed:
            return
        if reader.amid_message:
            raise RpcError(Code.INTERNAL, "the request ended within a message")
        if not reader.complete:
            raise RpcError(Code.UNIMPLEMENTED, "this method takes one message, and there was none")
        self._handle(reader.complete[0])

    def _advance(self, reader: MessageReader) -> None:
        """Give the next message to the handler, once it is done with the last one."""
        if self._advancing:  # it answered at once: the loop below goes on
            return
        self._advancing = True
        while reader.complete and not self._busy and not self._done:
            self._handle(reader.take())
        self._advancing = False
        if self._done or reader.complete:
            return
        self.stream.credit(self._held_credit)
        self._held_credit = 0
        if self._half_closed and reader.amid_message:
            self.drop(RpcError(Code.INTERNAL, "the request ended within a message"))
        elif self._half_closed and not self._busy:
            self.finish()

    def _handle(self, message: bytes) -> None:
        self._busy = True
        try:
            self.method.handle(self, message)
        except RpcError as error:
            self.fail(error)
        except ApiError as error:
            self.fail(from_api_error(error))
        except Exception:
            log_exception("call failed", method=self.method.path)
            self.fail(RpcError(Code.INTERNAL, "internal error: the server's log has the details"))

    # -- the answer ------------------------------------------------------------------------------------------

    def answer(self, message: bytes) -> None:
        """Answer the present message with another one."""
        if self._done:
            return
        if not self.method.streaming:
            size = self._sent_bytes = len(message)
            self._close(Code.OK)
            self.stream.send(HEAD, add_prefix(size) + message, OK_TRAILERS)
            return
        self.send(message)
        self._busy = False
        self.on_abandon = None
        if self._last:
            self.fail(_STOPPING)
        elif self._reader is not None:
            self._advance(self._reader)
        elif self._half_closed:
            self.finish()

    def send(self, message: bytes) -> None:
        """Send one of several messages."""
        if self._done:
            return
        head = None if self._head_sent else HEAD
        self._head_sent = True
        self._sent_bytes += len(message)
        self.stream.send(head, add_prefix(len(message)) + message, None)

    def finish(self) -> None:
        """End a streaming answer well."""
        self.fail(RpcError(Code.OK, ""))

    def fail(self, error: RpcError) -> None:
        """End the call with a status; its handler knows."""
        if self._done:
            return
        self._close(error.code)
        self.stream.send(None, b"", make_trailers(error.code, error.message, alone=not self._head_sent))

    def drop(self, error: RpcError) -> None:
        """End the call with a status, and let its handler know that nobody waits any more."""
        if not self._done:
            tell_handler = self.on_abandon
            self.fail(error)
            if tell_handler is not None:
                tell_handler()

    @override
    def abandon(self) -> None:
        """Stop: the client is gone."""
        if not self._done:
            tell_handler = self.on_abandon
            self._close(Code.CANCELLED)
            if tell_handler is not None:
                tell_handler()

    def _close(self, code: Code) -> None:
        self._done = True
        self.on_abandon = None  # it may lead back here, and the collector seldom runs
        if self._timer is not None:
            self._timer.cancel()
        if self._reader is not None:
            self._reader.close()
        desk = self._desk
        desk.ended[self.method.path][code] += 1
        log = desk.access_log
        if log is not None and log.wants(failed=code is not Code.OK):
            log.write(self._make_entry(code))

    def _make_entry(self, code: Code) -> Entry:
        """Return the call's line in the access log."""
        return Entry(
            protocol="grpc",
            method="POST",
            path=self.method.path,
            status=200,
            received=self.stream.received_bytes,
            sent=self._sent_bytes,
            seconds=monotonic() - self.received,
            peer=self._client.peer,
            grpc_status=code.value,
            trace=read_trace(self._head.fields),
            work=self.work,
        )

    @override
    def wind_down(self) -> None:
        """End a stream of messages between two of them: the server is about to end."""
        if self.method.streaming and not self._busy:
            self.drop(_STOPPING)
        self._last = True

    @override
    def enforce_deadline(self, now: float) -> None:
        """Refuse the request if its client takes too long to send a message that it has begun."""
        reader, limits = self._reader, self._desk.limits
        waiting = not self.method.streaming or (reader is not None and reader.amid_message)
        if self._done or self._half_closed or not waiting:
            return
        size = self.stream.received_bytes - self._bytes_before
        if now > self._since + limits.head_seconds + size / limits.min_bytes_per_second:
            self.drop(RpcError(Code.DEADLINE_EXCEEDED, "the request did not arrive in time"))
