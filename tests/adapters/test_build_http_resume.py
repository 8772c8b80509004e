"""Downloads that break off: whatever happens between, the bytes are those of one version of the file."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.transport import RetryPolicy
from support.brittle import BrittleFile, raw_server
from support.build import LOOPBACK, Handler, SourceServer, sha256, source_server

OLD, NEW = bytes(range(256)) * 40, bytes(reversed(range(256))) * 40
ONNX = Want((".onnx",))
RETRY = RetryPolicy(attempts=4, first_pause=0.001, longest_pause=0.002)
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, total_seconds=60, retry=RETRY)


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


async def fetch(url: str, folder: Path, digest: str | None = None, allowance: Allowance = ALLOWED) -> bytes:
    source = Source(http=HttpSource(url=url, sha256=digest, insecure=True))
    (file,) = (await fetch_source(source, ONNX, folder, allowance, SourceAccess())).files
    content = file.path.read_bytes()
    assert (file.sha256, file.size) == (sha256(content), len(content))
    return content


async def failure_of(url: str, folder: Path, allowance: Allowance = ALLOWED) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(url, folder, None, allowance)
    return caught.value.failure


@pytest.mark.parametrize("validator", ["etag", "date"])
async def test_a_broken_download_goes_on_where_it_broke(
    server: SourceServer, tmp_path: Path, validator: str
) -> None:
    brittle = BrittleFile((OLD,), cuts=[4000, 3000], validator=validator)
    told: list[tuple[int, int | None]] = []
    allowance = replace(ALLOWED, on_bytes=lambda done, total: told.append((done, total)))
    assert await fetch(server.answer(brittle.answer), tmp_path, None, allowance) == OLD
    assert brittle.asked == ["", "bytes=4000-", "bytes=7000-"]
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert {total for _, total in told} == {len(OLD)}


@pytest.mark.parametrize("validator", ["weak", "none"])
async def test_without_a_name_of_the_version_it_begins_anew(
    server: SourceServer, tmp_path: Path, validator: str
) -> None:
    brittle = BrittleFile((OLD,), cuts=[4000], validator=validator)
    assert await fetch(server.answer(brittle.answer), tmp_path) == OLD
    assert brittle.asked == ["", ""]


async def test_a_date_of_this_very_second_names_no_version(server: SourceServer, tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Range", ""))
        now = "Sat, 21 Nov 2026 12:00:00 GMT"
        response = web.StreamResponse(
            headers={"Last-Modified": now, "Date": now, "Content-Length": str(len(OLD))}
        )
        await response.prepare(request)
        await response.write(OLD[: 100 if len(asked) == 1 else None])
        if len(asked) == 1:
            assert request.transport is not None
            request.transport.close()
        return response

    assert await fetch(server.answer(answer), tmp_path) == OLD
    assert asked == ["", ""]


@pytest.mark.parametrize("trusting", [False, True])
async def test_a_file_that_changed_is_fetched_anew(
    server: SourceServer, tmp_path: Path, *, trusting: bool
) -> None:
    brittle = BrittleFile((OLD, NEW), cuts=[4000], change_at=1, trusting=trusting)
    assert await fetch(server.answer(brittle.answer), tmp_path) == NEW
    assert brittle.asked[:2] == ["", "bytes=4000-"]


async def test_a_server_without_ranges(server: SourceServer, tmp_path: Path) -> None:
    brittle = BrittleFile((OLD,), cuts=[4000, 9000], ranges=False)
    assert await fetch(server.answer(brittle.answer), tmp_path) == OLD


async def test_a_shorter_file_answers_that_there_is_no_rest(server: SourceServer, tmp_path: Path) -> None:
    brittle = BrittleFile((OLD,), cuts=[4000])

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers and len(brittle.asked) == 1:
            brittle.asked.append(request.headers["Range"])
            return web.Response(status=416, headers={"Content-Range": "bytes */10"})
        return await brittle.answer(request)

    assert await fetch(server.answer(answer), tmp_path) == OLD
    assert brittle.asked == ["", "bytes=4000-", ""]


@pytest.mark.parametrize(
    "content_range",
    [
        "",
        "bytes 0-10239/10240",
        "bytes 4000-10239/10241",
        "bytes 4000-9999/10240",
        "lines 4000-1/2",
        "bytes */9",
    ],
)
async def test_another_range_than_asked_for_is_not_taken(
    server: SourceServer, tmp_path: Path, content_range: str
) -> None:
    brittle = BrittleFile((OLD,), cuts=[4000])

    async def answer(request: web.Request) -> web.StreamResponse:
        if "Range" in request.headers and len(brittle.asked) == 1:
            brittle.asked.append(request.headers["Range"])
            headers = {"Content-Range": content_range} if content_range else {}
            return web.Response(status=206, body=NEW, headers=headers)
        return await brittle.answer(request)

    assert await fetch(server.answer(answer), tmp_path) == OLD
    assert brittle.asked == ["", "bytes=4000-", ""]


async def test_attempts_end(server: SourceServer, tmp_path: Path) -> None:
    brittle = BrittleFile((OLD,), cuts=[100] * 9)
    failure = await failure_of(server.answer(brittle.answer), tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_UNAVAILABLE, True)
    assert "broke off in the middle of the file" in failure.message
    assert len(brittle.asked) == RETRY.attempts


async def test_attempts_that_bring_much_do_not_count(server: SourceServer, tmp_path: Path) -> None:
    content = bytes(10 << 20)
    brittle = BrittleFile((content,), cuts=[(1 << 20) + 9] * 9)
    allowance = replace(ALLOWED, max_bytes=len(content))
    assert await fetch(server.answer(brittle.answer), tmp_path, None, allowance) == content
    assert len(brittle.asked) == 10


async def test_silence_after_much_is_waited_out(server: SourceServer, tmp_path: Path) -> None:
    content = bytes(2 << 20)
    brittle = BrittleFile((content,))

    async def answer(request: web.Request) -> web.StreamResponse:
        if brittle.asked:
            return await brittle.answer(request)
        brittle.asked.append("")
        tag = {"ETag": f'"{sha256(content)[:16]}"', "Content-Length": str(len(content))}
        response = web.StreamResponse(headers=tag)
        await response.prepare(request)
        await response.write(content[: 1 << 20])
        await asyncio.Event().wait()
        return response

    allowance = replace(ALLOWED, max_bytes=len(content), idle_seconds=0.3)
    assert await fetch(server.answer(answer), tmp_path, None, allowance) == content
    assert brittle.asked == ["", f"bytes={1 << 20}-"]


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_passing_failures_are_tried_again(server: SourceServer, tmp_path: Path, status: int) -> None:
    left = [status, status]

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=left.pop()) if left else web.Response(body=OLD)

    assert await fetch(server.answer(answer), tmp_path) == OLD
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 204, 206, 416])
async def test_answers_that_count_are_not_asked_for_again(
    server: SourceServer, tmp_path: Path, status: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status)

    await failure_of(server.answer(answer), tmp_path)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("seconds", "requests"), [("0", RETRY.attempts), ("1", 1), ("30", 1), ("99999999", 4)]
)
async def test_long_waits_are_left_to_the_operator(
    server: SourceServer, tmp_path: Path, seconds: str, requests: int
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=503, headers={"Retry-After": seconds})

    failure = await failure_of(server.answer(answer), tmp_path)
    assert len(server.seen) == requests
    assert failure.retry_after == (None if len(seconds) > 5 else float(seconds))


async def test_a_connection_that_drips_is_given_up(server: SourceServer, tmp_path: Path) -> None:
    gone = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100000"})
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    impatient = replace(ALLOWED, idle_seconds=0.2)
    failure = await failure_of(server.answer(drip), tmp_path, impatient)
    assert failure.reason is Reason.SOURCE_TIMEOUT
    assert "sends less than 1024 bytes per second" in failure.message
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_head_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgemodel_operator.build.sources.connection.CONNECT_SECONDS", 0.1)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"X: y\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    impatient = replace(ALLOWED, idle_seconds=0.2)
    async with raw_server(drip) as url:
        failure = await failure_of(url, tmp_path, impatient)
    assert failure.reason is Reason.SOURCE_TIMEOUT


async def raw_answer(answer: bytes, folder: Path, digest: str | None) -> bytes:
    """Fetch from a server that sends these bytes and closes the connection."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with raw_server(respond) as url:
        return await fetch(url, folder, digest)


