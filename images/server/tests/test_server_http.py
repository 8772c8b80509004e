"""HTTP, byte by byte: framing, order, limits, slow clients, and requests meant to confuse."""

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from time import monotonic
from typing import Any

import pytest
import uvloop
from doubtful import DOUBTFUL, INFER, LIVE
from serving import ServerProcess, Wire

from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits, Request, json_response

DOCUMENT = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
).encode()


def chunked(*chunks: bytes, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n" + trailer + b"\r\n"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2", 200),
        ("GET", "/v2/", 200),
        ("GET", "/v2?x=1", 200),
        ("GET", "/v2/health/live", 200),
        ("GET", "/v2/health/ready", 200),
        ("GET", "/v2/models/dense", 200),
        ("GET", "/v2/models/d%65nse", 200),
        ("GET", "http://else.where/v2/models/dense", 200),
        ("GET", "/v2/models/dense/ready", 200),
        ("GET", "/v2/models/dense/versions/7", 200),
        ("GET", "/v2/models/dense/versions/7/ready", 200),
        ("GET", "/metrics", 200),
        ("GET", "/", 404),
        ("GET", "/v1", 404),
        ("GET", "*", 404),
        ("GET", "/v2/models/", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/v2/repository", 404),
        ("GET", "/v2/repository/models/other/load", 404),
        ("GET", "/v2/models/other", 404),
        ("GET", "/v2/models/dense/versions/8", 404),
        ("GET", "/v2/models/dense/versions/8/infer", 404),
        ("GET", "/v2/models/dense/../dense", 404),
        ("GET", "/v2/models/%ff%00", 404),
        ("GET", "/v2/models/dense/infer", 405),
        ("POST", "/v2/models/dense", 405),
        ("DELETE", "/v2/health/live", 405),
    ],
)
def test_paths_and_methods(dense_server: ServerProcess, method: str, path: str, status: int) -> None:
    reply = dense_server.ask(method, path)
    assert reply.status == status
    if status >= 400:
        assert reply.json["error"]
    if status == 405:
        assert reply.headers["allow"] == ("POST" if path.endswith("infer") else "GET, HEAD")


def test_head_is_get_without_the_body(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        head = wire.send(b"HEAD /v2 HTTP/1.1\r\nHost: test\r\n\r\n").read(head_only=True)
        get = wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\n\r\n").read()
    assert head.status == 200
    assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


def test_a_missing_version_is_told(dense_server: ServerProcess) -> None:
    reply = dense_server.ask("GET", "/v2/models/dense/versions/8")
    assert reply.json == {"error": 'model "dense" has no version "8", only "7"'}


@pytest.mark.parametrize("cut", [1, 40, len(DOCUMENT)])
def test_chunked_bodies(dense_server: ServerProcess, cut: int) -> None:
    pieces = [DOCUMENT[start : start + cut] for start in range(0, len(DOCUMENT), cut)]
    with dense_server.wire() as wire:
        wire.send(INFER + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*pieces, trailer=b"Host: x\r\n"))
        assert wire.read().status == 200
        assert wire.send(LIVE).read().status == 200


def test_a_request_in_single_bytes(dense_server: ServerProcess) -> None:
    text = INFER + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT
    with dense_server.wire() as wire:
        for position in range(len(text)):
            wire.send(text[position : position + 1])
        assert wire.read().status == 200


