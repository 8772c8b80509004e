"""Uploads to registries that have ways of their own: chunks, limits, detours."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.oci.descriptor import Descriptor, sha256_digest
from edgemodel_operator.oci.errors import ProtocolError
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.registry import FaultyRegistry, RegistryServer, fail_times, faulty_registry
from support.registry_kinds import LOGIN, QUICK
from support.token_server import TokenServer

CONTENT = os.urandom(3_000_000)
BLOB = Descriptor.of("application/octet-stream", CONTENT)
CHUNK = 1_000_000


@pytest.fixture
def ref(faulty: FaultyRegistry, own_name: str) -> Reference:
    return parse_reference(f"{faulty.host}/uploads/{own_name}:1")


@pytest.fixture
def client(http_session: aiohttp.ClientSession, faulty: FaultyRegistry) -> RegistryClient:
    return RegistryClient(http_session, plain_http={faulty.host}, retry=QUICK, chunk_bytes=CHUNK)


@dataclass
class OpinionatedUpload:
    """Takes one blob as a registry with its own opinions would; keeps what it got."""

    location: str
    least: int = 0
    takes_ranges: bool = True
    greedy: int = 1 << 40
    """The most that it takes of one chunk."""
    received: bytearray = field(default_factory=bytearray)

    async def __call__(self, request: web.Request) -> web.StreamResponse | None:
        where = {"Location": self.location}
        if request.method == "POST":
            self.received.clear()
            return web.Response(status=202, headers={**where, "OCI-Chunk-Min-Length": str(self.least)})
        if request.method == "PATCH" and "Content-Range" in request.headers and not self.takes_ranges:
            return web.Response(status=400)
        if request.method == "PATCH":
            first = int(request.headers.get("Content-Range", "0-").partition("-")[0])
            content = await request.read()
            if first != len(self.received):
                return web.Response(status=416, headers=where)
            self.received += content[: self.greedy]
            return web.Response(status=202, headers={**where, "Range": f"0-{len(self.received) - 1}"})
        if request.method == "GET" and request.path in self.location:
            return web.Response(status=204, headers={**where, "Range": f"0-{len(self.received) - 1}"})
        if request.method == "PUT":
            stored = sha256_digest(bytes(self.received) + await request.read())
            return web.Response(status=201, headers={"Docker-Content-Digest": stored})
        return None


def opinionated(faulty: FaultyRegistry, ref: Reference, **opinions: object) -> OpinionatedUpload:
    upload = OpinionatedUpload(f"/v2/{ref.repository}/blobs/uploads/session")
    for name, value in opinions.items():
        setattr(upload, name, value)
    faulty.faults.append(upload)
    return upload


def ranges(faulty: FaultyRegistry) -> list[str | None]:
    return [headers.get("Content-Range") for headers in faulty.requests("PATCH")]


async def test_a_large_blob_goes_in_chunks_with_their_ranges(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference
) -> None:
    upload = opinionated(faulty, ref)
    await client.put_blob(ref, CONTENT, BLOB)
    assert bytes(upload.received) == CONTENT
    assert ranges(faulty) == ["0-999999", "1000000-1999999", "2000000-2999999"]


async def test_the_registry_may_ask_for_longer_chunks(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference
) -> None:
    opinionated(faulty, ref, least=2_000_000)
    await client.put_blob(ref, CONTENT, BLOB)
    assert ranges(faulty) == ["0-1999999", "2000000-2999999"]


async def test_a_registry_that_takes_no_chunks_gets_one_piece(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference
) -> None:
    upload = opinionated(faulty, ref, takes_ranges=False)
    await client.put_blob(ref, CONTENT, BLOB)
    assert bytes(upload.received) == CONTENT
    assert ranges(faulty) == ["0-999999", None]


async def test_a_registry_that_takes_less_than_was_sent_gets_the_rest(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference
) -> None:
    upload = opinionated(faulty, ref, greedy=700_000)
    await client.put_blob(ref, CONTENT, BLOB)
    assert bytes(upload.received) == CONTENT
    assert ranges(faulty)[:2] == ["0-999999", "700000-1699999"]


async def test_a_registry_that_is_out_of_step_is_asked_where_it_stands(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference
) -> None:
    upload = opinionated(faulty, ref)
    faulty.faults.insert(0, fail_times(1, 416, method="PATCH"))
    await client.put_blob(ref, CONTENT, BLOB)
    assert bytes(upload.received) == CONTENT


async def test_an_upload_waits_as_long_as_the_registry_asks(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, ref: Reference
) -> None:
    """Without `Retry-After` this policy would pause for an hour."""
    patient = type(QUICK)(attempts=3, first_pause=3600, longest_pause=3600, longest_retry_after=0.01)
    client = RegistryClient(http_session, plain_http={faulty.host}, retry=patient, chunk_bytes=CHUNK)
    faulty.faults.append(fail_times(1, 429, method="PATCH", Retry_After="7"))
    faulty.faults.append(fail_times(1, 503, method="PUT", Retry_After="Wed, 21 Oct 2099 07:28:00 GMT"))
    await client.put_blob(ref, CONTENT, BLOB)
    assert await client.blob_exists(ref, BLOB.digest)


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_a_mount_that_is_refused_becomes_an_upload(
    faulty: FaultyRegistry, client: RegistryClient, ref: Reference, status: int
) -> None:
    faulty.faults.append(fail_times(1, status, method="POST", part="mount="))
    await client.put_blob(ref, CONTENT, BLOB, mount_from="some/repository")
    assert await client.blob_exists(ref, BLOB.digest)


async def test_another_host_takes_uploads_only_when_allowed_and_never_the_token(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, registry: RegistryServer, ref: Reference
) -> None:
    tokens = TokenServer()
    async with faulty_registry(registry) as store:
        upload = OpinionatedUpload(f"http://{store.host}/store/session")
        store.faults.append(upload)
        where = {"Location": upload.location}

        async def away(request: web.Request) -> web.Response | None:
            return web.Response(status=202, headers=where) if request.method == "POST" else None

        faulty.faults += [tokens.realm(), tokens.demand(f"http://{faulty.host}/token"), away]
        options = {"credentials": {faulty.host: LOGIN}, "plain_http": {faulty.host}, "retry": QUICK}
        careful = RegistryClient(http_session, **options)  # type: ignore[arg-type]
        with pytest.raises(ProtocolError, match="allowedUploadHosts"):
            await careful.put_blob(ref, CONTENT, BLOB)
        assert not store.seen
        allowing = RegistryClient(http_session, upload_hosts={store.host}, **options)  # type: ignore[arg-type]
        await allowing.put_blob(ref, CONTENT, BLOB)
    assert bytes(upload.received) == CONTENT
    assert [verb for verb, _, headers in store.seen] == ["PATCH", "PUT"]
    assert not any("Authorization" in headers for _, _, headers in store.seen)


async def test_a_challenge_of_the_other_host_is_not_answered(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, registry: RegistryServer, ref: Reference
) -> None:
    async with faulty_registry(registry) as store:
        store.faults.append(fail_times(9, 401, WWW_Authenticate='Basic realm="mine"'))
        where = {"Location": f"http://{store.host}/store/session"}

        async def away(request: web.Request) -> web.Response | None:
            return web.Response(status=202, headers=where) if request.method == "POST" else None

        faulty.faults.append(away)
        client = RegistryClient(
            http_session,
            credentials={faulty.host: LOGIN, store.host: LOGIN},
            plain_http={faulty.host},
            upload_hosts={store.host},
            retry=QUICK,
        )
        with pytest.raises(Exception, match="401"):
            await client.put_blob(ref, CONTENT, BLOB)
        assert not any("Authorization" in headers for _, _, headers in store.seen)
