"""The state machine of an HTTP/2 connection, frame by frame; RFC 9113 in general is h2spec's job."""

import pytest
from http2_peer import REQUEST, Peer, body_of

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.frame_reader import ALLOWANCE
from edgemodel_server.grpc.frames import ErrorCode

HEAD, TRAILERS = b"\x88", b"\x88"  # as blocks go, ":status: 200" is the shortest


# -- requests ------------------------------------------------------------------------------------------------


def test_a_request_arrives_whole() -> None:
    peer = Peer().ask(1).data(1, b"one ").data(1, b"two", end=True)
    request = peer.requests[1]
    assert (request.body, request.complete) == (b"one two", True)
    assert request.head.method == b"POST"
    assert request.head.path == b"/package.Service/Method"
    assert request.head.fields[b"te"] == b"trailers"
    assert peer.heard() == []


def test_bytes_may_arrive_one_by_one() -> None:
    peer = Peer(greet=False)
    text = frames.PREFACE + frames.make_settings({})
    text += frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1, peer.encoder.encode(REQUEST))
    text += frames.make_frame(frames.DATA, frames.END_STREAM, 1, b"body")
    for place in range(len(text)):
        peer.say(text[place : place + 1])
    assert (peer.requests[1].body, peer.requests[1].complete) == (b"body", True)


def test_a_header_block_in_pieces_and_padded() -> None:
    peer = Peer()
    block = peer.encoder.encode(REQUEST)
    first = bytes((3,)) + b"\0\0\0\0\x10" + block[:4] + b"\0\0\0"
    peer.frame(frames.HEADERS, frames.PADDED | frames.HAS_PRIORITY, 1, first)
    peer.frame(frames.CONTINUATION, 0, 1, block[4:9])
    assert peer.requests == {}
    peer.frame(frames.CONTINUATION, frames.END_HEADERS, 1, block[9:])
    peer.frame(frames.DATA, frames.PADDED | frames.END_STREAM, 1, b"\x02body\0\0")
    assert (peer.requests[1].body, peer.requests[1].complete) == (b"body", True)


def test_trailers_end_a_request() -> None:
    peer = Peer().ask(1).data(1, b"x").ask(1, [("checksum", "1")], end=True)
    assert peer.requests[1].complete
    assert peer.heard() == []


def test_equal_blocks_mean_what_the_table_says_at_the_time() -> None:
    """A kept head must not outlive the dynamic table that it was read with."""
    peer = Peer()
    for stream in (1, 3, 5):
        peer.ask(stream, end=True)
    indexed = b"\x83\x86" + peer.encoder.encode([(":path", "/a")])  # POST, http, and a new entry 62
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 7, indexed)
    again = b"\x83\x86\xbe"  # … and whatever entry 62 is
    for stream in (9, 11):
        peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, again)
        assert peer.requests[stream].head.path == b"/a"
    moved = b"\x83\x86" + peer.encoder.encode([(":path", "/b")])
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 13, moved)
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 15, again)
    assert peer.requests[15].head.path == b"/b"


def test_a_table_that_shrinks_makes_old_blocks_invalid() -> None:
    peer = Peer()
    indexed = b"\x83\x86" + peer.encoder.encode([(":path", "/a")])
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 1, indexed)
    for stream in (3, 5):
        peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, b"\x83\x86\xbe")
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 7, b"\x20\x83\x86\x84")  # table size 0
    peer.frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, 9, b"\x83\x86\xbe")
    assert peer.heard_only().code is ErrorCode.COMPRESSION_ERROR


@pytest.mark.parametrize(
    "fields",
    [
        [*REQUEST, ("Upper", "case")],
        [*REQUEST, ("connection", "keep-alive")],
        [*REQUEST, ("transfer-encoding", "chunked")],
        [*REQUEST, ("te", "gzip")],
        [*REQUEST, ("bad name", "1")],
        [*REQUEST, ("bad-value", "a\r\nb: c")],
        [*REQUEST, ("bad-value", "a\0")],
        [*REQUEST, (":path", "/twice")],
        [*REQUEST, ("content-length", "1"), ("content-length", "2")],
        [*REQUEST, ("content-length", "-1")],
        REQUEST[:2],
        [(":status", "200"), *REQUEST],
        [*REQUEST[:2], (":path", "")],
    ],
    ids=lambda fields: str(fields[-1]),
)
def test_a_malformed_head_ends_the_stream_and_no_other(fields: list[tuple[str, str]]) -> None:
    peer = Peer().ask(1).ask(3, fields)
    refusal = peer.heard_only()
    assert (refusal.kind, refusal.stream, refusal.code) == ("RST_STREAM", 3, ErrorCode.PROTOCOL_ERROR)
    assert 3 not in peer.requests
    peer.data(3, b"already under way")  # the client could not know yet
    peer.data(1, b"x", end=True)
    assert peer.requests[1].complete
    assert peer.heard() == []


