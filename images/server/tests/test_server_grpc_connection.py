"""The gRPC port on real sockets, byte by byte: clients that are slow, silent or elsewhere, and the end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
from grpc_client import GrpcClient
from hpack import Decoder, Encoder
from http2_peer import REQUEST
from serving import ServerProcess, Wire

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.connection import Connection
from edgemodel_server.grpc.endpoint import Endpoint
from edgemodel_server.grpc.messages import add_prefix
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.http.messages import Limits

LIMITS = Limits(max_body_bytes=1000, head_seconds=10, idle_seconds=75, linger_seconds=2)
GREETING = frames.PREFACE + frames.make_settings({})
CALL = [(name, "/a/Echo" if name == ":path" else value) for name, value in REQUEST]


class Socket:
    """A client's socket that says frames and reads them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.encoder = Encoder()

    def say(self, data: bytes) -> "Socket":
        self.writer.write(data)
        return self

    def ask(self, stream: int, fields: list[tuple[str, str]] | None = None) -> "Socket":
        block = self.encoder.encode(fields or CALL)
        return self.say(frames.make_frame(frames.HEADERS, frames.END_HEADERS, stream, block))

    def data(self, stream: int, payload: bytes, *, end: bool = True) -> "Socket":
        return self.say(frames.make_frame(frames.DATA, frames.END_STREAM if end else 0, stream, payload))

    async def frame(self) -> tuple[int, int, int, bytes]:
        """Read one frame: kind, flags, stream, payload."""
        head = await asyncio.wait_for(self.reader.readexactly(9), 30)
        payload = await self.reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    async def find(self, kind: int) -> tuple[int, int, int, bytes]:
        """Read until a frame of a kind comes."""
        while (found := await self.frame())[0] != kind:
            pass
        return found

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        try:
            return await asyncio.wait_for(self.reader.read(), 30)
        except ConnectionResetError:
            return b""


@asynccontextmanager
async def serving(handle: Callable[[Rpc, bytes], None]) -> AsyncIterator[tuple[Endpoint, Callable[[], Any]]]:
    """Serve two methods, /a/Echo and /a/Talk, in this process; sweeping is left to the test."""
    loop = asyncio.get_running_loop()
    methods = [Method("/a/Echo", handle), Method("/a/Talk", handle, streaming=True)]
    endpoint = Endpoint(loop, methods, LIMITS, lambda: None)
    server = await loop.create_server(lambda: Connection(endpoint), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    opened: list[Socket] = []

    async def connect() -> Socket:
        opened.append(Socket(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)))
        return opened[-1]

    try:
        yield endpoint, connect
    finally:
        for one in opened:
            one.writer.close()
        server.close()
        await endpoint.finish(0)
        endpoint.stop_sweeping()


def echo(rpc: Rpc, message: bytes) -> None:
    rpc.answer(message)


def message(data: bytes) -> bytes:
    return add_prefix(len(data)) + data


async def pass_time(endpoint: Endpoint, seconds: float) -> None:
    """Let the connections look at what is late as if it were so many seconds later."""
    await asyncio.sleep(0.05)  # what is under way arrives
    for connection in tuple(endpoint.connections):
        connection.sweep(monotonic() + seconds)
    await asyncio.sleep(0.05)


async def test_an_echo() -> None:
    async with serving(echo) as (_, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, message(b"hello"))
        *_, payload = await client.find(frames.DATA)
        assert payload == message(b"hello")


async def test_a_client_that_never_begins_is_cut() -> None:
    async with serving(echo) as (endpoint, connect):
        for text in (b"", b"PRI * HTTP/2.0", frames.PREFACE):
            (await connect()).say(text)
        await pass_time(endpoint, 9)
        assert len(endpoint.connections) == 3
        await pass_time(endpoint, 11)
        assert not endpoint.connections


async def test_a_client_that_leaves_a_header_block_open_is_cut() -> None:
    async with serving(echo) as (endpoint, connect):
        client = (await connect()).say(GREETING + frames.make_frame(frames.HEADERS, 0, 1, b"\x83"))
        await pass_time(endpoint, 0)
        client.say(frames.make_frame(frames.CONTINUATION, 0, 1, b"\x86"))  # a little more does not help
        await pass_time(endpoint, 9)
        assert endpoint.connections
        await pass_time(endpoint, 11)
        assert not endpoint.connections


