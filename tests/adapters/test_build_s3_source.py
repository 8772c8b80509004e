"""S3 sources: a real store, and one that breaks connections or sends us elsewhere."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.api.source import S3File, S3Source, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.transport import RetryPolicy
from support.build import LOOPBACK, SourceServer, sha256, source_server
from support.certificate import write_certificate
from support.s3_store import ACCESS_KEY, DOMAIN, REGION, SECRET_KEY, S3Store, start_store

MODEL = bytes(range(256)) * 40
KEYS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY.encode(), "AWS_SECRET_ACCESS_KEY": SECRET_KEY.encode()}
ONNX = Want((".onnx",), (".data",))
RETRY = RetryPolicy(attempts=3, first_pause=0.001, longest_pause=0.002)
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 20, total_seconds=60, retry=RETRY)
ODD_KEYS = [
    "model.onnx",
    "line 3/model+1.onnx",
    "ünï/模型.onnx",
    "a=b&c?d#e/%41.onnx",
    "~tilde/(model)'s*!.onnx",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with start_store(tmp_path_factory.mktemp("s3")) as store:
        store.make_bucket("models")
        store.make_bucket("shared", public=True)
        for key in ODD_KEYS:
            store.put("models", key, MODEL)
        store.put("shared", "model.onnx", MODEL)
        yield store


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


def make_source(store: S3Store, key: str = "model.onnx", *, signed: bool = True, **changes: Any) -> S3Source:
    fields: dict[str, Any] = {
        "endpoint": store.endpoint,
        "bucket": "models",
        "key": key,
        "region": REGION,
        "insecure": True,
        "credentials_secret": {"name": "s3-reader"} if signed else None,
    }
    return S3Source(**{**fields, **changes})


async def fetch(
    source: S3Source, folder: Path, secret: dict[str, bytes] | None = None, allowance: Allowance = ALLOWED
) -> FetchedSource:
    access = SourceAccess(secret=KEYS if secret is None else secret)
    return await fetch_source(Source(s3=source), ONNX, folder, allowance, access)


async def failure_of(
    source: S3Source, folder: Path, secret: dict[str, bytes] | None = None, allowance: Allowance = ALLOWED
) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(source, folder, secret, allowance)
    failure = caught.value.failure
    assert failure.message.endswith(".")
    assert SECRET_KEY not in failure.message
    assert ACCESS_KEY not in failure.message
    return failure


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_a_signed_request_for_any_key(store: S3Store, tmp_path: Path, key: str) -> None:
    (file,) = (await fetch(make_source(store, key), tmp_path)).files
    assert file.path.read_bytes() == MODEL
    assert (file.sha256, file.name) == (sha256(MODEL), key.rpartition("/")[2])


async def test_a_public_bucket_needs_no_signature(store: S3Store, tmp_path: Path) -> None:
    (file,) = (await fetch(make_source(store, bucket="shared", signed=False), tmp_path)).files
    assert file.path.read_bytes() == MODEL


async def test_model_and_weights(store: S3Store, tmp_path: Path) -> None:
    store.put("models", "7/graph.onnx", b"graph")
    store.put("models", "7/tensors/w.data", MODEL)
    source = make_source(store, "7/graph.onnx", weights=S3File(key="7/tensors/w.data", sha256=sha256(MODEL)))
    fetched = await fetch(source, tmp_path)
    assert [file.name for file in fetched.files] == ["graph.onnx", "tensors/w.data"]
    assert (fetched.files[0].path.parent / "tensors/w.data").read_bytes() == MODEL
    assert [file.sha256 for file in fetched.fetched] == [sha256(b"graph"), sha256(MODEL)]


@pytest.fixture
def bucket_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name below the store's domain lead to it."""
    real = socket.getaddrinfo

    def resolve(host: Any, *arguments: Any, **options: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(DOMAIN) else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@pytest.mark.usefixtures("bucket_names")
@pytest.mark.parametrize("signed", [True, False])
async def test_buckets_as_host_names(store: S3Store, tmp_path: Path, *, signed: bool) -> None:
    endpoint = f"http://{DOMAIN}:{store.port}"
    bucket = "models" if signed else "shared"
    source = make_source(store, endpoint=endpoint, bucket=bucket, signed=signed, virtual_host_style=True)
    (file,) = (await fetch(source, tmp_path)).files
    assert file.path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("changes", "secret", "reason", "words"),
    [
        ({"key": "missing.onnx"}, KEYS, Reason.SOURCE_NOT_FOUND, "object missing.onnx does not exist"),
        ({"bucket": "elsewhere"}, KEYS, Reason.SOURCE_NOT_FOUND, "bucket elsewhere does not exist"),
        ({"region": "eu-central-1"}, KEYS, Reason.SOURCE_INVALID, f"set `region: {REGION}`"),
        (
            {},
            KEYS | {"AWS_ACCESS_KEY_ID": b"stranger"},
            Reason.SOURCE_DENIED,
            "does not know the access key with the Secret s3-reader",
        ),
        ({}, KEYS | {"AWS_SECRET_ACCESS_KEY": b"wrong"}, Reason.SOURCE_DENIED, "refuses the secret key"),
        ({}, KEYS | {"AWS_SESSION_TOKEN": b"made-up"}, Reason.SOURCE_DENIED, "session token"),
        ({"signed": False}, {}, Reason.SOURCE_DENIED, "may not be read without credentials"),
    ],
    ids=["object", "bucket", "region", "access key", "secret key", "session token", "anonymous"],
)
async def test_what_the_store_refuses(
    store: S3Store,
    tmp_path: Path,
    changes: dict[str, Any],
    secret: dict[str, bytes],
    reason: Reason,
    words: str,
) -> None:
    failure = await failure_of(make_source(store, **changes), tmp_path, secret)
    assert failure.reason is reason
    assert words in failure.message