@pytest.mark.parametrize("body", [b"123", b"12345"])
def test_a_body_must_have_the_length_that_its_head_says(body: bytes) -> None:
    peer = Peer().ask(1, [*REQUEST, ("content-length", "4")]).data(1, body, end=True)
    assert peer.heard_only().code is ErrorCode.PROTOCOL_ERROR
    assert peer.requests[1].abandoned


def test_too_many_streams_are_refused_one_by_one() -> None:
    peer = Peer(max_streams=2)
    for stream in (1, 3, 5):
        peer.ask(stream)
    refusal = peer.heard_only()
    assert (refusal.kind, refusal.stream, refusal.code) == ("RST_STREAM", 5, ErrorCode.REFUSED_STREAM)
    peer.data(1, b"", end=True)
    peer.requests[1].stream.send(HEAD, b"answer", TRAILERS)
    peer.ask(7)
    assert set(peer.requests) == {1, 3, 7}


def test_a_reset_stream_is_abandoned_and_never_answered() -> None:
    peer = Peer().ask(1, end=True)
    request = peer.requests[1]
    peer.frame(frames.RST_STREAM, 0, 1, frames.ErrorCode.CANCEL.to_bytes(4, "big"))
    assert request.abandoned
    request.stream.send(HEAD, b"too late", TRAILERS)
    assert peer.heard() == []


def test_an_early_answer_tells_the_client_to_stop_sending() -> None:
    peer = Peer().ask(1).data(1, b"some")
    peer.requests[1].stream.send(HEAD, b"no", TRAILERS)
    assert [frame.kind for frame in peer.heard()] == ["HEADERS", "DATA", "HEADERS", "RST_STREAM"]
    peer.data(1, b"more", end=True)
    assert peer.heard() == []
    assert peer.requests[1].body == b"some"


# -- flow control --------------------------------------------------------------------------------------------


def test_received_data_is_granted_again() -> None:
    peer = Peer(stream_window=4000, connection_window=100_000)
    peer.ask(1)
    request = peer.requests[1]
    for _ in range(30):
        peer.data(1, b"x" * 1000)
        request.stream.credit(1000)
    granted = sum(int.from_bytes(frame.payload, "big") for frame in peer.heard() if frame.stream == 1)
    assert 30_000 - 2000 <= granted <= 30_000
    assert len(request.body) == 30_000


def test_data_that_nobody_took_is_not_granted_again() -> None:
    peer = Peer(stream_window=4000, connection_window=100_000).ask(1)
    for _ in range(5):
        peer.data(1, b"x" * 1000)
    refusal = peer.heard_only()
    assert (refusal.kind, refusal.stream, refusal.code) == ("RST_STREAM", 1, ErrorCode.FLOW_CONTROL_ERROR)
    assert peer.requests[1].abandoned


def test_data_for_refused_streams_counts_for_the_connection() -> None:
    peer = Peer(max_streams=1, connection_window=70_000).ask(1).ask(3)
    peer.heard()
    for _ in range(10):
        peer.data(3, b"x" * 7000)
    updates = peer.heard()
    assert {(frame.kind, frame.stream) for frame in updates} == {("WINDOW_UPDATE", 0)}
    assert sum(int.from_bytes(frame.payload, "big") for frame in updates) == 70_000


def test_padding_is_granted_again() -> None:
    peer = Peer(stream_window=400).ask(1)
    for _ in range(4):
        peer.frame(frames.DATA, frames.PADDED, 1, b"\xff" + b"\0" * 255)
    assert not peer.requests[1].abandoned


