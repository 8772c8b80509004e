"""Random and nearly right bytes for the HTTP/2 connection and the decoder of inference requests."""

import gc
from itertools import pairwise
from typing import Any

import numpy as np
from grpc_targets import Connection, decode_infer, feed_connection, feed_messages, learns, signature
from hpack import Encoder
from http2_peer import REQUEST, body_of, cut_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.header_block import encode_fields
from edgemodel_server.grpc.infer_plans import Plans
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.messages import add_prefix
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.inference import Signature

thorough = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
GREETING = frames.PREFACE + frames.make_settings({})


def request_head(path: str) -> bytes:
    fields = [(name, path if name == ":path" else value) for name, value in REQUEST]
    return Encoder().encode(fields)


HEADS = [request_head("/a/Unary"), request_head("/a/Stream"), request_head("/a/None")]
payloads = st.one_of(
    st.sampled_from(HEADS),
    st.binary(max_size=40),
    st.binary(max_size=40).map(lambda data: add_prefix(len(data)) + data),
    st.sampled_from(
        [b"\0\0\0\0", b"\0\0\0\1", b"\x7f\xff\xff\xff", b"\0\4\0\0\0\0", b"\0\3\0\0\0\5", bytes(8)]
    ),
)
some_frames = st.builds(
    frames.make_frame,
    st.one_of(st.sampled_from([0, 1, 1, 0]), st.integers(0, 11)),
    st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13, 32, 36, 37, 45]),
    st.sampled_from([0, 1, 1, 3, 3, 5, 7, 2]),
    payloads,
)
streams = st.lists(some_frames, max_size=30).map(b"".join)


@thorough
@given(st.binary(max_size=300))
def test_any_bytes_after_the_greeting(data: bytes) -> None:
    feed_connection(data)
    feed_connection(GREETING + data)


@thorough
@given(streams)
def test_any_frames(data: bytes) -> None:
    feed_connection(GREETING + data)


@thorough
@given(streams, st.lists(st.integers(0, 2000), max_size=8))
def test_it_does_not_matter_how_the_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    """But for PING and other answers at once, which come when their frame has: so everything is compared."""
    text = GREETING + data
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    connection = Connection()
    for start, end in pairwise(places):
        connection.http2.receive(text[start:end])
    assert b"".join(connection.written) == feed_connection(text)


@thorough
@given(st.lists(st.binary(max_size=3000), max_size=4), st.integers(1, 5000), st.booleans())
def test_messages_come_back_whatever_the_frames(messages: list[bytes], size: int, huge: bool) -> None:
    """The streaming method echoes every message in order, through frames and windows of any size."""
    body = b"".join(add_prefix(len(message)) + message for message in messages)
    connection = Connection()
    connection.http2.receive(GREETING + frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1, HEADS[1]))
    for start in range(0, len(body), size):
        connection.http2.receive(frames.make_frame(frames.DATA, 0, 1, body[start : start + size]))
    connection.http2.receive(frames.make_frame(frames.DATA, frames.END_STREAM, 1))
    connection.http2.receive(frames.make_window_update(1, 1 << 20) if huge else b"")
    heard = cut_frames(b"".join(connection.written))
    assert body_of(heard, 1) == body
    assert heard[-1].kind == "HEADERS"


@thorough
@given(st.lists(st.binary(max_size=200), max_size=10), st.lists(st.integers(0, 3000), max_size=10))
def test_messages_may_be_cut_anywhere(messages: list[bytes], cuts: list[int]) -> None:
    body = b"".join(add_prefix(len(message)) + message for message in messages)
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    assert feed_messages([body[start:end] for start, end in pairwise(places)]) == messages


@thorough
@given(st.binary(max_size=200))
def test_any_bytes_as_a_message(data: bytes) -> None:
    feed_messages([data])
    decode_infer(data)


names = st.sampled_from(["FP32", "INT8", "BYTES", "other"])
tensors = st.fixed_dictionaries(
    {"name": names, "datatype": names, "shape": st.lists(st.integers(-1, 3), max_size=3)},
    optional={
        "contents": st.fixed_dictionaries(
            {},
            optional={
                "fp32_contents": st.lists(st.floats(width=32), max_size=4),
                "int_contents": st.lists(st.integers(-200, 200), max_size=4),
                "bytes_contents": st.lists(st.binary(max_size=3), max_size=4),
            },
        ),
    },
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(tensors, max_size=4)},
    optional={
        "id": st.text(max_size=3),
        "raw_input_contents": st.lists(st.binary(max_size=24), max_size=4),
        "outputs": st.lists(st.fixed_dictionaries({"name": names}), max_size=3),
    },
)


@thorough
@given(requests, st.binary(max_size=6), st.integers(0, 200))
def test_any_request(request: dict[str, Any], noise: bytes, place: int) -> None:
    message = pb.ModelInferRequest(**request).SerializeToString()
    decode_infer(message)
    place %= len(message) + 1
    decode_infer(message[:place] + noise + message[place + len(noise) :])