def test_expect_100_continue_is_answered_before_the_body(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(INFER + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(DOCUMENT))
        assert wire.read().status == 100
        assert wire.send(DOCUMENT).read().status == 200


def test_expect_100_continue_of_a_pipelined_request_waits_its_turn(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(LIVE + INFER + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(DOCUMENT))
        assert wire.read().json == {"live": True}
        assert wire.read().status == 100
        assert wire.send(DOCUMENT).read().status == 200


def test_no_100_continue_when_the_body_is_already_refused(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(INFER + b"Content-Length: 999999999999\r\nExpect: 100-continue\r\n\r\n")
        reply = wire.read()
        assert reply.status == 413
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_pipelined_requests_are_answered_in_order(dense_server: ServerProcess) -> None:
    texts = []
    for number in range(50):
        body = DOCUMENT[:-1] + b', "id": "%d"}' % number
        texts += [INFER + b"Content-Length: %d\r\n\r\n" % len(body) + body, LIVE]
    with dense_server.wire() as wire:
        wire.send(b"".join(texts))
        for number in range(50):
            assert wire.read().json["id"] == str(number)
            assert wire.read().json == {"live": True}


def test_keep_alive_is_the_rule_of_http_1_1(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        for _ in range(3):
            assert "connection" not in wire.send(LIVE).read().headers
        reply = wire.send(LIVE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).read()
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_http_1_0_closes_unless_asked(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        reply = wire.send(b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").read()
        assert reply.headers["connection"] == "keep-alive"
        reply = wire.send(b"GET /v2 HTTP/1.0\r\n\r\n").read()
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_an_upgrade_is_declined_by_an_ordinary_answer(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        reply = wire.read()
        assert reply.status == 200
        assert reply.headers["connection"] == "close"
        assert wire.at_end()


def test_a_client_that_stops_sending_still_gets_its_answer(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(INFER + b"Content-Length: %d\r\n\r\n" % len(DOCUMENT) + DOCUMENT)
        wire.socket.shutdown(1)
        assert wire.read().status == 200
        assert wire.at_end()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v2 HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 20000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: test\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 5000 + b"\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: test\r\nX: " + b"a" * 700000,
        INFER + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 700000,
        INFER + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nX: " + b"a" * 700000,
        INFER + b"Transfer-Encoding: chunked\r\n\r\n1;x=" + b"a" * 700000,
    ],
)
def test_oversized_heads_get_431(dense_server: ServerProcess, head: bytes) -> None:
    with dense_server.wire() as wire:
        reply = wire.send(head).read()
        assert reply.status == 431
        assert reply.json["error"]
        assert wire.at_end()


def test_bodies_over_the_limit_get_413_however_they_are_framed(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        assert wire.send(INFER + b"Content-Length: %d\r\n\r\n" % (1 << 40)).read().status == 413
        assert wire.at_end()
    megabyte = bytes(1 << 20)
    with dense_server.wire() as wire:
        wire.send(INFER + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            wire.send(b"100000\r\n" + megabyte + b"\r\n")
        wire.send(b"1\r\na\r\n")
        assert wire.read().status == 413
        assert wire.at_end()


@pytest.mark.parametrize(("text", "status"), DOUBTFUL)
def test_requests_of_doubtful_framing_are_refused_and_end_the_connection(
    dense_server: ServerProcess, text: bytes, status: int
) -> None:
    with dense_server.wire() as wire:
        wire.send(LIVE + text)
        assert wire.read().json == {"live": True}  # what came before is answered
        reply = wire.read()
        assert reply.status == status, reply.body
        assert reply.json["error"]
        assert reply.headers["connection"] == "close"
        assert wire.at_end()  # and nothing behind it is


def test_nothing_behind_the_last_request_is_read_as_another(dense_server: ServerProcess) -> None:
    with dense_server.wire() as wire:
        wire.send(b"GET /v2 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n" + LIVE)
        assert wire.read().json["name"] == "edgemodel-server"
        assert wire.at_end()


class Bench:
    """An endpoint in this process, whose clock the test turns."""

    def __init__(self, limits: Limits) -> None:
        self.held: list[Request] = []
        self.endpoint = Endpoint(asyncio.get_running_loop(), self.held.append, limits)
        self.port = 0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110 - what is waited for is the server's own state
                await asyncio.sleep(0)

    async def connect(self) -> tuple[Connection, Wire]:
        before = set(self.endpoint.connections)
        wire = await asyncio.to_thread(Wire, self.port)
        await self.until(lambda: len(self.endpoint.connections) > len(before))
        (connection,) = self.endpoint.connections - before
        return connection, wire


Scenario = Callable[..., Coroutine[Any, Any, None]]


def on_a_bench(scenario: Scenario) -> Callable[..., None]:
    """Run a test with a bench as its first argument, on the loop that the server uses."""

    async def run(arguments: dict[str, Any]) -> None:
        bench = Bench(Limits(max_body_bytes=100 << 20))
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Connection(bench.endpoint), "127.0.0.1", 0)
        bench.port = server.sockets[0].getsockname()[1]
        await scenario(bench, **arguments)
        server.close()
        await bench.endpoint.finish(0)
        await bench.until(lambda: not bench.endpoint.connections)

    def test(**arguments: Any) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(arguments))

    parameters = list(inspect.signature(scenario).parameters.values())[1:]
    test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return test


@pytest.mark.parametrize(
    ("sent", "after", "want"),
    [
        (b"", 74, None),
        (b"", 76, b""),
        (b"GET /v2 HTTP/1.1\r\nHost:", 9, None),
        (b"GET /v2 HTTP/1.1\r\nHost:", 11, b"HTTP/1.1 408 "),
        (INFER + b"Content-Length: 99\r\n\r\nabc", 9, None),
        (INFER + b"Content-Length: 99\r\n\r\nabc", 11, b"HTTP/1.1 408 "),
        (INFER + b"Content-Length: 99999\r\n\r\n" + bytes(40960), 19, None),
        (INFER + b"Content-Length: 99999\r\n\r\n" + bytes(40960), 22, b"HTTP/1.1 408 "),
    ],
)
@on_a_bench
async def test_slow_clients_are_ended(bench: Bench, sent: bytes, after: float, want: bytes | None) -> None:
    connection, wire = await bench.connect()
    with wire:
        began = monotonic()
        wire.send(sent)
        if sent:
            await bench.until(lambda: connection._incoming is not None)
            body = sent.partition(b"\r\n\r\n")[2]
            await bench.until(
                lambda: connection._incoming is not None and connection._incoming.size == len(body)
            )
        connection.enforce_deadline(began + after)
        if want is None:
            assert connection in bench.endpoint.connections
            return
        line = await asyncio.to_thread(wire.stream.readline)
        assert line.startswith(want)
        assert bool(line) == bool(want)


@on_a_bench
async def test_a_client_that_waits_for_its_answer_is_never_too_slow(bench: Bench) -> None:
    connection, wire = await bench.connect()
    with wire:
        wire.send(LIVE)
        await bench.until(lambda: bool(bench.held))
        connection.enforce_deadline(monotonic() + 3600)
        bench.held[0].answer(json_response(200, {}))
        assert (await asyncio.to_thread(wire.read)).status == 200


@on_a_bench
async def test_a_client_that_does_not_read_is_cut(bench: Bench) -> None:
    connection, wire = await bench.connect()
    with wire:
        wire.send(LIVE)
        await bench.until(lambda: bool(bench.held))
        bench.held[0].answer(json_response(200, "a" * (32 << 20)))
        await bench.until(lambda: not connection._writable)
        connection.enforce_deadline(monotonic() + 1)
        assert connection in bench.endpoint.connections
        connection.enforce_deadline(monotonic() + 24 * 3600)
        await bench.until(lambda: connection not in bench.endpoint.connections)


@on_a_bench
async def test_large_answers_arrive_whole_and_the_next_request_waits(bench: Bench) -> None:
    _, wire = await bench.connect()
    with wire:
        wire.send(LIVE + LIVE)
        await bench.until(lambda: bool(bench.held))
        bench.held[0].answer(json_response(200, "a" * (32 << 20)))
        assert len(bench.held) == 1
        reply = await asyncio.to_thread(wire.read)
        assert len(reply.body) == (32 << 20) + 2
        await bench.until(lambda: len(bench.held) == 2)
        bench.held[1].answer(json_response(200, 2))
        assert (await asyncio.to_thread(wire.read)).json == 2


@on_a_bench
async def test_an_answer_for_a_client_that_left_goes_nowhere(bench: Bench) -> None:
    connection, wire = await bench.connect()
    with wire:
        wire.send(LIVE)
        await bench.until(lambda: bool(bench.held))
        connection.abort()
        await bench.until(lambda: not bench.endpoint.connections)
        bench.held[0].answer(json_response(200, {}))
        assert bench.endpoint.responses == {"2xx": 1, "4xx": 0, "5xx": 0}
