"""Downloading one file over HTTP: attempts, and going on where the last one broke off.

The same code serves URLs and S3 stores; what differs between them is `connection.Requests`.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.connection import (
    Interruption,
    Requests,
    is_transient,
    open_answer,
    shown,
)
from edgemodel_operator.build.sources.download import Allowance, Pace, Sink
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.resume import Part, validator_of

CHUNK_BYTES = 256 * 1024
WORTHWHILE_BYTES = 1024 * 1024
"""An attempt that brought so much starts the count of attempts anew."""


async def download(
    session: aiohttp.ClientSession,
    requests: Requests,
    destination: Path,
    allowance: Allowance,
    *,
    pinned: bool,
) -> SourceFile:
    """Download the file to `destination` and describe it; `pinned` tells that its SHA-256 will be compared.

    Broken connections, 408, 425, 429 and 5xx are tried again as the allowance says; silence and slowness only
    after an attempt that brought much.
    Raises BuildError, and OSError when the local disk fails.
    """
    with Sink(destination, allowance) as sink:
        transfer = _Transfer(session, requests, sink, allowance, pinned=pinned)
        await transfer.run()
        return sink.finish(requests.url.name)


class _Transfer:
    """One file on its way: what has arrived, and of which version."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        requests: Requests,
        sink: Sink,
        allowance: Allowance,
        *,
        pinned: bool,
    ) -> None:
        self._session, self._requests, self._sink = session, requests, sink
        self._allowance, self._pinned = allowance, pinned
        self._validator = ""

    async def run(self) -> None:
        retry = self._allowance.retry
        attempt, mark = 1, 0
        while True:
            try:
                return await self._attempt()
            except Interruption as interruption:
                failure = interruption.error.failure
                worthwhile = self._sink.size - mark >= WORTHWHILE_BYTES
                attempt, mark = 2 if worthwhile else attempt + 1, self._sink.size
                wait = failure.retry_after
                # Long waits, for a silent server too, are the operator's: nothing is built here meanwhile.
                long = (wait or 0) > retry.longest_pause
                long |= failure.reason is Reason.SOURCE_TIMEOUT and not worthwhile
                if attempt > retry.attempts or long:
                    raise interruption.error from interruption
                await asyncio.sleep(retry.pause(attempt - 1, wait))

    @property
    def _part(self) -> Part:
        return Part(self._sink.size, self._sink.total, self._validator)

    async def _attempt(self) -> None:
        part = self._part
        plain = {"Accept-Encoding": "identity", **part.headers}
        async with open_answer(self._session, self._requests, plain, self._allowance) as response:
            if response.status == 200:
                self._begin(response)
            elif not (response.status == 206 and part.continued_by(response.headers)):
                raise await self._refusal(response, part)
            await self._receive(response)

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        where = shown(response.url)
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise fail(
                Reason.SOURCE_UNAVAILABLE,
                f"{where} is sent with Content-Encoding {encoding[:32]}, which was not asked for.",
            )
        total = response.content_length
        if total is None and not self._pinned and "Transfer-Encoding" not in response.headers:
            raise fail(
                Reason.SOURCE_UNAVAILABLE,
                f"{where} is sent without its length, so that a part of it would look like the whole: give "
                "its `sha256`.",
            )
        self._sink.begin(total)
        self._validator = validator_of(response.headers)

    async def _refusal(self, response: aiohttp.ClientResponse, part: Part) -> BuildError | Interruption:
        if part.headers and response.status in {206, 416}:
            self._validator = ""  # neither the rest of what we have nor the whole: begin anew
            return Interruption(
                fail(
                    Reason.SOURCE_UNAVAILABLE,
                    f"{shown(response.url)} broke off, and what it sends now is not the rest of it.",
                )
            )
        error = await self._requests.failure(response)
        return Interruption(error) if is_transient(response.status) else error

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        sink, where = self._sink, shown(response.url)
        pace = Pace(self._allowance.idle_seconds, self._allowance.slowest_rate)
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            sink.write(chunk)
            if not pace.keeps(len(chunk)):
                slow = f"{where} sends less than {self._allowance.slowest_rate} bytes per second."
                raise Interruption(fail(Reason.SOURCE_TIMEOUT, slow))
        if sink.total is not None and sink.size != sink.total:
            raise fail(
                Reason.SOURCE_UNAVAILABLE,
                f"{where} announced {sink.total} bytes and sent {sink.size}.",
            )