async def test_a_request_that_does_not_arrive_in_time_is_refused_alone() -> None:
    async with serving(echo) as (endpoint, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, message(b"hello")[:7], end=False)
        await pass_time(endpoint, 11)
        _, flags, stream, block = await client.find(frames.HEADERS)
        fields = dict(Decoder().decode(block))
        assert (stream, bool(flags & frames.END_STREAM)) == (1, True)
        assert fields["grpc-status"] == "4"
        assert fields["grpc-message"] == "the request did not arrive in time"
        client.ask(3).data(3, message(b"again"))
        assert (await client.find(frames.DATA))[3] == message(b"again")


async def test_a_client_that_takes_no_answer_loses_its_stream() -> None:
    async with serving(echo) as (endpoint, connect):
        narrow = frames.make_settings({frames.Setting.INITIAL_WINDOW_SIZE: 3})
        client = (await connect()).say(frames.PREFACE + narrow).ask(1).data(1, message(b"hello"))
        await client.find(frames.DATA)
        await pass_time(endpoint, 11)
        _, _, stream, payload = await client.find(frames.RST_STREAM)
        assert (stream, int.from_bytes(payload, "big")) == (1, frames.ErrorCode.CANCEL)


async def test_a_client_that_reads_nothing_at_all_is_cut() -> None:
    large = b"x" * 30_000_000

    def answer(rpc: Rpc, _: bytes) -> None:
        rpc.answer(large)

    async with serving(answer) as (endpoint, connect):
        client = await connect()
        client.writer.transport.pause_reading()
        client.say(frames.PREFACE + frames.make_settings({frames.Setting.INITIAL_WINDOW_SIZE: 1 << 30}))
        client.say(frames.make_window_update(0, 1 << 30)).ask(1).data(1, message(b""))
        await pass_time(endpoint, 9)
        assert endpoint.connections
        await pass_time(endpoint, 20_000)  # as long as its pace allows for 30 MB
        assert not endpoint.connections


async def test_an_idle_client_is_sent_away_politely() -> None:
    async with serving(echo) as (endpoint, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, message(b"hello"))
        await client.find(frames.DATA)
        await pass_time(endpoint, 76)
        assert int.from_bytes((await client.find(frames.GOAWAY))[3][:4], "big") == frames.MAX_WINDOW
        *_, opaque = await client.find(frames.PING)
        client.ask(3).data(3, message(b"late")).say(frames.make_frame(frames.PING, frames.ACK, 0, opaque))
        assert (await client.find(frames.DATA))[3] == message(b"late")
        last = await client.find(frames.GOAWAY)
        assert int.from_bytes(last[3][:4], "big") == 3
        assert await client.rest() == b""
        await pass_time(endpoint, 3)
        assert not endpoint.connections


async def test_a_silent_client_with_a_stream_must_answer_a_ping() -> None:
    async with serving(echo) as (endpoint, connect):
        fields = [(name, "/a/Talk" if name == ":path" else value) for name, value in REQUEST]
        alive = (await connect()).say(GREETING).ask(1, fields)
        dead = (await connect()).say(GREETING).ask(1, fields)
        await pass_time(endpoint, 76)
        *_, opaque = await alive.find(frames.PING)
        await dead.find(frames.PING)
        alive.say(frames.make_frame(frames.PING, frames.ACK, 0, opaque))
        await pass_time(endpoint, 87)
        assert len(endpoint.connections) == 1
        alive.data(1, message(b"still here"), end=False)
        assert (await alive.find(frames.DATA))[3] == message(b"still here")


async def test_a_client_that_left_is_not_answered() -> None:
    began: asyncio.Future[Rpc] = asyncio.get_running_loop().create_future()
    left = asyncio.Event()

    def keep(rpc: Rpc, _: bytes) -> None:
        rpc.on_abandon = left.set
        began.set_result(rpc)

    async with serving(keep) as (endpoint, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, message(b"hello"))
        rpc = await asyncio.wait_for(began, 30)
        client.writer.transport.abort()
        await asyncio.wait_for(left.wait(), 30)
        rpc.answer(b"too late")
        await pass_time(endpoint, 0)
        assert not endpoint.connections


