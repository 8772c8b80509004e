"""gRPC: messages with tensors against the strict reader, and the bytes of whole connections in any pieces."""

import re
from collections.abc import Callable, Hashable, Sequence
from random import Random
from typing import Any, cast
from zlib import crc32

import numpy as np

from edgemodel_server.call import Call
from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc import frames
from edgemodel_server.grpc.connection import Connection
from edgemodel_server.grpc.endpoint import Endpoint
from edgemodel_server.grpc.header_block import encode_fields
from edgemodel_server.grpc.health_service import HealthService
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.inference_service import SERVICE, InferenceService
from edgemodel_server.grpc.protos.inference_pb2 import ModelInferRequest
from edgemodel_server.grpc.reflection_service import ReflectionService
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.grpc.status import RpcError, from_api_error
from edgemodel_server.http.messages import Limits
from edgemodel_server.inference import Signature
from edgemodel_server.metrics import ModelMetrics
from edgemodel_server.tensors import make_bytes_array
from fuzz.connections import FakeTransport
from fuzz.tensors import SIGNATURES, freeze

_FORGET_EVERY = 5000
_VARYING = re.compile(r"[0-9]+|\".*?\"", re.DOTALL)


class FakeModel:
    """A model that is ready, and gives for any call outputs of zeros."""

    version = "1"
    ready = True

    def __init__(self, name: str, signature: Signature) -> None:
        self.name = name
        self.signature = signature
        self.metrics = ModelMetrics()
        self.calls: list[Call] = []

    def require_model(self) -> "FakeModel":
        """Return what has the signature."""
        return self

    def count_refused(self, error: ApiError) -> None:
        """Count nothing."""

    def describe(self) -> dict[str, object]:
        """Return too little."""
        return {"name": self.name}

    def submit(self, call: Call) -> None:
        """Keep the call, and answer it at once."""
        self.calls = [call]
        call.end([_make_output(self.signature.outputs[name]) for name in call.outputs])


def _make_output(spec: TensorSpec) -> Tensor:
    if spec.datatype == BYTES:
        return make_bytes_array([b"", b"a"])
    return np.zeros((1, 3), NUMPY_DTYPE[spec.datatype])


class FakeApp:
    """An application with a model for each signature, named m0, m1, ..."""

    draining = False

    def __init__(self) -> None:
        self.models = [FakeModel(f"m{place}", signature) for place, signature in enumerate(SIGNATURES)]

    def reasons(self) -> tuple[()]:
        """Say that nothing is wrong."""
        return ()


class _FakeRpc:
    """A call that keeps how it ended."""

    deadline = float("inf")
    received = 0.0
    work = None
    on_abandon: Callable[[], None] | None = None

    def __init__(self) -> None:
        self.error: RpcError | None = None

    def hand_over_deadline(self) -> float:
        """Return that there is none."""
        return self.deadline

    def answer(self, parts: Sequence[bytes]) -> None:
        """Take an answer."""

    def fail(self, error: RpcError) -> None:
        """Take a refusal."""
        self.error = error


def _read_strictly(app: FakeApp, message: bytes) -> Hashable:
    """Return the outcome of a message, with nothing remembered."""
    try:
        parsed = parse_message(message)
        model = next((model for model in app.models if model.name == parsed.model_name), None)
        if model is None or parsed.model_version not in ("", model.version):
            return "no such model"
        request = parse_request(parsed, model.signature)
    except ApiError as error:
        told = from_api_error(error)
        return told.code, told.message
    return model.name, tuple(request.output_names), request.timeout or float("inf"), freeze(request.inputs)