async def test_a_body_without_a_length_needs_a_digest(tmp_path: Path) -> None:
    answer = b"HTTP/1.0 200 OK\r\n\r\n" + OLD
    assert await raw_answer(answer, tmp_path, sha256(OLD)) == OLD
    with pytest.raises(BuildError, match=r"is sent without its length.*give its `sha256`"):
        await raw_answer(answer, tmp_path, None)


async def test_a_content_length_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="broke off in the middle"):
        await raw_answer(b"HTTP/1.1 200 OK\r\nContent-Length: 10241\r\n\r\n" + OLD, tmp_path, None)


async def test_a_chunked_body_that_breaks_off_is_no_whole_one(tmp_path: Path) -> None:
    chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    assert await raw_answer(chunk + b"0\r\n\r\n", tmp_path, None) == b"first"
    with pytest.raises(BuildError, match="broke off in the middle"):
        await raw_answer(chunk, tmp_path, None)


async def get(answer: Handler, digest: str | None) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        async with source_server() as server:
            many = replace(ALLOWED, retry=RetryPolicy(attempts=20, first_pause=0, longest_pause=0))
            return await fetch(server.answer(answer), Path(folder), digest, many)


@settings(max_examples=50, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(OLD)), max_size=6),
    change_at=st.integers(1, 6),
    validator=st.sampled_from(["etag", "weak", "date", "none"]),
    ranges=st.booleans(),
    trusting=st.booleans(),
)
def test_no_cut_ever_mixes_two_versions(
    cuts: list[int], change_at: int, validator: str, *, ranges: bool, trusting: bool
) -> None:
    if validator == "date":
        change_at = 10**9  # the server calls both versions by one date: nothing could tell them apart
    brittle = BrittleFile((OLD, NEW), list(cuts), change_at, validator, ranges, trusting)
    content = asyncio.run(get(brittle.answer, None))
    assert content == (NEW if len(brittle.asked) > change_at else OLD)


@settings(max_examples=40, deadline=None)
@given(content=st.binary(min_size=1, max_size=3000), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_any_cuts_give_the_same_bytes(content: bytes, cuts: list[int]) -> None:
    brittle = BrittleFile((content,), list(cuts))
    assert asyncio.run(get(brittle.answer, sha256(content))) == content
