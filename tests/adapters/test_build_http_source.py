"""HTTP sources: real servers, most of them bad."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.transport import RetryPolicy
from support.build import LOOPBACK, SourceServer, hang, sha256, source_server
from support.certificate import serving, write_certificate
from support.registry import free_port

CONTENT = b"weights" * 1000
ONNX = Want((".onnx",), (".data",))
QUICK = RetryPolicy(attempts=3, first_pause=0.001, longest_pause=0.002)
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, total_seconds=60, retry=QUICK)


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


def make_source(url: str, digest: str = sha256(CONTENT)) -> HttpSource:
    return HttpSource(url=url, sha256=digest, insecure=True)


async def fetch(
    source: HttpSource, folder: Path, allowance: Allowance = ALLOWED, secret: dict[str, bytes] | None = None
) -> SourceFile:
    fetched = await fetch_source(Source(http=source), ONNX, folder, allowance, SourceAccess(secret=secret))
    (file,) = fetched.files
    assert fetched.fetched == fetched.files
    return file


async def failure_of(source: HttpSource, folder: Path, allowance: Allowance = ALLOWED) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(source, folder, allowance)
    assert caught.value.failure.message.endswith(".")
    return caught.value.failure


async def test_a_file_is_saved_and_described(server: SourceServer, tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    allowance = Allowance(ALLOWED.policy, 7000, 60, on_bytes=lambda done, total: told.append((done, total)))
    source = make_source(server.serve(CONTENT))
    file = await fetch(source, tmp_path, allowance)
    assert file.path.read_bytes() == CONTENT
    assert (file.sha256, file.size) == (sha256(CONTENT), 7000)
    assert told[-1] == (7000, 7000)


async def test_redirects_are_followed(server: SourceServer, tmp_path: Path) -> None:
    server.serve(CONTENT, "/store/model")

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/store/model?signature=1"})

    source = make_source(server.answer(redirect))
    file = await fetch(source, tmp_path)
    assert file.size == 7000
    assert server.seen == ["/model.onnx", "/store/model"]


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (404, Reason.SOURCE_NOT_FOUND, True),
        (410, Reason.SOURCE_NOT_FOUND, True),
        (401, Reason.SOURCE_DENIED, True),
        (403, Reason.SOURCE_DENIED, True),
        (429, Reason.SOURCE_UNAVAILABLE, True),
        (500, Reason.SOURCE_UNAVAILABLE, True),
        (503, Reason.SOURCE_UNAVAILABLE, True),
        (204, Reason.SOURCE_UNAVAILABLE, True),
    ],
)
async def test_a_status_has_its_reason(
    server: SourceServer, tmp_path: Path, status: int, reason: Reason, *, retryable: bool
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Retry-After": "17"})

    failure = await failure_of(make_source(server.answer(answer) + "?token=secret"), tmp_path)
    assert (failure.reason, failure.retryable) == (reason, retryable)
    assert str(status) in failure.message
    assert "secret" not in failure.message
    assert failure.retry_after == (17.0 if status in {429, 500, 503} else None)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a link-local address"),
        ("http://[fe80::1]/", "fe80::1 is a link-local address"),
        ("http://[::ffff:169.254.169.254]/", "::ffff:169.254.169.254 is a link-local address"),
        ("http://0.0.0.0:80/", "0.0.0.0 is an unspecified address"),
        ("http://224.0.0.1/", "224.0.0.1 is a multicast address"),
    ],
)
async def test_a_redirect_to_a_forbidden_address_is_refused(
    server: SourceServer, tmp_path: Path, target: str, kind: str
) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": target})

    failure = await failure_of(make_source(server.answer(redirect)), tmp_path)
    assert failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert not failure.retryable
    assert kind in failure.message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_nothing_is_sent_to_a_forbidden_address(
    server: SourceServer, tmp_path: Path, host: str
) -> None:
    server.serve(CONTENT)
    guarded = Allowance(AddressPolicy(), 1 << 20, total_seconds=60, retry=QUICK)
    failure = await failure_of(make_source(f"http://{host}:{server.port}/model.onnx"), tmp_path, guarded)
    assert failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert "is a loopback address" in failure.message
    assert server.seen == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0x7f000001"])
async def test_odd_spellings_of_an_address_do_not_pass(
    server: SourceServer, tmp_path: Path, host: str
) -> None:
    guarded = Allowance(AddressPolicy(), 1 << 20, total_seconds=60, retry=QUICK)
    failure = await failure_of(make_source(f"http://{host}:{server.port}/model.onnx"), tmp_path, guarded)
    assert failure.reason in {Reason.SOURCE_FORBIDDEN_ADDRESS, Reason.SOURCE_UNAVAILABLE}
    assert server.seen == []


async def test_endless_redirects_end(server: SourceServer, tmp_path: Path) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/model.onnx"})

    failure = await failure_of(make_source(server.answer(redirect)), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "more than 5 times" in failure.message
    assert len(server.seen) == 6


async def test_an_announced_size_beyond_the_cap_is_refused_unread(
    server: SourceServer, tmp_path: Path
) -> None:
    async def announce(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": str(10**12)})
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    failure = await failure_of(make_source(server.answer(announce)), tmp_path)
    assert failure.reason is Reason.SOURCE_TOO_LARGE
    assert str(1 << 20) in failure.message
    assert not any(tmp_path.iterdir())


async def test_an_unannounced_size_beyond_the_cap_is_cut_off(server: SourceServer, tmp_path: Path) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(65536))

    failure = await failure_of(make_source(server.answer(flood)), tmp_path)
    assert failure.reason is Reason.SOURCE_TOO_LARGE
    assert (tmp_path / "fetched-model").stat().st_size <= 1 << 20


async def test_a_silent_server_is_given_up(server: SourceServer, tmp_path: Path) -> None:
    impatient = replace(ALLOWED, idle_seconds=0.2)
    failure = await failure_of(make_source(server.answer(hang)), tmp_path, impatient)
    assert failure.reason is Reason.SOURCE_TIMEOUT
    assert "sent nothing for 0.2 seconds" in failure.message
    assert server.seen == ["/model.onnx"]


async def test_a_slow_server_is_given_up(server: SourceServer, tmp_path: Path) -> None:
    impatient = replace(ALLOWED, total_seconds=0.3)
    failure = await failure_of(make_source(server.answer(hang)), tmp_path, impatient)
    assert failure.reason is Reason.SOURCE_TIMEOUT
    assert failure.message == f"{server.url()} was not complete after 0.3 seconds."


async def test_a_body_that_breaks_off(server: SourceServer, tmp_path: Path) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "7000"})
        await response.prepare(request)
        await response.write(CONTENT[:3000])
        assert request.transport is not None
        request.transport.close()
        return response

    failure = await failure_of(make_source(server.answer(cut)), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "broke off" in failure.message


async def test_a_content_length_that_is_too_small(tmp_path: Path) -> None:
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + CONTENT)
        writer.close()
        await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(lie, "127.0.0.1", port):
        failure = await failure_of(make_source(f"http://127.0.0.1:{port}/m"), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "does not answer as an HTTP server should" in failure.message


async def test_another_file_is_refused_with_both_digests(server: SourceServer, tmp_path: Path) -> None:
    failure = await failure_of(make_source(server.serve(b"tampered")), tmp_path)
    assert failure.reason is Reason.SOURCE_DIGEST_MISMATCH
    assert sha256(b"tampered") in failure.message
    assert sha256(CONTENT) in failure.message


async def test_an_encoding_that_was_not_asked_for_is_refused(server: SourceServer, tmp_path: Path) -> None:
    async def encoded(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=CONTENT, headers={"Content-Encoding": "br"})

    failure = await failure_of(make_source(server.answer(encoded)), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "Content-Encoding br" in failure.message


async def test_nobody_listens(tmp_path: Path) -> None:
    failure = await failure_of(make_source(f"http://127.0.0.1:{free_port()}/m"), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "cannot be reached" in failure.message


async def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    failure = await failure_of(make_source("http://models.invalid/m"), tmp_path)
    assert failure.reason is Reason.SOURCE_UNAVAILABLE
    assert "models.invalid cannot be resolved" in failure.message


async def test_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    async with source_server(serving(write_certificate(tmp_path))) as server:
        failure = await failure_of(make_source(server.serve(CONTENT)), tmp_path)
    assert failure.reason is Reason.SOURCE_TLS_FAILED
    assert "certificate of 127.0.0.1 is not trusted: self-signed certificate" in failure.message
    assert server.seen == []


async def test_https_never_redirects_to_http(
    server: SourceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": server.serve(CONTENT)})

    context = serving(write_certificate(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    async with source_server(context) as secure:
        source = HttpSource(url=secure.answer(redirect), sha256=sha256(CONTENT))
        failure = await failure_of(source, tmp_path)
    assert failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert "only https is allowed; for plain http set `insecure: true`" in failure.message
    assert (secure.seen, server.seen) == (["/model.onnx"], [])


async def test_what_is_signed_in_a_url_is_sent_as_it_is(server: SourceServer, tmp_path: Path) -> None:
    asked: list[str] = []
    signed = "/a%2fb%7Ec+d/m.onnx?sig=%2Bx%3D%3d&cred=k%2F1&empty=&t=2026-11-21T10:00:00Z"

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        if request.path == "/start.onnx":
            return web.Response(status=302, headers={"Location": signed})
        return web.Response(body=CONTENT)

    server.answer(answer, "/start.onnx")
    server.answer(answer, "/a/b~c+d/m.onnx")
    for url in (server.url(signed), server.url("/start.onnx")):
        assert (await fetch(make_source(url), tmp_path)).name in {"m.onnx", "start.onnx"}
    assert asked == [signed, "/start.onnx", signed]


async def test_a_url_in_another_script_is_quoted(server: SourceServer, tmp_path: Path) -> None:
    server.serve(CONTENT, "/模型.onnx")
    assert (await fetch(make_source(server.url("/模型.onnx")), tmp_path)).name == "模型.onnx"


async def test_a_model_of_a_signed_redirect_keeps_the_name_of_its_url(
    server: SourceServer, tmp_path: Path
) -> None:
    server.serve(CONTENT, "/blobs/7f3a")

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": "/blobs/7f3a"})

    assert (
        await fetch(make_source(server.answer(redirect, "/line a.onnx").replace(" ", "%20")), tmp_path)
    ).name == "line a.onnx"
