"""Requests whose head was read before, byte for byte: they need no parser.

Clients say the same heads again and again. A head that the strict parser took as a whole, with its body's
length, means the same the next time, on any connection that is between two requests; so equal bytes,
followed by exactly as many bytes of body, are a request. Whatever differs in a single byte, or arrives in
other pieces, is the parser's.
"""

from collections.abc import Callable

from edgemodel_server.http.messages import Answerable, Request

_END = b"\r\n\r\n"
_MAX_HEADS = 512
_MAX_HEAD_BYTES = 2048
MAX_BODY_BYTES = 256 << 10
"""A longer body never arrives in one piece."""


class RepeatableHead:
    """A head that the parser has proved, and what it means.

    ``size`` is of the whole message, in bytes; ``route`` is set by whoever has found out.
    """

    __slots__ = ("_body_size", "_headers", "_length", "_method", "_path", "route", "size")

    def __init__(self, length: int, request: Request) -> None:
        self.size = length + request.size
        self.route: Callable[[Request], None] | None = None
        self._length = length
        self._method = request.method
        self._path = request.path
        self._headers = request.headers
        self._body_size = request.size

    def read(self, data: bytes, now: float, sender: Answerable) -> Request:
        """Return the request in ``data``, which begins with the head and has the size."""
        request = Request(sender, now)
        request.method = self._method
        request.path = self._path
        request.headers = self._headers
        request.route = self.route
        request.head_end = now
        request.size = self._body_size
        request.body = data[self._length :]
        return request


class ProvedHeads:
    """The heads that the connections of a server have seen."""

    def __init__(self) -> None:
        self._known: dict[bytes, RepeatableHead] = {}

    def find(self, data: bytes) -> RepeatableHead | None:
        """Return what is known of the head of a whole message; None if the parser must see it."""
        head = self._known.get(data[: data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)])
        return head if head is not None and head.size == len(data) else None

    def learn(self, data: bytes, request: Request) -> None:
        """Remember the head in ``data``, which was read as exactly one message, if it can be used again."""
        headers = request.headers
        if request.refusal is not None or request.http_1_0 or not request.keep_alive:
            return
        if request.method != b"POST" or b"content-length" not in headers or request.size > MAX_BODY_BYTES:
            return
        if b"expect" in headers or b"transfer-encoding" in headers:
            return
        length = data.find(_END, 0, _MAX_HEAD_BYTES) + len(_END)
        # The parser also takes line ends before and behind a message: then head and body are not all of it.
        if length < len(_END) or length + request.size != len(data):
            return
        if len(self._known) >= _MAX_HEADS:  # clients that never say the same twice
            self._known.clear()
        self._known[data[:length]] = RepeatableHead(length, request)