@pytest.mark.parametrize(
    "secret",
    [
        {},
        {"AWS_ACCESS_KEY_ID": b"a"},
        {"AWS_SECRET_ACCESS_KEY": b"b"},
        KEYS | {"AWS_SECRET_ACCESS_KEY": b"two\nlines"},
        KEYS | {"AWS_SESSION_TOKEN": b"\xff\xfe"},
        KEYS | {"ca.crt": b"no certificate"},
    ],
)
async def test_a_secret_that_does_not_serve(store: S3Store, tmp_path: Path, secret: dict[str, bytes]) -> None:
    failure = await failure_of(make_source(store), tmp_path, secret)
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_SECRET_INVALID, False)
    assert "Secret s3-reader" in failure.message
    assert "two" not in failure.message


async def test_another_object_than_pinned_is_refused(store: S3Store, tmp_path: Path) -> None:
    failure = await failure_of(make_source(store, sha256="0" * 64), tmp_path)
    assert failure.reason is Reason.SOURCE_DIGEST_MISMATCH


async def test_a_large_object_is_refused_unread(store: S3Store, tmp_path: Path) -> None:
    failure = await failure_of(make_source(store), tmp_path, None, replace(ALLOWED, max_bytes=10239))
    assert failure.reason is Reason.SOURCE_TOO_LARGE
    assert not any(tmp_path.iterdir())


async def test_the_guard_judges_stores_as_well(store: S3Store, tmp_path: Path) -> None:
    failure = await failure_of(make_source(store), tmp_path, None, replace(ALLOWED, policy=AddressPolicy()))
    assert failure.reason is Reason.SOURCE_FORBIDDEN_ADDRESS
    assert "is a loopback address" in failure.message


def cutting_proxy(store: S3Store, cuts: list[int], asked: list[str]) -> Any:
    """Make a handler that passes requests on, Host header and all, and breaks off answers."""

    async def forward(request: web.Request) -> web.StreamResponse:
        asked.append(request.headers.get("Range", ""))
        async with (
            aiohttp.ClientSession() as session,
            session.get(store.endpoint + request.raw_path, headers=request.headers) as answer,
        ):
            body = await answer.read()
            copied = web.StreamResponse(status=answer.status, headers=answer.headers)
            await copied.prepare(request)
            cut = cuts.pop(0) if cuts else None
            await copied.write(body[:cut])
            if cut is not None:
                assert request.transport is not None
                request.transport.close()
            return copied

    return forward


async def test_a_signed_download_goes_on_where_it_broke(
    store: S3Store, server: SourceServer, tmp_path: Path
) -> None:
    asked: list[str] = []
    server.answer(cutting_proxy(store, [4000, 3000], asked), "/models/model.onnx")
    (file,) = (await fetch(make_source(store, endpoint=server.url("")), tmp_path)).files
    assert file.path.read_bytes() == MODEL
    assert asked == ["", "bytes=4000-", "bytes=7000-"]