def good_request(fp32: np.ndarray[Any, Any], int8: np.ndarray[Any, Any]) -> bytes:
    """Return a message that names all inputs but BYTES; see `numeric`."""
    request = pb.ModelInferRequest(model_name="model")
    for name, array in (("FP32", fp32), ("INT8", int8)):
        request.inputs.add(name=name, datatype=name, shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


rows = st.integers(1, 3)


@thorough
@given(rows, rows, st.data())
def test_a_remembered_request_means_what_the_strict_path_says(
    first: int, second: int, data: st.DataObject
) -> None:
    """Change any one byte of a message that was learnt: what is recalled must be what a fresh look finds."""
    specs = {name: spec for name, spec in signature().inputs.items() if name != "BYTES"}
    numeric = Signature(specs, specs)
    message = good_request(np.ones((first, 2), "<f4"), np.ones((second, 2), "i1"))
    plans = Plans()
    assert learns(plans, message, numeric)
    changed = bytearray(message)
    changed[data.draw(st.integers(0, len(message) - 1))] ^= data.draw(st.integers(1, 255))
    found = plans.find(bytes(changed))
    if found is None:
        return
    fresh = parse_request(parse_message(bytes(changed)), numeric)
    for name, array in fresh.inputs.items():
        assert found[1][name].tobytes() == array.tobytes()
        assert found[1][name].shape == array.shape


def test_what_is_not_remembered() -> None:
    """Messages whose raw contents are not their end, or whose meaning is in more than the tensors' bytes."""
    fp32 = pb.ModelInferRequest(
        inputs=[{"name": "FP32", "datatype": "FP32", "shape": [1, 2]}], raw_input_contents=[bytes(8)]
    ).SerializeToString()
    spec = {"FP32": signature().inputs["FP32"]}
    only = Signature(spec, spec)

    assert learns(Plans(), fp32, only)
    late = pb.ModelInferRequest(model_name="late").SerializeToString()
    named = pb.ModelInferRequest(id="1").SerializeToString()
    look_alike = (
        b"\xfa\x01\x0a" + b"\x3a\x08" + bytes(8)
    )  # a field that nobody knows, as if it were the tensor
    for tail in (late, named, look_alike):
        assert not learns(Plans(), fp32 + tail, only)


PLAIN = [
    encode_fields([(name.encode(), (path if name == ":path" else value).encode()) for name, value in REQUEST])
    for path in ("/a/Unary", "/a/Stream", "/a/None")
]
"""Blocks that leave the dynamic table alone, so that their meaning is kept."""


def whole_call(stream: int, body: bytes, **changes: Any) -> bytes:
    """Return a call as busy clients send it: two frames in one piece; `changes` make it another one."""
    head = (
        frames.HEADERS,
        changes.get("head_flags", frames.END_HEADERS),
        stream,
        changes.get("block", PLAIN[0]),
    )
    data = (
        frames.DATA,
        changes.get("data_flags", frames.END_STREAM),
        changes.get("data_stream", stream),
        body,
    )
    return frames.make_frame(*head) + frames.make_frame(*data) + changes.get("tail", b"")


calls = st.lists(
    st.tuples(
        st.integers(-2, 2),
        st.binary(max_size=30).map(lambda data: add_prefix(len(data)) + data),
        st.one_of(
            st.just({}),
            st.just({}),
            st.fixed_dictionaries(
                {},
                optional={
                    "head_flags": st.sampled_from([0, 1, 5, 12, 36]),
                    "data_flags": st.sampled_from([0, 1, 8, 9]),
                    "data_stream": st.sampled_from([0, 1, 3, 5]),
                    "block": st.sampled_from([*PLAIN, *HEADS, b"", b"\xbe", b"\x83"]),
                    "tail": st.sampled_from([b"\0", frames.make_frame(frames.PING, 0, 0, bytes(8))]),
                },
            ),
        ),
    ),
    max_size=12,
)


@thorough
@given(calls)
def test_calls_in_one_piece_are_taken_as_those_in_many(
    calls: list[tuple[int, bytes, dict[str, Any]]],
) -> None:
    """The short way for whole calls must do what the strict one does, frame by frame and byte by byte."""
    whole, cut = Connection(), Connection()
    for connection in (whole, cut):
        connection.http2.receive(GREETING)
        for stream in (1, 3, 5):  # so that the heads are known
            connection.http2.receive(whole_call(stream, add_prefix(0), block=PLAIN[stream // 2]))
        assert all(connection.http2._heads.recall(block) for block in PLAIN)
    for number, (skip, body, changes) in enumerate(calls):
        stream = max(0, 7 + 2 * number + skip)
        text = whole_call(stream, body, **changes)
        whole.http2.receive(text)
        cut.http2.receive(text[:9])
        cut.http2.receive(text[9:])
        assert b"".join(whole.written) == b"".join(cut.written)
        assert whole.http2.streams.keys() == cut.http2.streams.keys()


def test_calls_and_connections_leave_no_cycles_behind() -> None:
    """The server hardly ever runs the cycle collector: what a call has used must go by itself."""
    connection = Connection()
    connection.http2.receive(GREETING)
    cancelled = frames.make_frame(frames.RST_STREAM, 0, 1003, bytes(4))

    def use(first: int) -> None:
        for stream in range(first, first + 400, 4):
            connection.http2.receive(whole_call(stream, add_prefix(0)))
            connection.http2.receive(whole_call(stream + 2, add_prefix(0) * 2, block=PLAIN[1]))

    use(1)
    gc.collect()
    gc.disable()
    try:
        use(401)
        connection.http2.receive(whole_call(1001, b"\1", block=PLAIN[2]))
        connection.http2.receive(
            frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1003, PLAIN[0]) + cancelled
        )
        gc.set_debug(gc.DEBUG_SAVEALL)  # other tests' threads may leave something behind meanwhile, too
        gc.collect()
        left = [type(one) for one in gc.garbage if type(one).__module__.startswith("edgemodel_server")]
        assert not left
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
