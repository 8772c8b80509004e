"""Registries that lie, stall, flood and fail while an image is verified against a policy."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.policy_verifier import CannotVerify, ImageNotFound, PolicyVerifier
from edgemodel_operator.core.trust import Policy, PolicyVerdict, parse_policy
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.image import make_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient, fallback_tag
from edgemodel_operator.oci.transport import RetryPolicy, new_session
from edgemodel_operator.signing import simple_signing
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Format, Reason, Trusted, Untrusted
from support.kube_api import kube_api_server
from support.registry import Fault, FaultyRegistry, RegistryServer, fail_times, free_port
from support.signed_images import PushedImage, push_image

KEY, STRANGER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
DEMAND = Demand((Authority("plant", (KEY.public_key,)),), any_repository=True)
QUICK = RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.002, longest_retry_after=0.01)
MEGABYTE = bytes(1024 * 1024)


def policy() -> Policy:
    authority = {"name": "plant", "keys": [{"data": KEY.public_key.pem.decode()}]}
    spec = {"images": ["**"], "authorities": [authority], "acceptCopies": True}
    parsed = parse_policy({"metadata": {"name": "models"}, "spec": spec})
    assert isinstance(parsed, Policy)
    return parsed


@pytest.fixture
async def verifier() -> AsyncIterator[PolicyVerifier]:
    async with kube_api_server() as (_, api):
        yield PolicyVerifier(AuthorityStore(api, "edgemodel-system", lambda: 0.0))


@pytest.fixture
async def image(client: RegistryClient, registry: RegistryServer, own_name: str) -> PushedImage:
    return await push_image(client, Reference(registry.host, f"faults/{own_name}"))


@dataclass(frozen=True)
class Bad:
    """A registry that misbehaves as told, a client of it, and the name that the image has there."""

    proxy: FaultyRegistry
    client: RegistryClient
    image: Reference


@pytest.fixture
def bad(faulty: FaultyRegistry, faulty_client: RegistryClient, image: PushedImage) -> Bad:
    return Bad(faulty, faulty_client, Reference(faulty.host, image.index.repository, digest=image.digest))


def answering(part: str, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Fault:
    async def fault(request: web.Request) -> web.StreamResponse | None:
        return await answer(request) if request.method == "GET" and part in request.path_qs else None

    return fault


# 11: where lists of referrers come from.


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_case_11_a_list_of_referrers_on_another_host_is_followed_without_credentials(
    client: RegistryClient, bad: Bad, image: PushedImage, verifier: PolicyVerifier, status: int
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.BUNDLE])
    tag = image.index.with_tag(fallback_tag(image.digest))
    listed = (await client.get_manifest(tag)).body
    asked: list[dict[str, str]] = []

    async def elsewhere(request: web.Request) -> web.Response:
        asked.append(dict(request.headers))
        return web.Response(body=listed, content_type=OCI_INDEX)

    async def redirect(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{port}/list"})

    port = free_port()
    application = web.Application()
    application.router.add_get("/list", elsewhere)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        bad.proxy.faults.append(answering("/referrers/", redirect))
        assert isinstance(await verifier.examine(bad.client, bad.image, DEMAND), Trusted)
    finally:
        await runner.cleanup()
    assert asked
    assert not any("Authorization" in headers for headers in asked)


@pytest.mark.parametrize(("status", "trusted"), [(404, True), (500, False), (503, False)])
async def test_case_11_without_the_referrers_api_the_tag_decides_and_a_failing_one_is_an_error(
    client: RegistryClient,
    bad: Bad,
    image: PushedImage,
    verifier: PolicyVerifier,
    status: int,
    trusted: bool,
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.BUNDLE])
    bad.proxy.faults.append(fail_times(1000, status, part="/referrers/"))
    if trusted:
        assert isinstance(await verifier.examine(bad.client, bad.image, DEMAND), Trusted)
    else:
        with pytest.raises(CannotVerify):
            await verifier.examine(bad.client, bad.image, DEMAND)


# 19: what is read twice could be two things.


@pytest.mark.parametrize("kind", list(Format))
async def test_case_19_a_registry_that_changes_its_answers_changes_no_verdict(
    client: RegistryClient,
    bad: Bad,
    image: PushedImage,
    verifier: PolicyVerifier,
    kind: Format,
) -> None:
    """From some request on another image is served, with signatures of its own: for every such moment."""
    await sign_image(client, image.index, [KEY], formats=[kind])
    other = await push_image(client, image.index, b"another model")
    await sign_image(client, other.index, [STRANGER], formats=[kind])
    one, two = image.digest.removeprefix("sha256:"), other.digest.removeprefix("sha256:")
    turn = 0

    async def flip(request: web.Request) -> web.StreamResponse | None:
        if request.method != "GET" or one not in request.path_qs or len(bad.proxy.seen) <= turn:
            return None
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.get(
                bad.proxy.upstream + request.path_qs.replace(one, two), headers=request.headers
            ) as theirs,
        ):
            return web.Response(
                status=theirs.status,
                body=await theirs.read(),
                content_type=theirs.headers["Content-Type"].partition(";")[0],
            )

    bad.proxy.faults.append(flip)
    outcomes: list[str] = []
    for turn in range(12):  # noqa: B007 - `flip` reads it
        bad.proxy.seen.clear()
        try:
            verdict = await verifier.examine(bad.client, bad.image, DEMAND)
        except CannotVerify:
            outcomes.append("error")
            continue
        outcomes.append("trusted" if verdict.trusted else "untrusted")
        # Whatever was served: the verdict is about the digest that was asked for.
        assert all(evidence.digest in image.digests for evidence in verdict.evidence)
    assert outcomes[0] == "error"
    assert outcomes[-1] == "trusted"
    # The other image, which a stranger signed, is never what gets trusted under our digest.
    assert isinstance(await verifier.examine(client, other.index, DEMAND), Untrusted)


async def test_case_19_a_tag_that_moves_between_reads_is_never_looked_at(
    bad: Bad, verifier: PolicyVerifier
) -> None:
    verdict = await verifier.examine(bad.client, bad.image.with_tag("latest"), DEMAND)
    assert isinstance(verdict, Untrusted)
    assert verdict.reason is Reason.NO_DIGEST
    assert bad.proxy.seen == []


# 21: more than anybody should have to read.


async def test_case_21_a_payload_of_two_hundred_megabytes_is_not_read(
    client: RegistryClient,
    bad: Bad,
    image: PushedImage,
    verifier: PolicyVerifier,
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.LEGACY])
    sent = 0

    async def pour(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(headers={"Content-Length": str(200 * len(MEGABYTE))})
        await response.prepare(request)
        for _ in range(200):
            await response.write(MEGABYTE)
            sent += 1
        return response

    bad.proxy.faults.append(answering("/blobs/", pour))
    verdict = await verifier.examine(bad.client, bad.image, DEMAND)
    assert isinstance(verdict, Untrusted)
    assert verdict.reason is Reason.UNSIGNED
    assert sent < 50


@pytest.mark.parametrize("part", ["/manifests/sha256:", ".sig", "/referrers/", "/blobs/"])
async def test_case_21_a_body_without_end_is_cut_off(
    client: RegistryClient,
    bad: Bad,
    image: PushedImage,
    verifier: PolicyVerifier,
    part: str,
) -> None:
    await sign_image(client, image.index, [STRANGER], formats=[Format.LEGACY])

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": OCI_INDEX})
        response.enable_chunked_encoding()
        await response.prepare(request)
        while True:
            await response.write(MEGABYTE)

    bad.proxy.faults.append(answering(part, endless))
    try:
        verdict = await verifier.examine(bad.client, bad.image, DEMAND)
    except CannotVerify:
        return
    assert isinstance(verdict, Untrusted)


async def test_case_21_a_bomb_is_not_unpacked(
    client: RegistryClient,
    bad: Bad,
    image: PushedImage,
    verifier: PolicyVerifier,
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.LEGACY])
    bomb = gzip.compress(MEGABYTE * 60)
    assert len(bomb) < 64 * 1024

    async def send(_: web.Request) -> web.StreamResponse:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    bad.proxy.faults.append(answering("/blobs/", send))
    with pytest.raises(CannotVerify, match="hashes to"):
        await verifier.examine(bad.client, bad.image, DEMAND)


async def test_case_21_a_byte_a_second_does_not_hold_a_verification(bad: Bad) -> None:
    dripping = asyncio.Event()

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": OCI_INDEX})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            dripping.set()
            await asyncio.sleep(0.01)

    bad.proxy.faults.append(answering("/manifests/", drip))
    async with kube_api_server() as (_, api):
        store = AuthorityStore(api, "edgemodel-system", lambda: 0.0)
        hasty = PolicyVerifier(store, verify_seconds=0.5)
        with pytest.raises(CannotVerify, match="did not answer in time"):
            await hasty.examine(bad.client, bad.image, DEMAND)
    assert dripping.is_set()


async def test_case_21_ten_thousand_referrers_are_not_followed(bad: Bad, verifier: PolicyVerifier) -> None:
    flood = make_index([Descriptor(OCI_MANIFEST, f"sha256:{number:064x}", 500) for number in range(10_000)])

    async def send(_: web.Request) -> web.StreamResponse:
        return web.Response(body=flood, content_type=OCI_INDEX)

    bad.proxy.faults.append(answering("/referrers/", send))
    with pytest.raises(CannotVerify, match="the list of referrers has 10000 entries"):
        await verifier.examine(bad.client, bad.image, DEMAND)
    assert len(bad.proxy.seen) < 10


async def test_case_21_endless_pages_of_referrers_are_not_turned(bad: Bad, verifier: PolicyVerifier) -> None:
    pages = 0

    async def page(request: web.Request) -> web.StreamResponse:
        nonlocal pages
        pages += 1
        body = make_index([Descriptor(OCI_MANIFEST, f"sha256:{pages:064x}", 500)])
        link = f'<{request.path}?page={pages}>; rel="next"'
        return web.Response(body=body, content_type=OCI_INDEX, headers={"Link": link})

    bad.proxy.faults.append(answering("/referrers/", page))
    with pytest.raises(CannotVerify, match="more than 100 referrers"):
        await verifier.examine(bad.client, bad.image, DEMAND)
    assert pages <= 101


async def test_case_21_good_signatures_are_found_before_fifteen_hundred_others(
    client: RegistryClient, image: PushedImage, verifier: PolicyVerifier
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.LEGACY])
    tag = image.index.with_tag(simple_signing.signature_tag(image.digest))
    document = (await client.get_manifest(tag)).json()
    junk = document["layers"][0] | {"annotations": {simple_signing.SIGNATURE_ANNOTATION: "anVuaw=="}}
    document["layers"] += [junk] * 1500
    await client.put_manifest(tag, canonical_json(document), OCI_MANIFEST)
    verdict = await verifier.examine(client, image.index, DEMAND)
    assert isinstance(verdict, Trusted)
    document["layers"].reverse()
    await client.put_manifest(tag, canonical_json(document), OCI_MANIFEST)
    # Behind junk it is not found, and that is no verdict: one from before would stand.
    with pytest.raises(CannotVerify, match="has 1501 signatures; only the first 100 are read"):
        await verifier.examine(client, image.index, DEMAND)


# 23: what cannot be found out is no verdict.


async def answer_of(
    verifier: PolicyVerifier, client: RegistryClient, image: Reference
) -> PolicyVerdict | CannotVerify:
    try:
        return await verifier.verify(client, image, policy())
    except CannotVerify as error:
        return error


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("part", ["/manifests/sha256:", ".sig"])
async def test_case_23_a_registry_that_refuses_or_fails_gives_no_verdict(
    bad: Bad,
    verifier: PolicyVerifier,
    status: int,
    part: str,
) -> None:
    bad.proxy.faults.append(fail_times(1000, status, part=part, Retry_After="1"))
    answer = await answer_of(verifier, bad.client, bad.image)
    assert isinstance(answer, CannotVerify)
    assert answer.reason == "RegistryUnavailable"
    assert not isinstance(answer, ImageNotFound)
    # And as soon as it answers, there is one.
    bad.proxy.faults.clear()
    verdict = await answer_of(verifier, bad.client, bad.image)
    assert isinstance(verdict, PolicyVerdict)
    assert verdict.reason == "Unsigned"


async def test_case_23_a_connection_that_cannot_be_made_gives_no_verdict(
    http_session: aiohttp.ClientSession, image: PushedImage, verifier: PolicyVerifier
) -> None:
    nobody, nowhere = f"127.0.0.1:{free_port()}", "registry.plant-a.invalid:5000"
    client = RegistryClient(http_session, plain_http={nobody, nowhere}, retry=QUICK)
    for host in (nobody, nowhere):
        gone = Reference(host, image.index.repository, digest=image.digest)
        answer = await answer_of(verifier, client, gone)
        assert isinstance(answer, CannotVerify)
        assert answer.reason == "RegistryUnavailable"


async def test_case_23_an_expired_certificate_gives_no_verdict(
    tmp_path: Path, image: PushedImage, verifier: PolicyVerifier
) -> None:
    port = free_port()
    authority, context = expired_certificate(tmp_path)
    runner = web.AppRunner(web.Application())
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=context).start()
        async with new_session(authorities=authority) as session:
            client = RegistryClient(session, retry=QUICK)
            there = Reference(f"127.0.0.1:{port}", image.index.repository, digest=image.digest)
            answer = await answer_of(verifier, client, there)
    finally:
        await runner.cleanup()
    assert isinstance(answer, CannotVerify)
    assert "no trusted TLS" in str(answer)


def expired_certificate(folder: Path) -> tuple[str, ssl.SSLContext]:
    """Make a certificate that ended an hour ago, trusted but for that."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now - datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(pem)
    files[1].write_bytes(private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return pem.decode(), context


async def test_an_image_that_is_not_there_is_called_so(
    client: RegistryClient, image: PushedImage, verifier: PolicyVerifier
) -> None:
    gone = image.index.with_digest("sha256:" + "0" * 64)
    answer = await answer_of(verifier, client, gone)
    assert isinstance(answer, ImageNotFound)
    assert str(gone) in str(answer)


# 24: what protects from an older image that is still signed.


async def test_case_24_an_older_image_under_a_moved_tag_is_refused_by_what_its_attestation_says(
    client: RegistryClient, image: PushedImage, verifier: PolicyVerifier
) -> None:
    """A tag that goes back does nothing to digests; and a policy can ask for a minimal version besides."""
    release = "https://plant-a.local/release/v1"
    newer = await push_image(client, image.index, b"a newer model")
    for pushed, number in ((image, 6), (newer, 7)):
        await sign_image(client, pushed.index, [KEY], formats=[Format.LEGACY])
        subject = await client.head_manifest(pushed.index)
        assert subject is not None
        said = Attestation(release, b'{"number":%d}' % number)
        await attest_digest(client, pushed.index, subject, [said], [KEY], [Format.LEGACY])
    checks = (PredicateCheck("predicate.number >= 7", "releases before 7 are withdrawn"),)
    demand = Demand(DEMAND.authorities, attestations=(WantedAttestation("release", release, checks=checks),))
    assert isinstance(await verifier.examine(client, newer.index, demand), Trusted)
    older = await verifier.examine(client, image.index, demand)
    assert isinstance(older, Untrusted)
    assert older.reason is Reason.ATTESTATION_CHECK_FAILED
    assert "releases before 7 are withdrawn" in older.message
