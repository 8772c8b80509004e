"""Asks the webhook as an API server does: HTTPS, connections that stay open, at a rate or without pause."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OVERLOADED = "is overloaded"
"""Words of the refusal of a webhook that has no room."""


@dataclass(frozen=True)
class Endpoint:
    """Where the webhook listens, and whom its certificate must name."""

    port: int
    host: str
    context: ssl.SSLContext

    def request(self, review: bytes) -> bytes:
        """Give the bytes of a request about a review."""
        head = (
            f"POST /validate?timeout=10s HTTP/1.1\r\nHost: {self.host}:443\r\nUser-Agent: kube-apiserver\r\n"
            "Accept: application/json\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(review)}\r\n\r\n"
        )
        return head.encode() + review


@dataclass(frozen=True)
class Answer:
    """What came back and when; `shed`: refused because there was no room; `asked`: which question."""

    seconds: float
    allowed: bool
    shed: bool = False
    broken: bool = False
    asked: int = 0


@dataclass
class Connection:
    """One open connection; a request at a time."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, request: bytes) -> bytes:
        """Send a request and give the body of the answer. Raises OSError and ValueError."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head.decode().split("\r\n")[1:])
        }
        body = await self.reader.readexactly(int(fields["content-length"]))
        if head[9:12] != b"200":
            raise OSError(f"answered with {head[9:12].decode()}")
        return body


@asynccontextmanager
async def connected(endpoint: Endpoint, count: int) -> AsyncIterator[list[Connection]]:
    """Open connections; they are closed at the end of the block."""
    opened = [
        await asyncio.open_connection(
            "127.0.0.1", endpoint.port, ssl=endpoint.context, server_hostname=endpoint.host, limit=2**20
        )
        for _ in range(count)
    ]
    try:
        yield [Connection(*streams) for streams in opened]
    finally:
        for _, writer in opened:
            writer.close()


@dataclass
class Tally:
    """All answers to one load."""

    answers: list[Answer] = field(default_factory=list)
    seconds: float = 0.0

    def quantile(self, share: float) -> float:
        """Give the time (ms) within which a share of the answers came."""
        times = sorted(answer.seconds for answer in self.answers)
        return 1000 * times[min(len(times) - 1, int(share * len(times)))]

    @property
    def per_second(self) -> float:
        """How many answers came each second."""
        return len(self.answers) / self.seconds

    def count(self, holds: Callable[[Answer], bool]) -> int:
        """Count the answers of which something is true."""
        return sum(1 for answer in self.answers if holds(answer))


async def at_a_rate(
    endpoint: Endpoint, requests: Sequence[bytes], rate: float, seconds: float, connections: int = 16
) -> Tally:
    """Ask at moments fixed beforehand; a time counts from its moment on, so that waiting counts, too."""
    tally = Tally()
    async with connected(endpoint, connections) as opened:
        free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in opened:
            free.put_nowait(connection)
        began = time.perf_counter() + 0.05

        async def one(number: int) -> None:
            moment = began + number / rate
            await asyncio.sleep(max(0.0, moment - time.perf_counter()))
            connection = await free.get()
            asked = number % len(requests)
            tally.answers.append(await _timed(connection, requests[asked], asked, moment))
            free.put_nowait(connection)

        await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
        tally.seconds = time.perf_counter() - began
    return tally


async def at_once(endpoint: Endpoint, requests: Sequence[bytes], connections: int, seconds: float) -> Tally:
    """Ask over each connection anew as soon as the answer is there."""
    tally = Tally()
    async with connected(endpoint, connections) as opened:
        began = time.perf_counter()

        async def loop(connection: Connection, first: int) -> None:
            number = first
            while time.perf_counter() - began < seconds:
                asked = number % len(requests)
                tally.answers.append(await _timed(connection, requests[asked], asked))
                number += 1

        await asyncio.gather(*(loop(connection, number) for number, connection in enumerate(opened)))
        tally.seconds = time.perf_counter() - began
    return tally


async def one_by_one(endpoint: Endpoint, requests: Sequence[bytes]) -> Tally:
    """Ask each question once, after the answer to the one before."""
    tally = Tally()
    async with connected(endpoint, 1) as (connection,):
        began = time.perf_counter()
        for asked, request in enumerate(requests):
            tally.answers.append(await _timed(connection, request, asked))
        tally.seconds = time.perf_counter() - began
    return tally


async def _timed(connection: Connection, request: bytes, asked: int, moment: float | None = None) -> Answer:
    began = time.perf_counter() if moment is None else moment
    try:
        body = await connection.ask(request)
    except (OSError, ValueError, EOFError):
        return Answer(time.perf_counter() - began, allowed=False, broken=True, asked=asked)
    took = time.perf_counter() - began
    response = json.loads(body)["response"]
    message = response.get("status", {}).get("message", "")
    return Answer(took, response["allowed"] is True, shed=OVERLOADED in message, asked=asked)
