"""One client connection: strict parsing, one request in flight, answers in order, limits and deadlines.

The parser is llhttp, in its strict mode: conflicting lengths, bare line feeds and folded headers are refused.
A refusal is an answer like any other: it waits its turn behind the answers to earlier requests, and then the
connection ends.

Ending is done in two steps where the client may still be sending: our side is shut, and what arrives is read
and dropped for a while. Closing at once would make the kernel reset the connection, and the reset can destroy
the answer before the client has read it.
"""

import asyncio
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING, cast

import httptools

from edgemodel_server.http.access import log_response
from edgemodel_server.http.messages import Request, Response, error_response
from edgemodel_server.override import override

if TYPE_CHECKING:
    from edgemodel_server.http.endpoint import Endpoint

_SINGLE_HEADERS = frozenset({
    b"content-encoding", b"content-length", b"content-type", b"expect", b"host",
    b"inference-header-content-length", b"transfer-encoding",
})  # fmt: skip
"""Given twice they leave doubt about the request: it is refused."""

_LIST_HEADERS = frozenset({b"accept", b"traceparent", b"tracestate"})
"""Given twice they are one list, as RFC 9110 has it."""

_KEPT_HEADERS = _SINGLE_HEADERS | _LIST_HEADERS
_HEALTH = b"/v2/health/"
_CLOSE = b"Connection: close\r\n"
_KEEP_ALIVE = b"Connection: keep-alive\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_JOIN_BELOW_BYTES = 64 << 10
"""Smaller answers are copied into one buffer: cheaper than handing the kernel a list."""