def test_an_answer_waits_for_the_windows_of_its_stream_and_connection() -> None:
    peer = Peer().settings(INITIAL_WINDOW_SIZE=10_000).ask(1, end=True)
    answer = bytes(range(256)) * 400
    peer.heard()
    peer.requests[1].stream.send(HEAD, answer, TRAILERS)
    first = peer.heard()
    assert body_of(first, 1) == answer[:10_000]
    peer.window(1, 1_000_000)
    second = peer.heard()
    assert body_of(second, 1) == answer[10_000:65_535]
    assert max(len(frame.payload) for frame in second) == 16_384
    peer.window(0, 1_000_000)
    third = peer.heard()
    assert body_of(first + second + third, 1) == answer
    assert third[-1].kind == "HEADERS"
    assert third[-1].ends
    assert not peer.http2.streams


def test_streams_take_turns() -> None:
    peer = Peer().settings(INITIAL_WINDOW_SIZE=1 << 20, MAX_FRAME_SIZE=1 << 15)
    for stream in (1, 3):
        peer.ask(stream, end=True)
    peer.heard()
    for stream in (1, 3):
        peer.requests[stream].stream.send(HEAD, b"x" * 200_000, TRAILERS)
    peer.heard()
    peer.window(0, 1 << 17)
    assert [frame.stream for frame in peer.heard()] == [1, 3, 1, 3]


def test_a_window_that_shrinks_below_zero_holds_a_stream_back() -> None:
    peer = Peer().ask(1, end=True)
    peer.requests[1].stream.send(HEAD, b"x" * 100_000, TRAILERS)
    peer.heard()
    peer.settings(INITIAL_WINDOW_SIZE=0).window(0, 1 << 20)
    assert [frame.kind for frame in peer.heard()] == ["SETTINGS"]
    peer.window(1, 65_535)  # back at zero
    assert peer.heard() == []
    peer.window(1, 40_000)
    assert len(body_of(peer.heard(), 1)) == 100_000 - 65_535


def test_small_answers_do_not_overtake_what_waits_on_their_stream() -> None:
    peer = Peer().settings(INITIAL_WINDOW_SIZE=4).ask(1, end=True)
    peer.heard()
    stream = peer.requests[1].stream
    stream.send(HEAD, b"123456", None)
    stream.send(None, b"7", None)
    stream.send(None, b"", TRAILERS)
    peer.window(1, 100)
    heard = peer.heard()
    assert body_of(heard, 1) == b"1234567"
    assert heard[-1].ends


def test_nothing_but_the_head_is_written_while_the_socket_takes_nothing() -> None:
    peer = Peer().ask(1, end=True)
    peer.http2.outbox.writable = False
    peer.requests[1].stream.send(HEAD, b"answer", TRAILERS)
    assert [frame.kind for frame in peer.heard()] == ["HEADERS"]
    peer.http2.outbox.writable = True
    peer.http2.outbox.flush()
    assert [frame.kind for frame in peer.heard()] == ["DATA", "HEADERS"]


# -- floods --------------------------------------------------------------------------------------------------


def reset_rapidly(peer: Peer, turn: int) -> None:
    stream = 2 * turn + 1
    peer.ask(stream).frame(frames.RST_STREAM, 0, stream, bytes(4))


