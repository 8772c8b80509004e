"""HTTP/1.1, byte by byte: whatever comes, in whatever pieces, the answers are the same.

The oracle is the strict parser: it gets the same bytes in one piece. In other pieces a request may meet the
shortcut for heads that came before; it must not show. The application answers with all that it was given.
"""

import re
from collections.abc import Hashable, Sequence
from random import Random
from typing import Any, cast
from zlib import crc32

import uvloop

from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import HeadWriter, Limits, Request, json_response
from fuzz.stand_ins import Transport

_MAX_BODY_BYTES = 600
_LIMITS = Limits(max_head_bytes=4096, max_body_bytes=_MAX_BODY_BYTES)
_HEADS = HeadWriter()
"""One for all: the time of day is the same in all answers."""

_REFUSAL = re.compile(rb'(HTTP/1.1 [45].*?\r\n).*?\r\n\r\n{"error":".*?"}', re.DOTALL)
_KIND = re.compile(rb'^HTTP/1.1 ([0-9]+) |{"error":"([^0-9"]*)|"method":"(.)|"http_1_0":(t)', re.MULTILINE)
_METHOD = re.compile(rb"(?:POST|GET|HEAD) ")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Client:
    """One connection with an application that answers at once or when it is told to."""

    def __init__(self, loop: Any, *, prompt: bool) -> None:
        self._prompt = prompt
        self._pending: list[Request] = []
        self.transport = Transport()
        endpoint = Endpoint(loop, self._handle, _LIMITS)
        endpoint.heads = _HEADS
        self.connection = Connection(endpoint)
        self.connection.connection_made(cast("Any", self.transport))

    def _handle(self, request: Request) -> None:
        if request.method == b"POST" and request.route is None:
            request.route = self._handle
        if self._prompt:
            self._answer(request)
        else:
            self._pending.append(request)

    def _answer(self, request: Request) -> None:
        told = {
            "method": request.method.decode("latin-1"),
            "path": request.path.decode("latin-1"),
            "headers": sorted((key.decode("latin-1"), value.decode("latin-1"))
                              for key, value in request.headers.items()),
            "http_1_0": request.http_1_0,
            "size": request.size,
            "body": bytes(request.body).decode("latin-1"),
        }  # fmt: skip
        request.answer(json_response(200, told))

    def feed(self, chunks: Sequence[bytes]) -> bytes:
        """Deliver the chunks and the client's end; returns all that was answered."""
        for chunk in chunks:
            while not self.transport.reading and self._pending:
                self._answer(self._pending.pop(0))
            assert self.transport.reading, "not reading, with nothing to wait for"
            if self.transport.closed:
                break
            self.connection.data_received(chunk)
        while self._pending:
            self._answer(self._pending.pop(0))
        if not self.transport.closed:
            self.connection.eof_received()
        self.connection.connection_lost(None)
        # Whether the client is asked to go on depends on whether it already has.
        return b"".join(self.transport.sent).replace(_CONTINUE, b"")


class HttpTarget:
    """Bytes as they come from a socket; how they are cut follows from the bytes themselves."""

    name = "http"

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self.seeds: Sequence[bytes] = tuple(_make_seeds())
        self.words: Sequence[bytes] = _WORDS

    def make(self, random: Random) -> bytes:
        """Return requests one behind the other, often the same head again; see ``engine.Target``."""
        heads = [random.choice(_HEADS_TO_SAY) for _ in range(random.choice((1, 1, 2)))]
        return b"".join(
            random.choice(heads) + random.randbytes(2).hex().encode() for _ in range(random.choice((2, 3, 5)))
        )

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        random = Random(crc32(data))
        if random.random() < 0.5:
            data += data
        want = Client(self._loop, prompt=True).feed([data]) if data else b""
        got = Client(self._loop, prompt=random.random() < 0.7).feed(_cut(random, data))
        # Of two faults in a head the one is told that is whole first: that may depend on the pieces.
        same = _REFUSAL.sub(rb"\1", got) == _REFUSAL.sub(rb"\1", want)
        assert same, f"in one piece: {want!r}, in several: {got!r}"
        return tuple(_KIND.findall(want)[:6])