class _RefusedError(Exception):
    """Stops the parser: what it was reading is answered with ``response``, and nothing more is read."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.response = error_response(status, message)


def _head_too_large(limit: int) -> _RefusedError:
    return _RefusedError(431, f"the request line and headers are larger than {limit} bytes")


def _require_plain_body(request: Request, max_body_bytes: int) -> None:
    """Refuse a head that leaves doubt about where the body ends, and a body that is encoded."""
    headers = request.headers
    if b"host" not in headers and not request.http_1_0:
        raise _RefusedError(400, "an HTTP/1.1 request needs a Host header")
    coding = headers.get(b"transfer-encoding")
    if coding is not None and request.http_1_0:
        raise _RefusedError(400, "HTTP/1.0 knows no Transfer-Encoding")
    if coding is not None and coding.lower() != b"chunked":
        raise _RefusedError(501, "the only supported Transfer-Encoding is chunked")
    if int(headers.get(b"content-length", b"0")) > max_body_bytes:
        raise _RefusedError(413, f"the body is larger than {max_body_bytes} bytes")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise _RefusedError(415, "a compressed body is not supported: send it with Content-Encoding identity")


class Connection(asyncio.Protocol):
    """The state of one connection; all methods run on the loop's thread."""

    def __init__(self, endpoint: "Endpoint") -> None:
        self._endpoint = endpoint
        self._limits = endpoint.limits
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._incoming: Request | None = None  # being parsed
        self._waiting: deque[Request] = deque()  # parsed, not begun
        self._current: Request | None = None  # begun, not answered
        self._head_bytes = 0  # reported by the parser
        self._held_bytes = 0  # fed to the parser behind the last read in which it came on
        self._came_on = False  # in the present read: to a new head, its end, or a piece of a body
        self._since = monotonic()  # when the present wait of the client began
        self._owes_continue = False
        self._reading = True
        self._writable = True
        self._last = False  # no request after those that are known
        self._peer_done = False  # the client sent its end
        self._lingering = False
        self._advancing = False
        self.probes_only = False  # there is room for one question after our health, and for nothing else

    # -- transport callbacks ---------------------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._endpoint.opened(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End; answers that are still being computed go nowhere."""
        if self._current is not None:
            self._endpoint.lost(self._current, self._transport)
        self._transport = self._incoming = self._current = None
        self._waiting.clear()
        del self._parser  # it holds this connection
        self._endpoint.closed(self)

    @override
    def data_received(self, data: bytes) -> None:
        """Parse what came and begin what became complete."""
        head = self._endpoint.proved_heads.find(data) if self._idle and not self.probes_only else None
        if head is not None:
            request = self._current = head.read(data, monotonic(), self)
            self._endpoint.handle(request)
            head.route = request.route
        elif not self._last:
            self._parse(data)

    @property
    def _idle(self) -> bool:
        """Whether the next byte begins a request, which could be answered at once."""
        busy = self._current or self._incoming or self._waiting or self._last
        return not busy and self._writable

    def _parse(self, data: bytes) -> None:
        idle = self._idle
        try:
            self._parser.feed_data(data)
            self._bound_held_bytes(len(data))
        except httptools.HttpParserUpgrade:
            self._last = True  # the request itself is complete; it is answered in HTTP/1.1, and that is all
            self._waiting[-1].keep_alive = False
        except httptools.HttpParserCallbackError as error:
            refusal = error.__context__
            if not isinstance(refusal, _RefusedError):
                raise
            self._refuse(refusal)
        except _RefusedError as refusal:
            self._refuse(refusal)
        except httptools.HttpParserError as error:
            if not self._last:  # else it is what stands behind the last request: none of our business
                self._refuse(_RefusedError(400, f"malformed HTTP: {error}"))
        if idle and self._incoming is None and len(self._waiting) == 1:
            self._endpoint.proved_heads.learn(data, self._waiting[0])
        self._advance()

    @override
    def eof_received(self) -> bool:
        """Go on answering a client that only stopped sending; drop a request that can never be complete."""
        self._last = True
        self._peer_done = True
        self._incoming = None
        return not self._lingering and (self._current is not None or bool(self._waiting))

    @override
    def pause_writing(self) -> None:
        """Begin nothing new while the client does not read."""
        self._writable = False
        self._since = monotonic()

    @override
    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._since = monotonic()
        self._advance()

    # -- parser callbacks ------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Start a request."""
        self._incoming = Request(self, monotonic())
        self._head_bytes = 0
        self._came_on = True

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._parsing.path += url
        self._add_head_bytes(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter; those behind a chunked body (trailers) never do."""
        self._add_head_bytes(len(name) + len(value) + 4)
        request = self._parsing
        key = name.lower()
        if request.head_end is not None or key not in _KEPT_HEADERS:
            return
        before = request.headers.get(key)
        if before is not None:
            if key in _SINGLE_HEADERS:
                raise _RefusedError(400, f"the header {key.decode()} is given twice")
            value = before + b", " + value
        request.headers[key] = value

    def on_headers_complete(self) -> None:
        """Refuse what can be refused before the body, or ask for the body where the client waits for that."""
        request = self._parsing
        request.head_end = monotonic()
        self._head_bytes = 0
        self._came_on = True
        request.method = self._parser.get_method()
        version = self._parser.get_http_version()
        request.http_1_0 = version == "1.0"
        if version not in ("1.0", "1.1"):
            raise _RefusedError(505, "the supported versions are HTTP/1.0 and HTTP/1.1")
        if self.probes_only and not request.path.startswith(_HEALTH):
            raise _RefusedError(503, "too many connections are open: use fewer, or try again")
        _require_plain_body(request, self._limits.max_body_bytes)
        expect = request.headers.get(b"expect")
        if expect is None or request.http_1_0:
            return
        if expect.lower() != b"100-continue":
            raise _RefusedError(417, "the only supported expectation is 100-continue")
        self._owes_continue = True

    def on_body(self, chunk: bytes) -> None:
        """Take a piece of the body."""
        request = self._parsing
        request.size += len(chunk)
        if request.size > self._limits.max_body_bytes:
            raise _RefusedError(413, f"the body is larger than {self._limits.max_body_bytes} bytes")
        request.chunks.append(chunk)
        self._owes_continue = False
        self._came_on = True

    def on_message_complete(self) -> None:
        """Queue the request."""
        request = self._parsing
        request.received = monotonic()
        request.keep_alive = self._parser.should_keep_alive()
        chunks = request.chunks
        request.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._last = self._last or not request.keep_alive
        self._incoming = None
        self._owes_continue = False
        self._waiting.append(request)

    @property
    def _parsing(self) -> Request:
        if self._incoming is None:
            raise _RefusedError(400, "malformed HTTP")
        return self._incoming

    def _add_head_bytes(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.max_head_bytes:
            raise _head_too_large(self._limits.max_head_bytes)

    def _bound_held_bytes(self, fed: int) -> None:
        """Count what the parser may hold back: it reports a header, or a trailer, when its line has ended."""
        if self._incoming is None:
            return
        if self._came_on:  # this read may hold the end of a body, too: one read is bounded by itself
            self._came_on = False
            self._held_bytes = 0
            return
        self._held_bytes += fed
        if self._held_bytes > self._limits.max_head_bytes:
            raise _head_too_large(self._limits.max_head_bytes)

    # -- answering -------------------------------------------------------------------------------------------

    def _refuse(self, refusal: _RefusedError) -> None:
        request = self._incoming or Request(self, monotonic())
        request.refusal = refusal.response
        request.keep_alive = False
        self._incoming = None
        self._owes_continue = False
        self._last = True
        self._waiting.append(request)

    def _advance(self) -> None:
        """Begin waiting requests, one at a time; then read on, or not, as the queue demands."""
        if self._advancing:  # an answer that came at once: the loop below goes on
            return
        self._advancing = True
        while self._waiting and self._current is None and self._writable and self._transport is not None:
            request = self._current = self._waiting.popleft()
            if request.refusal is not None:
                self.answer(request, request.refusal)
            else:
                self._endpoint.handle(request)
        self._advancing = False
        if self._transport is None or self._lingering:
            return
        busy = self._current is not None or not self._writable
        if self._owes_continue and not busy:
            self._owes_continue = False
            self._transport.write(_CONTINUE)
        self._set_reading(not self._last and not (busy and self._waiting))

    def _set_reading(self, wanted: bool) -> None:
        """Stop reading only behind pipelined requests: else the end of the connection would go unnoticed."""
        if self._transport is None or wanted == self._reading or self._last:
            return
        self._reading = wanted
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()

    def answer(self, request: Request, response: Response) -> None:
        """Send the response to the current request; see ``messages.Answerable``."""
        self._endpoint.count(response.status)
        if self._endpoint.access_log is not None:
            log_response(self._endpoint.access_log, request, response, self._transport)
        transport = self._transport
        if transport is None or transport.is_closing() or request is not self._current:
            return
        self._current = None
        leaves = self._endpoint.draining or self.probes_only
        ends = self._last or (leaves and self._incoming is None)
        close = ends and not self._waiting
        connection = _CLOSE if close else _KEEP_ALIVE if request.http_1_0 else b""
        self._write(transport, request, response, connection)
        self._since = monotonic()
        if close:
            self._end(transport, polite=request.keep_alive or request.refusal is not None)
        elif self._waiting or self._owes_continue or not self._reading:
            self._advance()

    def _write(
        self, transport: asyncio.Transport, request: Request, response: Response, connection: bytes
    ) -> None:
        head = self._endpoint.heads.render(response, connection)
        if request.method == b"HEAD":
            transport.write(head)
        elif response.size < _JOIN_BELOW_BYTES:
            transport.write(b"".join((head, *response.parts)))
        else:
            transport.writelines((head, *response.parts))

    # -- ending ----------------------------------------------------------------------------------------------

    def _end(self, transport: asyncio.Transport, *, polite: bool) -> None:
        """Close; ``polite`` where the client did not ask for it and may be sending."""
        self._last = True
        if self._peer_done or not polite:
            transport.close()
            return
        if not self._reading:
            self._reading = True
            transport.resume_reading()  # to see the client's own end, and to drop what comes before it
        self._lingering = True
        transport.write_eof()

    @property
    def idle_since(self) -> float | None:
        """Since when (monotonic) nothing has been under way; None while a request is, in any state."""
        busy = self._incoming or self._current or self._waiting or self._lingering
        gone = self._transport is None or self._transport.is_closing()
        return None if busy or gone else self._since

    def close_if_idle(self) -> None:
        """Close unless a request is under way in any state."""
        if self._transport is not None and self.idle_since is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def enforce_deadline(self, now: float) -> None:
        """End the connection if its client took too long for what it is at."""
        transport, limits, request = self._transport, self._limits, self._incoming
        if transport is None:
            return
        if self._lingering or transport.is_closing() or not self._writable:
            unsent = transport.get_write_buffer_size() / limits.min_bytes_per_second
            grace = limits.linger_seconds if self._lingering else limits.head_seconds
            if now > self._since + grace + unsent:
                transport.abort()
        elif self._current is not None or self._waiting:
            return  # it is our turn, not the client's
        elif request is None:
            if now > self._since + limits.idle_seconds:
                transport.close()
        elif (
            now
            > max(request.started, self._since)
            + limits.head_seconds
            + request.size / limits.min_bytes_per_second
        ):
            self._refuse(_RefusedError(408, "the request did not arrive in time"))
            self._advance()