async def test_a_handler_that_fails_says_so_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    def fail(rpc: Rpc, _: bytes) -> None:
        raise ZeroDivisionError("secret")

    async with serving(fail) as (_, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, message(b"hello"))
        *_, block = await client.find(frames.HEADERS)
        fields = dict(Decoder().decode(block))
        assert (fields["grpc-status"], "secret" in fields["grpc-message"]) == ("13", False)
        assert "call failed" in caplog.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", "12", "this method takes one message, and there was none"),
        (message(b"one") + message(b"two"), "12", "this method takes one message"),
        (message(b"one")[:-1], "13", "the request ended within a message"),
        (message(b"one") + b"\0\0", "13", "the request ended within a message"),
        (
            b"\x01" + message(b"one")[1:],
            "12",
            "compressed messages are not supported: send them with identity",
        ),
        (b"\x02" + message(b"one")[1:], "13", "the compression flag of a message is 2, not 0"),
        (message(b"x" * 1001), "8", "the message has 1001 bytes, the largest may have 1000"),
    ],
)
async def test_bodies_that_are_not_one_message(body: bytes, status: str, words: str) -> None:
    async with serving(echo) as (_, connect):
        client = (await connect()).say(GREETING).ask(1).data(1, body)
        *_, block = await client.find(frames.HEADERS)
        fields = dict(Decoder().decode(block))
        assert (fields["grpc-status"], fields["grpc-message"]) == (status, words)


async def test_unfinished_messages_of_a_connection_are_bounded_together() -> None:
    async with serving(echo) as (_, connect):
        client = (await connect()).say(GREETING)
        for stream in (1, 3, 5):
            client.ask(stream).data(stream, message(b"x" * 900)[:500], end=False)
        _, _, stream, block = await client.find(frames.HEADERS)
        assert (stream, dict(Decoder().decode(block))["grpc-status"]) == (5, "8")
        client.data(1, message(b"x" * 900)[500:])
        assert (await client.find(frames.DATA))[3] == message(b"x" * 900)
        client.ask(7).data(7, message(b"x" * 900))
        assert (await client.find(frames.DATA))[3] == message(b"x" * 900)


@pytest.mark.parametrize("timeout", ["", "1", "123456789S", "1X", "-1S", "1.5S"])
async def test_a_timeout_that_is_none(timeout: str) -> None:
    async with serving(echo) as (_, connect):
        client = (await connect()).say(GREETING).ask(1, [*CALL, ("grpc-timeout", timeout)])
        *_, block = await client.find(frames.HEADERS)
        fields = dict(Decoder().decode(block))
        assert fields["grpc-status"] == "3"
        assert fields["grpc-message"].startswith("grpc-timeout must be up to eight digits")


async def test_a_deadline_that_passes_before_the_request_is_complete() -> None:
    async with serving(echo) as (_, connect):
        client = (await connect()).say(GREETING).ask(1, [*CALL, ("grpc-timeout", "20m")])
        *_, block = await client.find(frames.HEADERS)
        fields = dict(Decoder().decode(block))
        assert fields["grpc-status"] == "4"
        assert fields["grpc-message"] == "the deadline of the call has passed"


@pytest.mark.parametrize(
    ("change", "status"), [((":method", "GET"), "405"), (("content-type", "application/json"), "415")]
)
async def test_what_is_not_of_grpc_is_refused_in_the_words_of_http(
    change: tuple[str, str], status: str
) -> None:
    async with serving(echo) as (_, connect):
        fields = [change if name == change[0] else (name, value) for name, value in CALL]
        client = (await connect()).say(GREETING).ask(1, fields).data(1, b"{}")
        *_, block = await client.find(frames.HEADERS)
        assert dict(Decoder().decode(block))[":status"] == status
        assert b"this port speaks gRPC" in (await client.find(frames.DATA))[3]


def test_http1_is_told_where_it_is(grpc_server: ServerProcess, grpc_client: GrpcClient) -> None:
    with Wire(grpc_client.port) as wire:
        wire.send(b"GET /v2/health/live HTTP/1.1\r\nHost: test\r\n\r\n")
        assert wire.stream.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert b"this port speaks gRPC" in wire.stream.read()
