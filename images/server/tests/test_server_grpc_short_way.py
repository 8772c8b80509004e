"""The short way of an HTTP/2 connection for whole calls, which must end where the long one does."""

import pytest
from http2_peer import REQUEST, Peer

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.frame_reader import split_call
from edgemodel_server.grpc.frames import ErrorCode
from edgemodel_server.grpc.header_block import encode_fields

HEAD, TRAILERS = b"\x88", b"\x88"

BLOCK = encode_fields([(name.encode(), value.encode()) for name, value in REQUEST])


def call_frames(block: bytes, body: bytes, **changes: int) -> bytes:
    given = {
        "head": frames.END_HEADERS,
        "data": frames.END_STREAM,
        "kind": frames.DATA,
        "stream": 1,
    } | changes
    return frames.make_frame(frames.HEADERS, given["head"], 1, block) + frames.make_frame(
        given["kind"], given["data"], given["stream"], body
    )


def test_a_call_in_its_plainest_form() -> None:
    assert split_call(call_frames(BLOCK, b"body")) == (1, BLOCK, b"body")
    assert split_call(call_frames(b"", b"")) == (1, b"", b"")


@pytest.mark.parametrize(
    "data",
    [
        call_frames(BLOCK, b"body") + b"\0",
        call_frames(BLOCK, b"body")[:-1],
        call_frames(BLOCK, b"body")[: 9 + len(BLOCK)],
        call_frames(BLOCK, b"body")[:17],
        call_frames(BLOCK, b"body", stream=3),
        call_frames(BLOCK, b"body", kind=frames.HEADERS),
        call_frames(BLOCK, b"\0body", data=frames.END_STREAM | frames.PADDED),
        call_frames(BLOCK, b"body", data=0),
        call_frames(b"\0" + BLOCK, b"body", head=frames.END_HEADERS | frames.PADDED),
        call_frames(bytes(5) + BLOCK, b"body", head=frames.END_HEADERS | frames.HAS_PRIORITY),
        call_frames(BLOCK, b"body", head=frames.END_HEADERS | frames.END_STREAM),
        call_frames(BLOCK, b"body", head=0),
        b"",
    ],
)
def test_everything_else_takes_the_long_way(data: bytes) -> None:
    assert split_call(data) is None


def test_the_short_way_keeps_to_every_limit() -> None:
    """A call of a known head is still checked for its length, its number, and the number of streams."""
    block = encode_fields(
        [(name.encode(), value.encode()) for name, value in [*REQUEST, ("content-length", "4")]]
    )
    peer = Peer(max_streams=2)
    for stream, body in ((1, b"four"), (3, b"four")):
        peer.frame(frames.HEADERS, frames.END_HEADERS, stream, block).data(stream, body, end=True)
        peer.requests[stream].stream.send(HEAD, b"answer", TRAILERS)
    peer.heard()

    def ask(stream: int, body: bytes) -> None:
        text = frames.make_frame(frames.HEADERS, frames.END_HEADERS, stream, block)
        peer.say(text + frames.make_frame(frames.DATA, frames.END_STREAM, stream, body))

    ask(5, b"five!")
    assert peer.heard_only().code is ErrorCode.PROTOCOL_ERROR
    for stream in (7, 9, 11):
        ask(stream, b"four")
    assert peer.heard_only().code is ErrorCode.REFUSED_STREAM
    assert set(peer.http2.streams) == {7, 9}
    ask(9, b"four")
    assert peer.heard_only().code is ErrorCode.PROTOCOL_ERROR


def test_windows_are_opened_on_the_short_way_too() -> None:
    peer = Peer(connection_window=70_000)
    granted = 0
    for stream in range(1, 100, 2):
        text = frames.make_frame(frames.HEADERS, frames.END_HEADERS, stream, BLOCK)
        peer.say(text + frames.make_frame(frames.DATA, frames.END_STREAM, stream, b"x" * 9000))
        peer.requests[stream].stream.send(HEAD, b"", TRAILERS)
        updates = [frame for frame in peer.heard() if frame.kind == "WINDOW_UPDATE"]
        granted += sum(int.from_bytes(frame.payload, "big") for frame in updates)
    assert 0 <= 50 * 9000 - granted < 35_000
    assert not peer.http2.ended
