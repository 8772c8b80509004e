"""One suite for every registry that can be started here, over each of the ways into it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.oci.copy import Endpoint, copy_image
from edgemodel_operator.oci.descriptor import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    canonical_json,
    sha256_digest,
)
from edgemodel_operator.oci.errors import (
    DeletionForbidden,
    DigestMismatch,
    NotFound,
    ProtocolError,
    RegistryError,
    TooLarge,
    Unauthorized,
)
from edgemodel_operator.oci.image import parse_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from support.images import AMD64, attach, push_image, push_index
from support.registry import faulty_registry
from support.registry_kinds import QUICK, Kind, KnownRegistry, Way, start_kind

BINARY = "application/octet-stream"
CONTENT = os.urandom(3_000_000)
BLOB = Descriptor.of(BINARY, CONTENT)
CHUNK = 700_000

COMBINATIONS = [(kind, way) for kind in Kind for way in Way if (kind, way) != (Kind.OCI_1_1, Way.TOKEN)]


def name_of(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownRegistry]:
    kind, way = request.param
    with start_kind(kind, way, tmp_path_factory.mktemp("known")) as registry:
        yield registry


@pytest.fixture(scope="module", params=list(Kind), ids=str)
def plain(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[KnownRegistry]:
    with start_kind(request.param, Way.PLAIN, tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture
async def session(known: KnownRegistry) -> AsyncIterator[aiohttp.ClientSession]:
    async with known.session() as opened:
        yield opened


@pytest.fixture
def client(known: KnownRegistry, session: aiohttp.ClientSession) -> RegistryClient:
    return known.client(session, chunk_bytes=CHUNK)


@pytest.fixture
def ref(known: KnownRegistry, request: pytest.FixtureRequest) -> Reference:
    return Reference(known.host, f"kinds/{request.node.originalname.replace('_', '-')}", tag="1")


async def read(client: RegistryClient, ref: Reference, blob: Descriptor = BLOB) -> bytes:
    return b"".join([piece async for piece in client.open_blob(ref, blob)])


@pytest.mark.parametrize("size", [0, 7, 1_000_000, 1_048_577, 3 * CHUNK, 3 * CHUNK + 1])
async def test_blobs_of_every_size_come_back(client: RegistryClient, ref: Reference, size: int) -> None:
    content = CONTENT[:size]
    blob = Descriptor.of(BINARY, content)
    await client.put_blob(ref, content, blob)
    assert await client.blob_exists(ref, blob.digest)
    assert await read(client, ref, blob) == content


async def test_a_blob_is_mounted(client: RegistryClient, ref: Reference) -> None:
    await client.put_blob(ref, CONTENT, BLOB)
    other = Reference(ref.registry, f"{ref.repository}-other")
    # The content is not offered at all: only a mount can succeed.
    await client.put_blob(other, b"", BLOB, mount_from=ref.repository)
    assert await read(client, other) == CONTENT


async def test_a_mount_that_is_not_possible_becomes_an_upload(client: RegistryClient, ref: Reference) -> None:
    await client.put_blob(ref, CONTENT, BLOB, mount_from="no/such-repository")
    assert await read(client, ref) == CONTENT


async def test_wrong_content_is_never_stored(client: RegistryClient, ref: Reference) -> None:
    for content in (CONTENT[1:] + b"x", CONTENT[1:], CONTENT + b"x"):
        with pytest.raises((ProtocolError, DigestMismatch, TooLarge)):
            await client.put_blob(ref, content, BLOB)
    assert not await client.blob_exists(ref, BLOB.digest)


async def test_an_index_keeps_its_bytes_and_wants_its_children(
    client: RegistryClient, ref: Reference
) -> None:
    image = await push_image(client, ref, AMD64, b"one")
    body = b'{ "schemaVersion":2,"mediaType":"%s","manifests":[%s] }\n' % (
        OCI_INDEX.encode(),
        canonical_json(image.descriptor.to_json()),
    )
    stored = await client.put_manifest(ref, body, OCI_INDEX)
    fetched = await client.get_manifest(ref)
    assert fetched.body == body
    assert fetched.descriptor == stored.descriptor == await client.head_manifest(ref)
    missing = Descriptor(OCI_MANIFEST, sha256_digest(b"missing"), 7)
    dangling = canonical_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [missing.to_json()]})
    with pytest.raises(RegistryError):
        await client.put_manifest(ref.with_tag("dangling"), dangling, OCI_INDEX)


async def test_a_copy_keeps_its_digest(client: RegistryClient, ref: Reference) -> None:
    source = await push_index(client, ref)
    target = Reference(ref.registry, f"{ref.repository}-copy", tag="2")
    assert (await copy_image(Endpoint(client, ref), Endpoint(client, target))).digest == source.digest
    for child in parse_index((await client.get_manifest(target)).body).manifests:
        assert child.platform is not None
        tagged = await client.head_manifest(target.with_tag(f"2-linux-{child.platform.architecture}"))
        assert tagged is not None
        assert tagged.digest == child.digest


async def test_what_is_missing_is_not_found(client: RegistryClient, ref: Reference) -> None:
    assert await client.head_manifest(ref) is None
    assert not await client.blob_exists(ref, sha256_digest(b"missing"))
    with pytest.raises(NotFound):
        await client.get_manifest(ref)
    with pytest.raises(NotFound):
        await client.get_blob(ref, sha256_digest(b"missing"), max_bytes=10)
    assert not await client.delete_manifest(ref.with_digest(sha256_digest(b"missing")))


async def test_a_deleted_image_is_gone(client: RegistryClient, ref: Reference) -> None:
    index = await push_index(client, ref)
    pinned = ref.with_digest(index.digest)
    assert await client.delete_manifest(pinned)
    assert await client.head_manifest(pinned) is None
    assert not await client.delete_manifest(pinned)


async def test_referrers_are_listed_without_losing_any(client: RegistryClient, ref: Reference) -> None:
    subject = await push_index(client, ref)
    assert await client.list_referrers(ref, subject.digest) == ()
    attached = await asyncio.gather(*(attach(client, ref, subject, str(note)) for note in range(6)))
    listed = await client.list_referrers(ref, subject.digest)
    assert {entry.digest for entry in listed} == {entry.digest for entry in attached}


async def test_strangers_are_turned_away(known: KnownRegistry, ref: Reference) -> None:
    if known.ca_file is not None:
        async with new_session() as unaware:
            with pytest.raises(RegistryError, match="no trusted TLS"):
                await known.client(unaware).blob_exists(ref, BLOB.digest)
    if known.login is not None:
        async with known.session() as opened:
            nobody = RegistryClient(opened, retry=QUICK)
            with pytest.raises(Unauthorized):
                await nobody.blob_exists(ref, BLOB.digest)


async def test_a_token_serves_its_scope_until_it_expires(
    known: KnownRegistry, client: RegistryClient, ref: Reference
) -> None:
    if known.realm is None:
        await client.put_blob(ref, CONTENT, BLOB)
        return
    known.realm.scopes.clear()
    await client.put_blob(ref, CONTENT, BLOB)
    for _ in range(3):
        assert await client.blob_exists(ref, BLOB.digest)
    pull, push = f"repository:{ref.repository}:pull", f"repository:{ref.repository}:pull,push"
    assert known.realm.scopes == [(pull,), (push,)]


# --- over plain HTTP alone: what needs a proxy between, or a registry set up otherwise ------------------


async def test_an_upload_whose_answer_was_lost_goes_on(plain: KnownRegistry) -> None:
    """The registry took a chunk and its answer did not arrive.

    Nothing of what it has is sent again, unless it gives the whole upload up, as Debian's does: each of its
    answers has the state without which it does not go on.
    """
    async with plain.session() as session, faulty_registry(plain.server) as proxy:
        ref = Reference(proxy.host, "kinds/lost-answer")
        lost = 0

        async def swallow(request: web.Request) -> web.StreamResponse | None:
            nonlocal lost
            if request.method != "PATCH" or len(proxy.requests("PATCH")) != 2:
                return None
            lost += 1
            async with session.patch(
                f"{plain.server.url}{request.raw_path}", data=await request.read(), headers=request.headers
            ) as answer:
                assert answer.status == 202
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        proxy.faults.append(swallow)
        client = RegistryClient(session, plain_http={proxy.host}, retry=QUICK, chunk_bytes=CHUNK)
        opened = 0

        async def source(offset: int) -> AsyncGenerator[bytes, None]:
            nonlocal opened
            opened += 1
            for start in range(offset, len(CONTENT), 65536):
                yield CONTENT[start : start + 65536]

        await client.put_blob(ref, source, BLOB)
        assert lost == 1
        assert await read(client, ref) == CONTENT
        sent = sum(int(headers["Content-Length"]) for headers in proxy.requests("PATCH"))
        begun_anew = plain.kind is Kind.DISTRIBUTION_2
        assert sent == len(CONTENT) + (2 * CHUNK if begun_anew else 0)
        assert opened == (2 if begun_anew else 1)


async def test_an_upload_that_broke_in_a_chunk_goes_on(plain: KnownRegistry) -> None:
    """Half of a chunk arrived: whether the registry keeps that half or not, the blob comes out whole."""
    async with plain.session() as session, faulty_registry(plain.server) as proxy:
        ref = Reference(proxy.host, "kinds/broken-chunk")
        broken = 0

        async def cut(request: web.Request) -> web.StreamResponse | None:
            nonlocal broken
            if request.method != "PATCH" or len(proxy.requests("PATCH")) != 2:
                return None
            broken += 1
            half = await request.content.readexactly(CHUNK // 2)
            host, _, port = plain.host.rpartition(":")
            _, writer = await asyncio.open_connection(host, int(port))
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            writer.write(f"PATCH {request.raw_path} HTTP/1.1\r\n{head}\r\n".encode() + half)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            assert request.transport is not None
            request.transport.abort()
            return web.Response()

        proxy.faults.append(cut)
        client = RegistryClient(session, plain_http={proxy.host}, retry=QUICK, chunk_bytes=CHUNK)
        await client.put_blob(ref, CONTENT, BLOB)
        assert broken == 1
        assert await read(client, ref) == CONTENT


@pytest.mark.parametrize("kind", list(Kind), ids=str)
async def test_a_registry_that_deletes_nothing_says_so(kind: Kind, tmp_path: Path) -> None:
    with start_kind(kind, Way.PLAIN, tmp_path, deletes=False) as registry:
        async with registry.session() as session:
            client = registry.client(session)
            ref = Reference(registry.host, "kinds/kept", tag="1")
            index = await push_index(client, ref)
            with pytest.raises(DeletionForbidden, match="405"):
                await client.delete_manifest(ref.with_digest(index.digest))


@pytest.mark.parametrize("way", [Way.PLAIN, Way.BASIC], ids=str)
async def test_an_object_store_behind_a_registry_sees_no_credentials(way: Way, tmp_path: Path) -> None:
    with start_kind(Kind.OCI_1_1, way, tmp_path, blob_store=True) as registry:
        async with registry.session() as session:
            client = registry.client(session)
            ref = Reference(registry.host, "kinds/redirected")
            await client.put_blob(ref, CONTENT, BLOB)
            assert await read(client, ref) == CONTENT
            assert await client.get_blob(ref, BLOB.digest, max_bytes=BLOB.size) == CONTENT
