"""HTTP sources that want to know who asks: credentials go where they belong, and nowhere else."""

from __future__ import annotations

import base64
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from edgemodel_operator.api.source import HttpFile, HttpSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.transport import RetryPolicy
from support.build import LOOPBACK, SourceServer, sha256, source_server
from support.certificate import serving, write_certificate

MODEL = b"weights" * 1000
ONNX = Want((".onnx",), (".data",))
QUICK = RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.002)
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, total_seconds=60, retry=QUICK)
BASIC = {"username": b"robot", "password": "pässword:1\n".encode()}
BASIC_HEADER = f"Basic {base64.b64encode('robot:pässword:1'.encode()).decode()}"
TOKEN = {"token": b"abc.def-ghi\n"}


class Door:
    """Lets in who knows the header, and notes what everybody says."""

    def __init__(self, header: str) -> None:
        self.header, self.heard = header, list[str]()

    async def answer(self, request: web.Request) -> web.Response:
        said = request.headers.get("Authorization", "")
        self.heard.append(said)
        return web.Response(body=MODEL) if said == self.header else web.Response(status=401)


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


@pytest.fixture
async def other() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


def make_source(url: str, **changes: Any) -> HttpSource:
    fields = {"url": url, "insecure": True, "credentials_secret": {"name": "store-login"}}
    return HttpSource(**{**fields, **changes})


async def fetch(
    source: HttpSource, folder: Path, secret: dict[str, bytes], allowance: Allowance = ALLOWED
) -> FetchedSource:
    return await fetch_source(Source(http=source), ONNX, folder, allowance, SourceAccess(secret=secret))


async def failure_of(source: HttpSource, folder: Path, secret: dict[str, bytes]) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(source, folder, secret)
    failure = caught.value.failure
    assert not any(value.decode(errors="replace").strip() in failure.message for value in secret.values())
    return failure


@pytest.mark.parametrize(
    ("secret", "header"), [(BASIC, BASIC_HEADER), (TOKEN, "Bearer abc.def-ghi")], ids=["basic", "bearer"]
)
async def test_who_logs_in_gets_the_file(
    server: SourceServer, tmp_path: Path, secret: dict[str, bytes], header: str
) -> None:
    door = Door(header)
    (file,) = (await fetch(make_source(server.answer(door.answer)), tmp_path, secret)).files
    assert file.path.read_bytes() == MODEL
    assert door.heard == [header]


async def test_a_wrong_password(server: SourceServer, tmp_path: Path) -> None:
    failure = await failure_of(make_source(server.answer(Door("x").answer)), tmp_path, BASIC)
    assert failure.reason is Reason.SOURCE_DENIED


async def test_without_a_secret_in_the_spec_nothing_is_sent(server: SourceServer, tmp_path: Path) -> None:
    door = Door("")
    source = make_source(server.answer(door.answer), credentials_secret=None)
    await fetch(source, tmp_path, BASIC)
    assert door.heard == [""]


async def test_a_redirect_to_another_host_takes_no_credentials_along(
    server: SourceServer, other: SourceServer, tmp_path: Path
) -> None:
    door = Door("")
    target = other.answer(door.answer)

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    await fetch(make_source(server.answer(redirect)), tmp_path, BASIC)
    assert door.heard == [""]


async def test_credentials_in_a_redirect_are_not_used(
    server: SourceServer, other: SourceServer, tmp_path: Path
) -> None:
    door = Door("")
    target = other.answer(door.answer).replace("127.0.0.1", "user:word@127.0.0.1")

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    await fetch(make_source(server.answer(redirect)), tmp_path, BASIC)
    assert door.heard == [""]


async def test_a_redirect_and_back_home(server: SourceServer, other: SourceServer, tmp_path: Path) -> None:
    door, away = Door(BASIC_HEADER), list[str]()
    home = server.answer(door.answer, "/home.onnx")

    async def back(request: web.Request) -> web.Response:
        away.append(request.headers.get("Authorization", ""))
        return web.Response(status=307, headers={"Location": home})

    there = other.answer(back)

    async def redirect(request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": there})

    await fetch(make_source(server.answer(redirect)), tmp_path, BASIC)
    assert (door.heard, away) == ([BASIC_HEADER], [""])


async def test_weights_on_another_host_get_no_credentials(
    server: SourceServer, other: SourceServer, tmp_path: Path
) -> None:
    here, there = Door(BASIC_HEADER), Door("")
    weights = HttpFile(url=other.answer(there.answer, "/w.data"), sha256=sha256(MODEL))
    told: list[tuple[int, int | None]] = []
    allowance = replace(ALLOWED, on_bytes=lambda done, total: told.append((done, total)))
    source = make_source(server.answer(here.answer), weights=weights)
    fetched = await fetch(source, tmp_path, BASIC, allowance)
    assert [file.name for file in fetched.files] == ["model.onnx", "w.data"]
    assert (here.heard, there.heard) == ([BASIC_HEADER], [""])
    assert told == [(7000, 7000), (14000, 14000)]


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        ({}, "must hold either"),
        ({"username": b"robot"}, "must hold either"),
        (BASIC | TOKEN, "must hold either"),
        ({"token": b"two\nlines"}, "`token` of the Secret store-login must be one line"),
        ({"token": b"\xff"}, "must be one line of printable text"),
        (TOKEN | {"ca.crt": b"-----BEGIN CERTIFICATE-----"}, "`ca.crt` of the Secret store-login holds no"),
    ],
)
async def test_a_secret_that_does_not_serve(
    server: SourceServer, tmp_path: Path, secret: dict[str, bytes], words: str
) -> None:
    with pytest.raises(BuildError) as caught:
        await fetch(make_source(server.serve(MODEL)), tmp_path, secret)
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_SECRET_INVALID, False)
    assert words in failure.message
    assert server.seen == []


async def test_a_certificate_of_ones_own(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    async with source_server(serving(files)) as server:
        source = make_source(server.serve(MODEL), insecure=False)
        (file,) = (await fetch(source, work, {"ca.crt": files[0].read_bytes()})).files
        assert file.sha256 == sha256(MODEL)
        with pytest.raises(BuildError) as caught:
            await fetch(source, work, TOKEN)
    assert caught.value.failure.reason is Reason.SOURCE_TLS_FAILED


@pytest.mark.parametrize(
    "answers", [["169.254.169.254"], ["169.254.169.254", "127.0.0.1"], ["::ffff:10.96.0.1"]]
)
async def test_names_that_lead_to_forbidden_addresses(
    server: SourceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answers: list[str]
) -> None:
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host != "models.plant-a.local":
            return real(host, port, *arguments, **options)
        return [answer for address in answers for answer in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    policy = AddressPolicy.parse(denied=["10.96.0.0/12"], allowed=LOOPBACK)

    async def redirect(request: web.Request) -> web.Response:
        location = f"http://models.plant-a.local:{server.port}/m.onnx"
        return web.Response(status=302, headers={"Location": location})

    for url in (f"http://models.plant-a.local:{server.port}/m.onnx", server.answer(redirect)):
        with pytest.raises(BuildError) as caught:
            await fetch(make_source(url), tmp_path, BASIC, replace(ALLOWED, policy=policy))
        assert caught.value.failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert server.seen == ["/model.onnx"]