def _cut(random: Random, data: bytes) -> list[bytes]:
    """Return the input in pieces: where requests seem to begin, or anywhere."""
    style = random.random()
    if style < 0.1:
        return [data[place : place + 1] for place in range(len(data))]
    places = set()
    if style < 0.9:
        places |= {found.start() for found in _METHOD.finditer(data, 1)}
    if style > 0.7 and data:
        places |= {random.randrange(1, len(data) + 1) for _ in range(random.choice((1, 1, 2, 5)))}
    ends = [*sorted(places), len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


_HEAD = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n"
_LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n"

_WORDS = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"\0", b"\x0b", b"\x7f", b"\x80",
    b"\xff",
    b"POST ", b"GET ", b"HEAD ", b"CONNECT ", b"OPTIONS ", b"PRI ", b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0",
    b"Host: a\r\n", b"Content-Length: 4\r\n", b"Content-Length: 0\r\n", b"Content-Length: +4\r\n",
    b"Content-Length: 4, 4\r\n", b"Content-Length : 4\r\n", b"Content-Length: 4\n", b"content-length:4\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Transfer-Encoding:\tchunked\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"TE: trailers\r\n",
    b"Transfer-Encoding : chunked\r\n", b"X: a\r\n b\r\n", b" X: a\r\n", b"X:\r\n", b": a\r\n",
    b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Content-Encoding: gzip\r\n", b"Accept: a\r\n",
    b"Inference-Header-Content-Length: 2\r\n", b"traceparent: a\r\n", b"0\r\n\r\n", b"4\r\nabcd\r\n",
    b"4;x=y\r\nabcd\r\n", b"04\r\nabcd\r\n", b"4 \r\nabcd\r\n", b"4\nabcd\n", b"-1\r\n", b"0x4\r\n",
    b"fffffffffffffffff\r\n", b"0\r\nHost: b\r\n\r\n", b"abcd", b"http://b/c", b"*", b"/..", b"%00", _LIVE,
)  # fmt: skip


_HEADS_TO_SAY = (
    _HEAD + b"Content-Length: 4\r\n\r\n",
    _HEAD + b"Content-Length: 4\r\nAccept: a\r\nX: b\r\n\r\n",
    _HEAD + b"Inference-Header-Content-Length: 2\r\nContent-Length: 4\r\n\r\n",
    _HEAD + b"Content-Length: 4\r\nConnection: keep-alive\r\n\r\n",
    _HEAD
    + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n",
    _LIVE + _HEAD + b"Content-Length: 4\r\n\r\n",
    b"\r\n" + _HEAD + b"Content-Length: 4\r\n\r\n",
    _HEAD + b"Content-Length: 04\r\n\r\n",
    _HEAD + b"content-length:4 \r\nExpect: 100-continue\r\n\r\n",
)


def _make_seeds() -> list[bytes]:
    plain = _HEAD + b"Content-Length: 4\r\n\r\nabcd"
    chunked = _HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"
    return [
        _LIVE, plain, plain * 3, chunked, chunked + plain, plain + chunked + plain, _LIVE + plain + _LIVE,
        b"HEAD /v2 HTTP/1.1\r\nHost: a\r\n\r\n" + plain,
        b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + _LIVE,
        _HEAD + b"Content-Length: 4\r\nExpect: 100-continue\r\n\r\nabcd" + plain,
        _HEAD + b"Content-Length: 0\r\n\r\n" + plain,
        _HEAD + b"Content-Length: 700\r\n\r\n" + bytes(700),
        _HEAD + b"Inference-Header-Content-Length: 2\r\nContent-Length: 6\r\n\r\n{}abcd" + plain,
        _HEAD + b"Content-Length: 44\r\n\r\n" + _LIVE + plain,
        plain + _HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + _LIVE,
        plain + _HEAD + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde" + plain,
    ]  # fmt: skip
