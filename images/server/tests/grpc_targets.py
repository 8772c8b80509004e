"""What fuzzers feed: pure functions from bytes, without a socket; each fails by an exception alone."""

from collections.abc import Callable
from functools import cache

import numpy as np
from http2_peer import cut_frames

from edgemodel_server.datatypes import NUMPY_DTYPE, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.header_block import Head
from edgemodel_server.grpc.http2 import Http2
from edgemodel_server.grpc.http2_limits import Http2Limits
from edgemodel_server.grpc.infer_answer import AnswerWriter
from edgemodel_server.grpc.infer_plans import Plan, Plans
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.messages import Budget, MessageReader
from edgemodel_server.grpc.rpc import Client, Desk, Method, Rpc
from edgemodel_server.grpc.status import RpcError
from edgemodel_server.grpc.stream import Receiver, Stream
from edgemodel_server.grpc.switchboard import Switchboard
from edgemodel_server.http.messages import Limits
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.workers import Workers

MAX_MESSAGE = 4096


class _Timer:
    def cancel(self) -> None:
        pass


def _never(seconds: float, then: Callable[[], None]) -> _Timer:
    return _Timer()


def _echo(rpc: Rpc, message: bytes) -> None:
    rpc.answer(message)


METHODS = (Method("/a/Unary", _echo), Method("/a/Stream", _echo, streaming=True))


class Connection:
    """A connection whose two methods give every message back; `written` is what it said."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        client = Client("", Budget(2 * MAX_MESSAGE))
        board = Switchboard(METHODS, Desk(Limits(max_body_bytes=MAX_MESSAGE), _never))

        def accept(stream: Stream, head: Head) -> Receiver:
            return board.accept(stream, head, client)

        self.budget = client.budget
        self.http2 = Http2(self.written.append, accept, Http2Limits(max_streams=8, stream_window=1 << 16))


def feed_connection(data: bytes) -> bytes:
    """Feed a connection what a client may have sent, and return what it wrote: whole frames, always."""
    connection = Connection()
    connection.http2.receive(data)
    written = b"".join(connection.written)
    frames = cut_frames(written)
    last = [frame for frame in frames if frame.kind == "GOAWAY"]
    assert len(last) <= 2
    connection.http2.abandon()
    assert not connection.http2.streams
    assert connection.budget.held == 0, "messages are held for calls that are over"
    return written


def feed_messages(chunks: list[bytes]) -> list[bytes]:
    """Feed the pieces of a body to a reader of messages."""
    reader = MessageReader(MAX_MESSAGE, Budget(2 * MAX_MESSAGE))
    messages = []
    for chunk in chunks:
        try:
            reader.feed(chunk)
        except RpcError:
            break
        while reader.complete:
            messages.append(reader.take())
    return messages


@cache
def signature() -> Signature:
    specs = {name: TensorSpec(name, name, (-1, 2)) for name in ("FP32", "INT8", "BYTES")}
    return Signature(specs, specs)


def learns(plans: Plans, message: bytes, model: Signature) -> bool:
    """Say whether a message, which must be right, is remembered."""
    parsed = parse_message(message)
    request = parse_request(parsed, model)
    writer = AnswerWriter("model", "1", request, model)
    return plans.learn(
        message,
        parsed,
        request,
        Plan(served(), None, (), request.output_names, request.timeout, request.id, writer),
    )


@cache
def served() -> ServedModel:
    return ServedModel("model", "1", Workers.__new__(Workers), ServeOptions())


def decode_infer(message: bytes) -> InferRequest | None:
    """Decode an inference request twice: the way that remembers must give what the strict one gives."""
    try:
        request = parse_request(parse_message(message), signature())
    except ApiError as error:
        if error.status != 400:
            raise
        return None
    for name, array in request.inputs.items():
        assert array.dtype == NUMPY_DTYPE[signature().inputs[name].datatype]
        assert array.shape[1:] == (2,)
    plans = Plans()
    if learns(plans, message, signature()):
        found = plans.find(message)
        assert found is not None
        inputs = found[1]
        assert inputs.keys() == request.inputs.keys()
        for name, array in request.inputs.items():
            np.testing.assert_array_equal(inputs[name], array)
    return request
