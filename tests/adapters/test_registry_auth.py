"""Credentials: who gets them, and that nobody else does."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.oci import tokens as token_book
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.errors import RegistryUnavailable, Unauthorized
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy
from support.registry import FaultyRegistry, RegistryServer, faulty_registry, free_port
from support.token_server import TokenServer, demand_basic

BLOB = Descriptor.of("application/octet-stream", b"weights")
ROBOT = Credential("robot", "s3cret")


@pytest.fixture
def ref(faulty: FaultyRegistry, request: pytest.FixtureRequest) -> Reference:
    return parse_reference(f"{faulty.host}/auth/{request.node.name.lower().replace('_', '-')}:1")


@pytest.fixture
def tokens(faulty: FaultyRegistry) -> TokenServer:
    server = TokenServer()
    faulty.faults += [server.realm(), server.demand(f"http://{faulty.host}/token")]
    return server


def make_client(
    session: aiohttp.ClientSession, host: str, credential: Credential | None = ROBOT
) -> RegistryClient:
    credentials = {host: credential} if credential else {}
    return RegistryClient(
        session,
        credentials=credentials,
        plain_http={host},
        retry=RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.001),
    )


async def test_a_token_is_fetched_once_per_scope(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    client = make_client(http_session, faulty.host)
    await client.put_blob(ref, b"weights", BLOB)
    for _ in range(3):
        assert await client.get_blob(ref, BLOB.digest, max_bytes=7) == b"weights"
    assert sorted(tokens.valid.values()) == [
        (f"repository:{ref.repository}:pull",),
        (f"repository:{ref.repository}:pull,push",),
    ]


async def test_a_token_that_is_refused_is_fetched_anew(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    client = make_client(http_session, faulty.host)
    await client.put_blob(ref, b"weights", BLOB)
    tokens.valid.clear()
    assert await client.blob_exists(ref, BLOB.digest)
    tokens.valid.clear()
    await client.put_blob(ref, b"others", Descriptor.of("application/octet-stream", b"others"))


async def test_an_expired_token_is_not_sent(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    tokens.lifetime = 1e-9
    client = make_client(http_session, faulty.host)
    for _ in range(2):
        assert not await client.blob_exists(ref, BLOB.digest)
    sent = [headers.get("Authorization") for headers in faulty.requests("HEAD")]
    assert sent == [None, "Bearer token-1", None, "Bearer token-2"]


async def test_a_lifetime_of_nothing_means_the_default(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    tokens.lifetime = 0
    client = make_client(http_session, faulty.host)
    for _ in range(2):
        assert not await client.blob_exists(ref, BLOB.digest)
    assert tokens.issued == 1


async def test_only_so_many_tokens_are_kept_and_those_in_use_the_longest(
    http_session: aiohttp.ClientSession,
    faulty: FaultyRegistry,
    tokens: TokenServer,
    ref: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_book, "_MAX_KEPT", 2)
    client = make_client(http_session, faulty.host)
    one, two, three = (Reference(ref.registry, f"{ref.repository}/{name}") for name in ("1", "2", "3"))
    issued = []
    for asked in (one, two, one, three, one, two):
        await client.blob_exists(asked, BLOB.digest)
        issued.append(tokens.issued)
    assert issued == [1, 2, 2, 3, 3, 4]


async def test_an_expired_token_makes_room_first(
    http_session: aiohttp.ClientSession,
    faulty: FaultyRegistry,
    tokens: TokenServer,
    ref: Reference,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(token_book, "_MAX_KEPT", 2)
    client = make_client(http_session, faulty.host)
    one, two, three = (Reference(ref.registry, f"{ref.repository}/{name}") for name in ("1", "2", "3"))
    await client.blob_exists(one, BLOB.digest)
    tokens.lifetime = 1e-9
    await client.blob_exists(two, BLOB.digest)
    tokens.lifetime = 300
    for asked in (three, one):
        await client.blob_exists(asked, BLOB.digest)
    assert tokens.issued == 3


async def test_a_user_name_that_is_wanted_is_given_unasked_for_every_repository(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, ref: Reference
) -> None:
    faulty.faults.append(demand_basic("robot", "s3cret"))
    client = make_client(http_session, faulty.host)
    for name in ("1", "2", "3"):
        await client.blob_exists(Reference(ref.registry, f"{ref.repository}/{name}"), BLOB.digest)
    sent = [headers.get("Authorization") for headers in faulty.requests("HEAD")]
    assert sent == [None, *[ROBOT.basic] * 3]


async def test_case_23_wrong_credentials_raise_and_stay_secret(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    client = make_client(http_session, faulty.host, Credential("robot", "wrong-word"))
    with pytest.raises(Unauthorized) as raised:
        await client.blob_exists(ref, BLOB.digest)
    assert "wrong-word" not in repr(raised.value)
    assert not tokens.issued


async def test_basic_authentication_is_answered_when_asked_for(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, ref: Reference
) -> None:
    faulty.faults.append(demand_basic("robot", "s3cret"))
    await make_client(http_session, faulty.host).put_blob(ref, b"weights", BLOB)
    assert "Authorization" not in faulty.seen[0][2]
    with pytest.raises(Unauthorized):
        await make_client(http_session, faulty.host, None).blob_exists(ref, BLOB.digest)
    wrong = make_client(http_session, faulty.host, Credential("robot", "no"))
    before = len(faulty.requests("HEAD"))
    for _ in range(2):
        with pytest.raises(Unauthorized):
            await wrong.blob_exists(ref, BLOB.digest)
    # Unasked, asked; and the second time once: the same password is not offered twice to one question.
    assert len(faulty.requests("HEAD")) - before == 3


async def test_case_22_a_plain_realm_on_another_host_gets_nothing(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, ref: Reference
) -> None:
    server = TokenServer()
    faulty.faults.append(server.demand("http://tokens.example.com/token"))
    with pytest.raises(Unauthorized, match="must be https"):
        await make_client(http_session, faulty.host).blob_exists(ref, BLOB.digest)


async def test_case_22_a_realm_elsewhere_gets_nothing_unless_the_login_names_its_host(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, ref: Reference
) -> None:
    server, elsewhere = TokenServer(), f"localhost:{free_port()}"  # nobody listens there
    faulty.faults.append(server.demand(f"https://{elsewhere}/token"))
    with pytest.raises(Unauthorized, match=r'add "tokenHosts": \["localhost"\] to the entry of 127\.0\.0\.1'):
        await make_client(http_session, faulty.host).blob_exists(ref, BLOB.digest)
    named = Credential("robot", "s3cret", ("localhost",))
    for credential in (named, None):  # without a login there is nothing to lose
        with pytest.raises(RegistryUnavailable):
            await make_client(http_session, faulty.host, credential).blob_exists(ref, BLOB.digest)


async def test_case_22_a_redirect_does_not_take_the_token_along(
    http_session: aiohttp.ClientSession,
    registry: RegistryServer,
    faulty: FaultyRegistry,
    tokens: TokenServer,
    ref: Reference,
) -> None:
    await make_client(http_session, faulty.host).put_blob(ref, b"weights", BLOB)
    async with faulty_registry(registry) as storage:

        async def away(request: web.Request) -> web.Response | None:
            if request.method == "GET" and "/blobs/" in request.path:
                return web.Response(status=307, headers={"Location": f"http://{storage.host}{request.path}"})
            return None

        faulty.faults.append(away)
        client = make_client(http_session, faulty.host)
        assert await client.get_blob(ref, BLOB.digest, max_bytes=7) == b"weights"
        assert [headers.get("Authorization") for headers in storage.requests("GET")] == [None]


async def test_a_redirect_within_the_registry_keeps_the_token(
    http_session: aiohttp.ClientSession, faulty: FaultyRegistry, tokens: TokenServer, ref: Reference
) -> None:
    client = make_client(http_session, faulty.host)
    await client.put_blob(ref, b"weights", BLOB)
    moved = {"Location": f"/v2/{ref.repository}/blobs/{BLOB.digest}"}

    async def within(request: web.Request) -> web.Response | None:
        elsewhere = request.method == "GET" and "/blobs/" in request.path and not request.query
        return (
            web.Response(status=307, headers={"Location": moved["Location"] + "?n=1"}) if elsewhere else None
        )

    faulty.faults.append(within)
    assert await client.get_blob(ref, BLOB.digest, max_bytes=7) == b"weights"


async def test_case_22_a_challenge_behind_a_redirect_is_not_answered(
    http_session: aiohttp.ClientSession, registry: RegistryServer, faulty: FaultyRegistry, ref: Reference
) -> None:
    async with faulty_registry(registry) as storage:
        storage.faults.append(demand_basic("robot", "s3cret"))

        async def away(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": f"http://{storage.host}{request.path}"})

        faulty.faults.append(away)
        with pytest.raises(Unauthorized):
            await make_client(http_session, faulty.host).get_blob(ref, BLOB.digest, max_bytes=7)
        assert [headers.get("Authorization") for headers in storage.requests("GET")] == [None]