async def test_an_object_that_was_replaced_is_not_mixed_with_the_old_one(
    store: S3Store, server: SourceServer, tmp_path: Path
) -> None:
    asked: list[str] = []
    store.put("models", "changing.onnx", MODEL)
    forward = cutting_proxy(store, [4000], asked)

    async def answer(request: web.Request) -> web.StreamResponse:
        if asked:
            store.put("models", "changing.onnx", MODEL[::-1])
        response: web.StreamResponse = await forward(request)
        return response

    server.answer(answer, "/models/changing.onnx")
    (file,) = (await fetch(make_source(store, "changing.onnx", endpoint=server.url("")), tmp_path)).files
    assert file.path.read_bytes() == MODEL[::-1]
    # The store serves the range of the new object without regard to If-Range: its tag gives it away.
    assert asked == ["", "bytes=4000-", ""]


@pytest.mark.parametrize(
    "said",
    [
        (
            301,
            {"x-amz-bucket-region": "eu-west-1"},
            "",
            "is served elsewhere (in region eu-west-1): set `endpoint` and `region`",
        ),
        (
            301,
            {},
            "<Error><Code>PermanentRedirect</Code><Endpoint>models.s3.eu-west-1.plant-a.local</Endpoint></Error>",
            "is served elsewhere (models.s3.eu-west-1.plant-a.local): set `endpoint` and `region`",
        ),
        (307, {"Location": "http://169.254.169.254/"}, "", "is served elsewhere: set `endpoint`"),
        (
            403,
            {},
            "<Error><Code>ExpiredToken</Code></Error>",
            "The session token with the Secret s3-reader has",
        ),
        (403, {}, "<Error><Code>RequestTimeTooSkewed</Code></Error>", "The clock of this machine"),
        (403, {}, "<Error><Code>InvalidObjectState</Code></Error>", "is archived"),
        (403, {}, "<html>a proxy says no</html>", "wants credentials, or refuses us (status 403)"),
        (404, {}, "", "does not exist (status 404)"),
        (418, {}, "<Error><Code>Teapot</Code></Error>", "answered with status 418"),
    ],
)
async def test_other_words_of_stores(
    server: SourceServer, store: S3Store, tmp_path: Path, *, said: tuple[int, dict[str, str], str, str]
) -> None:
    status, headers, body, words = said

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text=body)

    server.answer(answer, "/models/model.onnx")
    failure = await failure_of(make_source(store, endpoint=server.url("")), tmp_path)
    assert words in failure.message
    assert server.seen == ["/models/model.onnx"]


async def test_a_store_that_is_busy_is_asked_again(
    store: S3Store, server: SourceServer, tmp_path: Path
) -> None:
    left = [503, 500]

    async def answer(request: web.Request) -> web.Response:
        if left:
            return web.Response(status=left.pop(), text="<Error><Code>SlowDown</Code></Error>")
        return web.Response(body=MODEL)

    server.answer(answer, "/models/model.onnx")
    assert (await fetch(make_source(store, endpoint=server.url("")), tmp_path)).files[0].size == len(MODEL)


async def test_a_session_token_is_sent_and_signed(
    store: S3Store, server: SourceServer, tmp_path: Path
) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response(body=MODEL)

    server.answer(answer, "/models/model.onnx")
    await fetch(
        make_source(store, endpoint=server.url("")), tmp_path, KEYS | {"AWS_SESSION_TOKEN": b"token\n"}
    )
    assert seen[0]["X-Amz-Security-Token"] == "token"
    signed = "SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token,"
    assert signed in seen[0]["Authorization"]
    assert f"/{REGION}/s3/aws4_request" in seen[0]["Authorization"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"endpoint": "http://127.0.0.1:1", "virtual_host_style": True},
            "needs an endpoint with a host name",
        ),
        ({"endpoint": "http://[::1]:1", "virtual_host_style": True}, "needs an endpoint with a host name"),
        ({"endpoint": "http://store.plant-a.local?x=y"}, "without a query"),
    ],
)
async def test_endpoints_that_cannot_be(
    store: S3Store, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    failure = await failure_of(make_source(store, **changes), tmp_path)
    assert failure.reason is Reason.SOURCE_INVALID
    assert words in failure.message


async def test_a_store_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    files = write_certificate(tmp_path)
    with start_store(tmp_path / "s3", tls=files) as store:
        store.make_bucket("models")
        store.put("models", "model.onnx", MODEL)
        source = make_source(store, insecure=False)
        (tmp_path / "one").mkdir()
        failure = await failure_of(source, tmp_path / "one")
        assert failure.reason is Reason.SOURCE_TLS_FAILED
        trusting = KEYS | {"ca.crt": files[0].read_bytes()}
        assert (await fetch(source, tmp_path / "one", trusting)).files[0].size == len(MODEL)
