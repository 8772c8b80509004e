"""The shortcut for heads that were said before: what comes after them is judged as strictly as ever."""

import json
from collections.abc import Iterator

import pytest
from doubtful import DOUBTFUL, INFER, LIVE
from serving import ServerProcess, Wire

OTHER = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [4, 3, 2, 1]}]}
BODY = json.dumps({"inputs": [{**OTHER["inputs"][0], "data": [1, 2, 3, 4]}]}).encode()
HEAD = INFER + b"Content-Length: %d\r\n\r\n" % len(BODY)


@pytest.fixture
def wire(dense_server: ServerProcess) -> Iterator[Wire]:
    """A connection on which the same request came three times: the third took the shortcut."""
    with dense_server.wire() as wire:
        answers = [wire.send(HEAD + BODY).read() for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert len({answer.body for answer in answers}) == 1
        yield wire


@pytest.mark.parametrize(("text", "status"), DOUBTFUL)
def test_doubtful_framing_behind_a_known_head_ends_the_connection(
    wire: Wire, text: bytes, status: int
) -> None:
    wire.send(text)
    reply = wire.read()
    assert reply.status == status, reply.body
    assert reply.headers["connection"] == "close"
    assert wire.at_end()


def test_a_known_head_with_another_body_is_another_request(dense_server: ServerProcess, wire: Wire) -> None:
    body = json.dumps(OTHER).encode()
    assert len(body) == len(BODY)
    want = dense_server.infer("dense", OTHER).json
    assert wire.send(HEAD + body).read().json == want
    assert wire.send(HEAD + BODY).read().json != want


@pytest.mark.parametrize("cut", [1, 10, len(HEAD) - 1, len(HEAD), len(HEAD) + 1, len(HEAD) + len(BODY) - 1])
def test_a_known_request_in_two_pieces(wire: Wire, cut: int) -> None:
    text = HEAD + BODY
    for _ in range(2):
        wire.send(text[:cut])
        assert wire.send(text[cut:]).read().status == 200


def test_a_known_request_with_the_next_one_behind_it(wire: Wire) -> None:
    wire.send(HEAD + BODY + LIVE + HEAD + BODY)
    assert wire.read().status == 200
    assert wire.read().json == {"live": True}
    assert wire.read().status == 200


def test_a_known_head_with_the_beginning_of_the_next_request_in_its_body(wire: Wire) -> None:
    """As many bytes as before, but what should be the end of the body is the next request: it is the body."""
    smuggled = (b"{" + LIVE)[: len(BODY)].ljust(len(BODY))
    reply = wire.send(HEAD + smuggled).read()
    assert reply.status == 400
    assert "not valid JSON" in reply.json["error"]
    assert wire.send(LIVE).read().json == {"live": True}


def test_a_head_that_differs_in_one_byte_is_read_anew(wire: Wire) -> None:
    other = HEAD.replace(b"/dense/", b"/densf/")
    assert wire.send(other + BODY).read().status == 404
    assert wire.send(HEAD + BODY).read().status == 200


def test_a_shorter_body_is_waited_for(wire: Wire) -> None:
    wire.send(HEAD + BODY[:-1])
    assert wire.send(BODY[-1:]).read().status == 200


def test_a_head_that_asks_for_the_end_is_no_shortcut(dense_server: ServerProcess) -> None:
    text = HEAD.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + BODY
    with dense_server.wire() as wire:
        reply = wire.send(text).read()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert wire.at_end()


@pytest.mark.parametrize("line", [b"Expect: 100-continue\r\n", b"Expect: 100-Continue\r\n"])
def test_a_repeated_expectation_is_met_every_time(dense_server: ServerProcess, line: bytes) -> None:
    head = HEAD.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n")
    with dense_server.wire() as wire:
        for _ in range(3):
            assert wire.send(head).read().status == 100
            assert wire.send(BODY).read().status == 200
        assert wire.send(head + BODY).read().status == 200


def test_chunked_bodies_are_never_known(dense_server: ServerProcess) -> None:
    head = INFER + b"Transfer-Encoding: chunked\r\n\r\n"
    good = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    short = head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY) - 1, BODY)
    with dense_server.wire() as wire:
        for _ in range(3):
            assert wire.send(good).read().status == 200
        assert wire.send(short).read().status == 400
        assert wire.at_end()


def test_a_known_request_within_the_body_of_another_is_that_body(
    dense_server: ServerProcess, wire: Wire
) -> None:
    """What is known is known on every connection, but only of one that is between two requests."""
    text = HEAD + BODY
    with dense_server.wire() as other:
        head = INFER + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(text)
        assert other.send(head).read().status == 100  # so that the rest arrives by itself
        reply = other.send(text).read()
        assert reply.status == 400
        assert "not valid JSON" in reply.json["error"]
        assert other.send(text).read().status == 200
    assert wire.send(text).read().status == 200


@pytest.mark.parametrize("cut", [1, len(HEAD) - 1, len(HEAD)])
def test_a_known_request_between_the_pieces_of_another_connections(
    dense_server: ServerProcess, wire: Wire, cut: int
) -> None:
    other_body = json.dumps(OTHER).encode()
    text = HEAD + other_body
    want = dense_server.infer("dense", OTHER).json
    with dense_server.wire() as other:
        other.send(text[:cut])
        assert wire.send(HEAD + BODY).read().json != want
        assert other.send(text[cut:]).read().json == want


def test_a_body_without_a_head_is_no_request_on_a_new_connection(
    dense_server: ServerProcess, wire: Wire
) -> None:
    with dense_server.wire() as other:
        assert other.send(BODY).read().status == 400
        assert other.at_end()
    assert wire.send(HEAD + BODY).read().status == 200
