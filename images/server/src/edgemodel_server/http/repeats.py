"""Requests whose head was read before on the same connection, byte for byte: they need no parser.

Most clients say the same head again and again. A head that the strict parser took as a whole, with its
body's length, means the same the next time; so equal bytes, followed by exactly as many bytes of body, are a
request. Whatever differs in a single byte, or arrives in other pieces, is the parser's.
"""

from edgemodel_server.http.messages import Request

MAX_BODY_BYTES = 256 << 10
"""A longer body never arrives in one piece."""


class RepeatableHead:
    """A head that the parser has proved, and what it means. ``size`` is of the whole message, in bytes."""

    __slots__ = ("_length", "_template", "head", "size")

    def __init__(self, head: bytes, size: int, template: Request) -> None:
        self.head = head
        self.size = size
        self._length = len(head)
        self._template = template

    def read(self, data: bytes, now: float) -> Request:
        """Return the request in ``data``, which begins with the head and has the size."""
        template = self._template
        request = Request(template.sender, now)
        request.method = template.method
        request.path = template.path
        request.headers = template.headers
        request.route = template.route
        request.head_end = now
        request.size = template.size
        request.body = data[self._length :]
        return request


def learn_head(data: bytes, request: Request) -> RepeatableHead | None:
    """Return the head in ``data``, which was read as exactly one message; None if it must be parsed again."""
    headers = request.headers
    if request.refusal is not None or request.http_1_0 or not request.keep_alive:
        return None
    if request.method != b"POST" or b"content-length" not in headers or request.size > MAX_BODY_BYTES:
        return None
    if b"expect" in headers or b"transfer-encoding" in headers:
        return None
    length = data.find(b"\r\n\r\n") + 4
    # The parser also takes line ends before and behind a message: then head and body are not all of it.
    if length + request.size != len(data):
        return None
    return RepeatableHead(data[:length], len(data), request)
