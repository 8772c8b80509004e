"""Bytes of gRPC connections: what each stream is told does not depend on the pieces in which they come."""

from collections.abc import Hashable, Sequence
from random import Random
from typing import Any, cast
from zlib import crc32

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.connection import Connection
from edgemodel_server.grpc.endpoint import Endpoint
from edgemodel_server.grpc.header_block import encode_fields
from edgemodel_server.grpc.health_service import HealthService
from edgemodel_server.grpc.inference_service import SERVICE, InferenceService
from edgemodel_server.grpc.reflection_service import ReflectionService
from edgemodel_server.grpc.rpc import Method
from edgemodel_server.http.messages import Limits
from fuzz.grpc_messages import MessageTarget, make_messages, make_runtimes
from fuzz.stand_ins import Loop, Transport, make_app


def _make_methods() -> list[Method]:
    app = make_app(Loop(), make_runtimes())
    services = (InferenceService(app), HealthService(app), ReflectionService())
    return [method for service in services for method in service.methods()]


def _talk(methods: Sequence[Method], chunks: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return all that a new connection answers, and whether the client said that it goes away."""
    endpoint = Endpoint(cast("Any", Loop()), methods, Limits(max_body_bytes=2000), lambda: None)
    transport = Transport()
    connection = Connection(endpoint)
    connection.connection_made(cast("Any", transport))
    for chunk in chunks:
        if transport.closed:
            break
        connection.data_received(chunk)
    connection.sweep(0.0)
    left = connection._http2 is not None and connection._http2.going_away  # noqa: SLF001 - nothing else tells
    if not transport.closed:
        connection.eof_received()
    connection.connection_lost(None)
    assert not endpoint.connections
    return b"".join(transport.sent), left


def _tell(answers: bytes) -> Hashable:
    """Return what each stream was told, and how the connection ended: what must not depend on the pieces."""
    told: dict[int, list[tuple[int, bytes]]] = {}
    while len(answers) >= frames.HEADER_BYTES and not answers.startswith(b"HTTP/1.1"):
        size, kind = int.from_bytes(answers[:3], "big"), answers[3]
        stream_id = int.from_bytes(answers[5:9], "big")
        if kind in (frames.HEADERS, frames.DATA, frames.RST_STREAM, frames.GOAWAY):
            payload = answers[frames.HEADER_BYTES : frames.HEADER_BYTES + size]
            told.setdefault(stream_id, []).append((kind, payload))
        answers = answers[frames.HEADER_BYTES + size :]
    return tuple((stream_id, tuple(parts)) for stream_id, parts in sorted(told.items())), answers


class ConnectionTarget:
    """Bytes of a connection; behind the preface, unless the input brings its own."""

    name = "grpc-http2"

    def __init__(self) -> None:
        self.seeds: Sequence[bytes] = tuple(_make_connections())
        self._methods = _make_methods()
        self._messages = MessageTarget()
        self.words: Sequence[bytes] = _FRAMES

    def make(self, random: Random) -> bytes:
        """Return frames; see ``engine.Target``."""
        parts = [_SETTINGS]
        for place in range(random.choice((1, 2, 4))):
            stream_id = 2 * place + 1
            if random.random() < 0.6:
                method = random.choice(("ModelInfer", "ModelInfer", "ModelStreamInfer", "ServerReady"))
                message = self._messages.make(random)
                parts += [_head(stream_id, f"{SERVICE}/{method}"), _data(stream_id, message)]
            else:
                parts.append(random.choice(_FRAMES))
        return b"".join(parts)

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        random = Random(crc32(data))
        whole = data if data.startswith(b"PRI") or random.random() < 0.05 else frames.PREFACE + data
        answers, left = _talk(self._methods, [whole] if whole else [])
        more, left_too = _talk(self._methods, _cut(random, whole))
        want, got = _tell(answers), _tell(more)
        assert b"internal error" not in answers + more, "a call failed: its traceback is above"
        # What comes behind a GOAWAY is read or not, as it happens to arrive.
        assert got == want or left or left_too, f"in one piece: {want!r}, in several: {got!r}"
        return _name_kind(want)


def _cut(random: Random, data: bytes) -> list[bytes]:
    # In one byte each, the first decides whether this is HTTP/1.1: the preface stays whole.
    first = min(len(data), random.choice((16, 24, 33)))
    places = sorted({random.randint(first, len(data)) for _ in range(random.choice((1, 2, 5, 40)))} | {first})
    ends = [*places, len(data)]
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def _name_kind(told: Hashable) -> Hashable:
    assert isinstance(told, tuple)
    return tuple(
        (kind, _name_payload(kind, payload)) for _, parts in told[0][:4] for kind, payload in parts[:4]
    )


def _name_payload(kind: int, payload: bytes) -> bytes:
    if kind == frames.HEADERS:
        return payload[:60]
    return payload[4:8] if kind == frames.GOAWAY else b""


def _head(stream_id: int, method: str, *, flags: int = frames.END_HEADERS) -> bytes:
    fields = [
        (b":method", b"POST"), (b":scheme", b"http"), (b":authority", b"a"),
        (b":path", f"/{method}".encode()), (b"te", b"trailers"), (b"content-type", b"application/grpc"),
    ]  # fmt: skip
    return frames.make_frame(frames.HEADERS, flags, stream_id, encode_fields(fields))


def _data(stream_id: int, message: bytes, *, flags: int = frames.END_STREAM) -> bytes:
    return frames.make_frame(frames.DATA, flags, stream_id, b"\0" + len(message).to_bytes(4, "big") + message)


_SETTINGS = frames.make_settings({})
_SMALL_WINDOW = frames.make_settings({frames.Setting.INITIAL_WINDOW_SIZE: 3})
_WATCH = "grpc.health.v1.Health/Watch"
_REFLECT = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

_FRAMES = (
    _SETTINGS, frames.make_frame(frames.SETTINGS, frames.ACK, 0),
    frames.make_frame(frames.PING, 0, 0, bytes(8)),
    frames.make_settings({frames.Setting.INITIAL_WINDOW_SIZE: 5}),
    frames.make_settings({frames.Setting.HEADER_TABLE_SIZE: 0}),
    frames.make_settings({frames.Setting.MAX_FRAME_SIZE: 1 << 14}),
    frames.make_window_update(0, 5), frames.make_window_update(1, 2**31 - 1), frames.make_window_update(1, 0),
    frames.make_reset(1, frames.ErrorCode.CANCEL), frames.make_reset(3, frames.ErrorCode.CANCEL),
    frames.make_goaway(0, frames.ErrorCode.NO_ERROR), frames.make_frame(frames.PRIORITY, 0, 1, bytes(5)),
    frames.make_frame(frames.CONTINUATION, 0, 1, b"\x88"),
    frames.make_frame(frames.HEADERS, 0, 1, b"\x82\x86"),
    frames.make_frame(frames.DATA, frames.PADDED, 1, b"\x02\0\0\0\0\0\0\0"),
    frames.make_frame(10, 0, 0, b"a"),
    _data(1, b""), _data(3, b""), _data(1, b"", flags=0), b"\x3f\xe1\x1f", b"\x20", b"\x40\x01a\x01b",
    b"\xbe",
    _head(1, f"{SERVICE}/ServerLive"), _head(3, "grpc.health.v1.Health/Check"),
    _head(5, _WATCH),
)  # fmt: skip


def _make_connections() -> list[bytes]:
    infer = make_messages()[0]
    stream = f"{SERVICE}/ModelStreamInfer"
    one = _head(1, f"{SERVICE}/ModelInfer") + _data(1, infer)
    return [
        _SETTINGS + one,
        _SETTINGS + one + _head(3, f"{SERVICE}/ModelInfer") + _data(3, infer),
        _SETTINGS + _head(1, stream) + _data(1, infer, flags=0) * 3 + _data(1, infer),
        _SETTINGS + _head(1, f"{SERVICE}/ModelInfer") + _data(1, infer)[:40],
        _SETTINGS + _head(1, _WATCH) + _data(1, b"") + frames.make_reset(1, frames.ErrorCode.CANCEL),
        _SETTINGS + _head(1, _REFLECT) + _data(1, b"\x3a\0"),
        _SETTINGS + _head(1, "no/Method") + _data(1, b""),
        _SETTINGS + _head(1, f"{SERVICE}/ServerMetadata") + _data(1, b""),
        _SMALL_WINDOW + one + frames.make_window_update(1, 500),
        b"GET / HTTP/1.1\r\n\r\n",
    ]  # fmt: skip