class MessageTarget:
    """Messages of ``ModelInfer``: what is remembered of earlier ones must not show."""

    name = "grpc-message"
    words: Sequence[bytes] = (
        b"\x0a\x02m0", b"\x12\x011", b"\x1a\x017", b"\x2a\x00", b"\x32\x03\x0a\x01y", b"\x3a\x04abcd",
        b"\x3a\x00",
        b"\x0a\x01x", b"\x12\x04FP32", b"\x1a\x02\x01\x04", b"\x18\x01",
        b"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x2a\x06\x32\x04\0\0\0\0", b"\x3a\x10" + bytes(16),
        b"\x22\x0f\x0a\x07timeout\x12\x04\x10\xc0\x84\x3d",
        b"\xff\xff\xff\xff\x0f", b"\x80\x80\0", b"\0", b"\x7a\x01a", b"\xfa\x01\x01a",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seeds: Sequence[bytes] = tuple(_make_messages())
        self._inputs = 0
        self._begin()

    def _begin(self) -> None:
        self._app = FakeApp()
        self._service = InferenceService(cast("Any", self._app))
        self._infer = next(
            method for method in self._service.methods() if method.path.endswith("/ModelInfer")
        )

    def make(self, random: Random) -> bytes:
        """Return a message; see ``engine.Target``."""
        place = random.randrange(len(SIGNATURES))
        request = ModelInferRequest(model_name=f"m{place}", model_version=random.choice(("", "", "1", "2")))
        raw = random.random() < 0.7
        for spec in SIGNATURES[place].inputs.values():
            _add_input(request, spec, raw=raw, random=random)
        if random.random() < 0.3:
            request.outputs.add(name=random.choice("yyzx"))
        if random.random() < 0.2:
            request.parameters["timeout"].int64_param = random.choice((0, 5, -1))
        return request.SerializeToString()

    def check(self, data: bytes) -> Hashable:
        """Compare; see ``engine.Target``."""
        self._inputs += 1
        if self._inputs % _FORGET_EVERY == 0:
            self._begin()
        strict = _read_strictly(self._app, data)
        for _ in range(2):
            fast = self._read(data)
            assert fast == strict, f"{fast} is not {strict}"
        if isinstance(strict, tuple) and len(strict) == 2:
            return _VARYING.sub("#", strict[1])[:80]
        return strict[:2] if isinstance(strict, tuple) else strict

    def _read(self, message: bytes) -> Hashable:
        rpc = _FakeRpc()
        try:
            self._infer.handle(cast("Rpc", rpc), message)
        except (ApiError, RpcError) as error:
            rpc.error = error if isinstance(error, RpcError) else from_api_error(error)
        if rpc.error is not None:
            if "there is no model" in rpc.error.message or "has no version" in rpc.error.message:
                return "no such model"
            return rpc.error.code, rpc.error.message
        (model,) = (model for model in self._app.models if model.calls)
        call = model.calls.pop()
        return model.name, tuple(call.outputs), call.deadline, freeze(call.inputs)


def _make_messages() -> list[bytes]:
    seeds = []
    for place, signature in enumerate(SIGNATURES):
        for raw in (True, False):
            request = ModelInferRequest(model_name=f"m{place}")
            for spec in signature.inputs.values():
                _add_input(request, spec, raw=raw, random=Random(1))
            seeds.append(request.SerializeToString())
            request.outputs.add(name="y")
            request.parameters["timeout"].int64_param = 1000000
            seeds.append(request.SerializeToString())
            request.id = "7"
            seeds.append(request.SerializeToString())
    return seeds


def _add_input(request: ModelInferRequest, spec: TensorSpec, *, raw: bool, random: Random) -> None:
    shape = [random.choice((0, 1, 1, 2)) if size == -1 else size for size in spec.shape]
    count = int(np.prod(shape))
    entry = request.inputs.add(name=spec.name, datatype=spec.datatype, shape=shape)
    if raw:
        size = 4 if spec.datatype == BYTES else NUMPY_DTYPE[spec.datatype].itemsize
        data = bytes(size * count) if spec.datatype == BYTES else random.randbytes(size * count)
        request.raw_input_contents.append(data)
    elif spec.datatype == BYTES:
        entry.contents.bytes_contents.extend([b"a"] * count)
    elif spec.datatype == "FP32":
        entry.contents.fp32_contents.extend([1.5] * count)
    elif spec.datatype == "BOOL":
        entry.contents.bool_contents.extend([True] * count)
    elif spec.datatype in ("INT32", "INT8"):
        entry.contents.int_contents.extend([-1] * count)


# -- connections ---------------------------------------------------------------------------------------------


class _FakeTimer:
    def cancel(self) -> None:
        """Do nothing."""


class _FakeLoop:
    """A loop on which it never gets later."""

    def call_later(self, seconds: float, callback: Callable[[], None], *arguments: Any) -> _FakeTimer:
        """Return what can be cancelled."""
        return _FakeTimer()


def _make_methods() -> list[Method]:
    app = cast("Any", FakeApp())
    services = (InferenceService(app), HealthService(app), ReflectionService())
    return [method for service in services for method in service.methods()]


def _talk(methods: Sequence[Method], chunks: Sequence[bytes]) -> tuple[bytes, bool]:
    """Return all that a new connection answers, and whether the client said that it goes away."""
    endpoint = Endpoint(cast("Any", _FakeLoop()), methods, Limits(max_body_bytes=2000), lambda: None)
    transport = FakeTransport()
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
    infer = _make_messages()[0]
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
