"""Requests as they were parsed, and responses with their head rendered to bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

import orjson

from edgemodel_server.access_log import Work

JSON = b"application/json"
BINARY = b"application/octet-stream"
TEXT = b"text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may cost, in bytes and seconds, and how many there may be.

    Beyond ``max_connections`` there is room for ``spare_connections`` that may only ask for the health: a
    liveness probe that is refused would have a busy server restarted.

    A request body may take ``head_seconds`` plus its size over ``min_bytes_per_second``; the same pace is
    asked of a client that reads an answer.
    """

    max_connections: int = 1024
    spare_connections: int = 32
    max_head_bytes: int = 16 << 10
    max_body_bytes: int = 64 << 20
    head_seconds: float = 10.0
    idle_seconds: float = 75.0
    min_bytes_per_second: int = 4 << 10
    linger_seconds: float = 2.0


class Response:
    """An answer: status, body in parts that are sent without being joined, and its own header lines.

    ``lines`` are status line and headers as ``render_lines`` gives them, where they were rendered before.
    """

    __slots__ = ("content_type", "headers", "lines", "parts", "size", "status")

    def __init__(
        self,
        status: int,
        parts: Sequence[bytes | memoryview] = (),
        content_type: bytes = JSON,
        headers: bytes = b"",
        lines: bytes | None = None,
    ) -> None:
        self.status = status
        self.parts = parts
        self.size = sum(map(len, parts))
        self.lines = lines
        self.content_type = content_type
        self.headers = headers  # complete lines, each with its line end


class Answerable(Protocol):
    """Whoever can send the response to a request."""

    def answer(self, request: "Request", response: Response) -> None:
        """Send ``response``, in the order of the requests."""


class Request:
    """One request, complete with its body. ``received`` is the monotonic time of its last byte."""

    __slots__ = (
        "body", "chunks", "head_end", "headers", "http_1_0", "keep_alive", "method", "on_lost",
        "path", "received", "refusal", "route", "sender", "size", "started", "work",
    )  # fmt: skip

    def __init__(self, sender: Answerable, started: float) -> None:
        self.sender = sender
        self.started = started
        self.method = b""
        self.path = b""
        self.headers: dict[bytes, bytes] = {}
        self.http_1_0 = False
        self.keep_alive = True
        self.chunks: list[bytes] = []
        self.size = 0
        self.body = b""
        self.received = started
        self.head_end: float | None = None
        self.refusal: Response | None = None
        self.route: Callable[[Request], None] | None = None  # who answers it, once that is known
        self.on_lost: Callable[[], None] | None = None  # called when the client goes away before the answer
        self.work: Work | None = None  # filled in where there is an access log

    def answer(self, response: Response) -> None:
        """Send the response to this request; exactly once, from the loop's thread."""
        self.sender.answer(self, response)


def json_response(status: int, document: object, headers: bytes = b"") -> Response:
    """Return a response with ``document`` as its JSON body."""
    return Response(status, (orjson.dumps(document),), JSON, headers)


def error_response(status: int, message: str, headers: bytes = b"") -> Response:
    """Return the protocol's error answer."""
    if status == 503:
        headers += b"Retry-After: 1\r\n"
    return json_response(status, {"error": message}, headers)


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}


class HeadWriter:
    """Renders response heads. The ``Date`` line is made once a second by whoever calls ``refresh``."""

    def __init__(self) -> None:
        self._date = b""
        self.refresh()

    def refresh(self) -> None:
        """Take over the current time of day."""
        self._date = f"Date: {formatdate(usegmt=True)}\r\n\r\n".encode()

    def render(self, response: Response, connection: bytes) -> bytes:
        """Return the head, with its empty line; ``connection`` is b"" or a whole header line."""
        return b"".join((response.lines or render_lines(response), connection, self._date))


def render_lines(response: Response) -> bytes:
    """Return the status line and the headers that depend on the response alone."""
    return b"".join((
        _STATUS_LINES[response.status],
        b"Content-Type: ", response.content_type,
        b"\r\nContent-Length: ", str(response.size).encode(), b"\r\n",
        response.headers,
    ))  # fmt: skip