FLOODS = {
    "PING": lambda peer, _: peer.frame(frames.PING, 0, 0, b"12345678"),
    "SETTINGS": lambda peer, _: peer.settings(MAX_FRAME_SIZE=1 << 15),
    "SETTINGS ACK": lambda peer, _: peer.frame(frames.SETTINGS, frames.ACK),
    "PRIORITY": lambda peer, _: peer.frame(frames.PRIORITY, 0, 1001, b"\0\0\0\3\0"),
    "unknown": lambda peer, _: peer.frame(77, 0, 0, b"?"),
    "WINDOW_UPDATE": lambda peer, _: peer.window(0, 1),
    "empty DATA": lambda peer, turn: (peer.ask(1) if not turn else peer).data(1, b""),
    "rapid reset": reset_rapidly,
    "refused streams": lambda peer, turn: peer.ask(2 * turn + 1),
    "CONTINUATION": lambda peer, turn: (
        peer.frame(frames.CONTINUATION, 0, 1) if turn else peer.frame(frames.HEADERS, 0, 1, b"\x83")
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_the_connection(flood: str) -> None:
    peer = Peer()
    for turn in range(ALLOWANCE + 200):
        FLOODS[flood](peer, turn)
    last = peer.heard()[-1]
    assert (last.kind, last.code) == ("GOAWAY", ErrorCode.ENHANCE_YOUR_CALM)
    assert peer.http2.ended
    assert not peer.http2.streams
    peer.frame(frames.PING, 0, 0, b"12345678")
    assert peer.heard() == []


def test_work_pays_for_cheap_frames() -> None:
    peer = Peer()
    for turn in range(2 * ALLOWANCE):
        stream = 2 * turn + 1
        peer.ask(stream, end=True).frame(frames.PING, 0, 0, b"12345678").window(0, 10)
        peer.requests[stream].stream.send(HEAD, b"answer", TRAILERS)
    assert not peer.http2.ended


def test_a_header_block_without_end() -> None:
    peer = Peer().frame(frames.HEADERS, 0, 1, b"\x83")
    for _ in range(20):
        peer.frame(frames.CONTINUATION, 0, 1, b"\0\x01a\x7f\x80\x08" + b"x" * 1151)
    assert peer.heard_only().code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_small_block_that_swells() -> None:
    """An HPACK bomb: one large entry in the dynamic table, named again and again."""
    peer = Peer()
    block = peer.encoder.encode([*REQUEST, ("bomb", "x" * 3900)], huffman=False) + b"\xbe" * 4000
    peer.frame(frames.HEADERS, frames.END_HEADERS, 1, block)
    assert peer.heard_only().code is ErrorCode.ENHANCE_YOUR_CALM


def test_a_frame_that_is_too_large() -> None:
    peer = Peer(max_frame_bytes=1 << 14).ask(1)
    peer.say(frames.begin_frame(frames.DATA, 0, (1 << 14) + 1) + (1).to_bytes(4, "big"))
    assert peer.heard_only().code is ErrorCode.FRAME_SIZE_ERROR
    assert peer.requests[1].abandoned


# -- the end -------------------------------------------------------------------------------------------------


def test_going_away_loses_no_request() -> None:
    peer = Peer().ask(1, end=True)
    peer.http2.go_away()
    first, ping = peer.heard()
    assert (first.kind, first.code) == ("GOAWAY", ErrorCode.NO_ERROR)
    assert int.from_bytes(first.payload[:4], "big") == frames.MAX_WINDOW
    peer.ask(3, end=True)  # was under way
    peer.frame(frames.PING, frames.ACK, 0, ping.payload)
    final = peer.heard_only()
    assert int.from_bytes(final.payload[:4], "big") == 3
    peer.ask(5, end=True)
    assert peer.heard_only().code is ErrorCode.REFUSED_STREAM
    for stream in (1, 3):
        assert not peer.http2.idle_and_gone
        peer.requests[stream].stream.send(HEAD, b"answer", TRAILERS)
    assert peer.http2.idle_and_gone


def test_a_client_that_goes_away_gets_its_answers() -> None:
    peer = Peer().ask(1, end=True).frame(frames.GOAWAY, 0, 0, bytes(8))
    assert not peer.http2.idle_and_gone
    peer.requests[1].stream.send(HEAD, b"answer", TRAILERS)
    assert [frame.kind for frame in peer.heard()] == ["HEADERS", "DATA", "HEADERS"]
    assert peer.http2.idle_and_gone


def test_a_broken_connection_abandons_every_stream() -> None:
    peer = Peer().ask(1).ask(3, end=True).frame(frames.PING, 0, 0, b"short")
    assert peer.heard_only().code is ErrorCode.FRAME_SIZE_ERROR
    assert all(request.abandoned for request in peer.requests.values())
    peer.requests[3].stream.send(HEAD, b"too late", TRAILERS)
    assert peer.heard() == []


def test_what_is_no_http2_is_told_so() -> None:
    peer = Peer(greet=False)
    peer.heard()
    peer.say(b"SSH-2.0-OpenSSH_9.2\r\n")
    refusal = peer.heard_only()
    assert refusal.code is ErrorCode.PROTOCOL_ERROR
    assert b"this port speaks gRPC" in refusal.payload
