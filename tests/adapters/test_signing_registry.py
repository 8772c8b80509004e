"""Signing and verifying against a real registry, with and without the referrers API."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.oci.descriptor import OCI_EMPTY, OCI_INDEX, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.errors import DigestMismatch, NotFound, RegistryError, TooLarge
from edgemodel_operator.oci.image import make_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient, fallback_tag
from edgemodel_operator.oci.transport import RetryPolicy, new_session
from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import NotSignable
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import BOTH, sign_image
from edgemodel_operator.signing.stored import MAX_OBJECTS, read_signatures
from edgemodel_operator.signing.verdict import Format, Reason, Trusted, Untrusted, Verdict
from edgemodel_operator.signing.verify import verify_image
from support.registry import Fault, FaultyRegistry, RegistryServer, fail_times
from support.signed_images import PushedImage, push_image

KEY = LocalKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = LocalKey(ec.generate_private_key(ec.SECP256R1()))
PLANT = Authority("plant", (KEY.public_key,))
QUICK = RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.002, longest_retry_after=0.01)


def demand(*authorities: Authority, any_repository: bool = False, platforms_signed: bool = False) -> Demand:
    return Demand(authorities, any_repository=any_repository, platforms_signed=platforms_signed)


@pytest.fixture
def registry_client(http_session: aiohttp.ClientSession, host: str) -> RegistryClient:
    return RegistryClient(http_session, plain_http={host}, retry=QUICK)


@pytest.fixture
async def image(registry_client: RegistryClient, host: str, own_name: str) -> PushedImage:
    """Push an image into a repository of this test's own."""
    return await push_image(registry_client, Reference(host, f"models/{own_name}"))


@pytest.fixture
async def plain(client: RegistryClient, registry: RegistryServer, own_name: str) -> PushedImage:
    """Push an image to the shared registry, which has no referrers API."""
    return await push_image(client, Reference(registry.host, f"models/{own_name}"))


def reason_of(verdict: Verdict) -> Reason:
    assert isinstance(verdict, Untrusted)
    return verdict.reason


async def stored_objects(client: RegistryClient, image: PushedImage) -> list[object]:
    """Return everything that is stored beside the image, by digest."""
    objects: list[object] = []
    for digest in image.digests:
        objects.append(await client.head_manifest(image.index.with_tag(simple_signing.signature_tag(digest))))
        objects.append([one.digest for one in await client.list_referrers(image.index, digest)])
    return objects


async def attach_bundle(
    client: RegistryClient,
    image: Reference,
    statement: bytes,
    key: LocalKey,
    change_entry: Callable[[Descriptor], Descriptor] = lambda entry: entry,
) -> None:
    """Attach a signed statement to the image that the reference names, as a bundle."""
    assert image.digest is not None
    message = bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, statement)
    blob = bundle.make_bundle(statement, await key.sign(message), key.public_key.hint)
    await attach_blob(client, image, blob, change_entry)


async def attach_blob(
    client: RegistryClient,
    image: Reference,
    blob: bytes,
    change_entry: Callable[[Descriptor], Descriptor] = lambda entry: entry,
) -> None:
    subject = await client.head_manifest(image)
    assert subject is not None
    described = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, blob)
    body = bundle.make_bundle_manifest(described, subject)
    entry = Descriptor.of(OCI_MANIFEST, body)
    await client.put_blob(image, bundle.EMPTY_BLOB, bundle.EMPTY_DESCRIPTOR)
    await client.put_blob(image, blob, described)
    put = await client.put_manifest(image.with_digest(entry.digest), body, OCI_MANIFEST)
    if not put.subject_acknowledged:
        await client.add_referrer_fallback(image, subject.digest, change_entry(entry))


async def put_legacy(
    client: RegistryClient, image: Reference, digest: str, layers: Sequence[tuple[bytes, bytes]]
) -> None:
    """Write a `.sig` manifest for `digest` from (payload, signature) pairs."""
    made = simple_signing.make_signature_manifest(
        None,
        [
            simple_signing.SignatureLayer(
                Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, payload), signature
            )
            for payload, signature in layers
        ],
    )
    for payload in dict.fromkeys(payload for payload, _ in layers):
        await client.put_blob(image, payload, Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, payload))
    await client.put_blob(image, made.config, made.config_descriptor)
    await client.put_manifest(image.with_tag(simple_signing.signature_tag(digest)), made.body, OCI_MANIFEST)


@pytest.mark.parametrize("formats", [BOTH, {Format.LEGACY}, {Format.BUNDLE}])
async def test_what_is_signed_verifies_index_and_platforms(
    registry_client: RegistryClient, image: PushedImage, formats: frozenset[Format]
) -> None:
    signed = await sign_image(registry_client, image.index, [KEY], formats=formats)
    assert [one.digest for one in signed] == list(image.digests)
    assert [one.platform for one in signed] == ["", "linux/amd64", "linux/arm64"]
    assert all(one.added == formats for one in signed)

    verdict = await verify_image(registry_client, image.index, demand(PLANT, platforms_signed=True))
    assert isinstance(verdict, Trusted)
    assert verdict.by == ("plant",)
    assert [one.digest for one in verdict.evidence] == list(image.digests)
    assert all(one.signatures[0].key == KEY.public_key.fingerprint for one in verdict.evidence)
    assert all(one.signatures[0].binds_repository for one in verdict.evidence)
    for child in image.children:
        assert isinstance(await verify_image(registry_client, child, demand(PLANT)), Trusted)


async def test_signing_twice_adds_nothing(registry_client: RegistryClient, image: PushedImage) -> None:
    await sign_image(registry_client, image.index, [KEY])
    before = await stored_objects(registry_client, image)
    signed = await sign_image(registry_client, image.index, [KEY])
    assert all(not one.added for one in signed)
    assert await stored_objects(registry_client, image) == before


async def test_what_is_missing_is_added_and_what_is_there_kept(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(registry_client, image.children[0], [KEY], formats={Format.LEGACY})
    signed = {one.digest: one.added for one in await sign_image(registry_client, image.index, [KEY])}
    assert signed == {
        image.digest: BOTH,
        image.platforms[0].digest: {Format.BUNDLE},
        image.platforms[1].digest: BOTH,
    }


async def test_unsigned_unknown_and_unnamed_are_told_apart(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    assert reason_of(await verify_image(registry_client, image.index, demand(PLANT))) is Reason.UNSIGNED
    await sign_image(registry_client, image.index, [STRANGER])
    verdict = await verify_image(registry_client, image.index, demand(PLANT))
    assert reason_of(verdict) is Reason.UNKNOWN_KEY
    assert isinstance(verdict, Untrusted)
    assert str(image.index) in verdict.message

    assert reason_of(await verify_image(registry_client, image.index, demand())) is Reason.NO_AUTHORITY
    keyless = [Authority("empty", ())]
    assert (
        reason_of(await verify_image(registry_client, image.index, demand(*keyless))) is Reason.NO_AUTHORITY
    )
    tagged = image.index.with_tag("latest")
    assert reason_of(await verify_image(registry_client, tagged, demand(PLANT))) is Reason.NO_DIGEST
    with pytest.raises(NotSignable):
        await sign_image(registry_client, tagged, [KEY])
    with pytest.raises(NotFound):
        await verify_image(registry_client, image.index.with_digest("sha256:" + "0" * 64), demand(PLANT))


async def test_all_authorities_that_vouch_are_named(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(registry_client, image.index, [KEY], formats={Format.LEGACY})
    await sign_image(registry_client, image.index, [STRANGER], formats={Format.BUNDLE})
    authorities = [PLANT, Authority("central", (STRANGER.public_key,)), Authority("absent", ())]
    verdict = await verify_image(registry_client, image.index, demand(*authorities, platforms_signed=True))
    assert isinstance(verdict, Trusted)
    assert verdict.by == ("plant", "central")


async def test_case_04_a_copy_in_another_repository_is_not_trusted_unless_asked(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(registry_client, image.index, [KEY])
    copy = Reference(image.index.registry, f"{image.index.repository}-copy", digest=image.digest)
    await push_image(registry_client, copy)
    payload = simple_signing.make_payload(image.index.name, image.digest)
    await put_legacy(registry_client, copy, image.digest, [(payload, await KEY.sign(payload))])
    statement = bundle.make_statement(image.index.name, image.digest)
    await attach_bundle(registry_client, copy, statement, KEY)

    verdict = await verify_image(registry_client, copy, demand(PLANT))
    assert reason_of(verdict) is Reason.OTHER_REPOSITORY
    mirrored = await verify_image(registry_client, copy, demand(PLANT, any_repository=True))
    assert isinstance(mirrored, Trusted)
    assert not mirrored.evidence[0].signatures[0].binds_repository


async def test_case_05_an_attestation_alone_is_no_signature(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    document = json.loads(bundle.make_statement(image.index.name, image.digest))
    attested = canonical_json(document | {"predicateType": "https://slsa.dev/provenance/v1"})
    await attach_bundle(registry_client, image.index, attested, KEY)
    assert (
        reason_of(await verify_image(registry_client, image.index, demand(PLANT))) is Reason.ONLY_ATTESTATION
    )


async def test_case_10_junk_beside_a_good_signature_changes_nothing(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    payload = simple_signing.make_payload(image.index.name, image.digest)
    await put_legacy(registry_client, image.index, image.digest, [(payload, b"junk"), (b"junk", b"junk")])
    await attach_blob(registry_client, image.index, b"junk")
    await attach_bundle(registry_client, image.index, b"{}", STRANGER)
    unsigned = await verify_image(registry_client, image.index, demand(PLANT))
    assert reason_of(unsigned) is Reason.UNKNOWN_KEY

    await attach_bundle(
        registry_client, image.index, bundle.make_statement(image.index.name, image.digest), KEY
    )
    verdict = await verify_image(registry_client, image.index, demand(PLANT))
    assert isinstance(verdict, Trusted)
    assert verdict.evidence[0].ignored == 4
    await sign_image(registry_client, image.index, [KEY])
    found = await read_signatures(registry_client, image.index, image.digest, Format.LEGACY)
    assert len(found.candidates) == 3


async def test_a_signature_tag_that_holds_something_else_does_not_stop_a_signer(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    tag = image.index.with_tag(simple_signing.signature_tag(image.digest))
    await registry_client.put_manifest(tag, make_index(image.platforms, {"odd": "one"}), OCI_INDEX)
    assert reason_of(await verify_image(registry_client, image.index, demand(PLANT))) is Reason.UNSIGNED
    await sign_image(registry_client, image.index, [KEY], formats={Format.LEGACY})
    assert isinstance(await verify_image(registry_client, image.index, demand(PLANT)), Trusted)


async def test_case_11_a_fallback_entry_with_the_type_of_the_config_is_found(
    client: RegistryClient, plain: PushedImage
) -> None:
    def as_cosign_writes_it(entry: Descriptor) -> Descriptor:
        return Descriptor(entry.media_type, entry.digest, entry.size, artifact_type=OCI_EMPTY)

    statement = bundle.make_statement(plain.index.name, plain.digest)
    await attach_bundle(client, plain.index, statement, KEY, as_cosign_writes_it)
    assert isinstance(await verify_image(client, plain.index, demand(PLANT)), Trusted)


async def test_case_12_fifty_parallel_signers_lose_no_signature(
    client: RegistryClient, plain: PushedImage, registry: RegistryServer
) -> None:
    keys = [LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(50)]

    async def sign_alone(key: LocalKey) -> None:
        # A client each, as if each were a process of its own: they share no locks.
        async with new_session() as session:
            alone = RegistryClient(session, plain_http={registry.host})
            await sign_image(alone, plain.children[0], [key])

    await asyncio.gather(*(sign_alone(key) for key in keys))
    digest = plain.platforms[0].digest
    for kind in Format:
        found = await read_signatures(client, plain.index, digest, kind)
        assert not found.errors
        signed_by = {
            key.public_key.fingerprint
            for key in keys
            for one in found.candidates
            if key.public_key.verifies(one.signature, one.message)
        }
        assert len(signed_by) == len(keys)
        assert len(found.candidates) == len(keys)


async def test_case_13_an_index_signature_binds_its_platforms_but_is_not_theirs(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    payload = simple_signing.make_payload(image.index.name, image.digest)
    await put_legacy(registry_client, image.index, image.digest, [(payload, await KEY.sign(payload))])
    verdict = await verify_image(registry_client, image.index, demand(PLANT))
    assert isinstance(verdict, Trusted)
    assert [one.listed_in for one in verdict.evidence] == ["", image.digest, image.digest]
    assert reason_of(await verify_image(registry_client, image.children[0], demand(PLANT))) is Reason.UNSIGNED
    strict = await verify_image(registry_client, image.index, demand(PLANT, platforms_signed=True))
    assert reason_of(strict) is Reason.PLATFORM_UNSIGNED
    assert isinstance(strict, Untrusted)
    assert "linux/amd64" in strict.message


async def test_case_13_signed_platforms_do_not_make_their_index_signed(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    for child in image.children:
        await sign_image(registry_client, child, [KEY])
    assert reason_of(await verify_image(registry_client, image.index, demand(PLANT))) is Reason.UNSIGNED


async def test_case_13_platforms_signed_by_somebody_else_than_the_index_do_not_pass(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    payload = simple_signing.make_payload(image.index.name, image.digest)
    await put_legacy(registry_client, image.index, image.digest, [(payload, await KEY.sign(payload))])
    for child in image.children:
        await sign_image(registry_client, child, [STRANGER])
    authorities = [PLANT, Authority("central", (STRANGER.public_key,))]
    verdict = await verify_image(registry_client, image.index, demand(*authorities, platforms_signed=True))
    assert reason_of(verdict) is Reason.PLATFORM_UNSIGNED


async def test_case_13_a_platform_swapped_into_a_new_index_is_not_signed(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(registry_client, image.index, [KEY])
    other = await push_image(registry_client, image.index, b"another model")
    body = make_index([image.platforms[0], other.platforms[1]])
    mixed = image.index.with_digest(Descriptor.of(OCI_INDEX, body).digest)
    await registry_client.put_manifest(mixed, body, OCI_INDEX)
    assert reason_of(await verify_image(registry_client, mixed, demand(PLANT))) is Reason.UNSIGNED


def answer_with(part: str, body: bytes, content_type: str, status: int = 200) -> Fault:
    """Answer every GET whose path holds `part` with these bytes."""

    async def fault(request: web.Request) -> web.Response | None:
        if request.method == "GET" and part in request.path_qs:
            return web.Response(status=status, body=body, content_type=content_type)
        return None

    return fault


def through(proxy: FaultyRegistry, image: PushedImage) -> Reference:
    return Reference(proxy.host, image.index.repository, digest=image.digest)


async def test_case_19_only_digests_are_asked_for_and_the_tag_never(
    faulty_client: RegistryClient, faulty: FaultyRegistry, client: RegistryClient, plain: PushedImage
) -> None:
    await sign_image(client, plain.index, [KEY])
    await verify_image(faulty_client, through(faulty, plain), demand(PLANT, any_repository=True))
    asked = [path.rpartition("/")[2] for _, path, _ in faulty.seen if "/manifests/" in path]
    assert asked[0] == plain.digest
    signature_tag = simple_signing.signature_tag(plain.digest)
    assert set(asked) <= {plain.digest, signature_tag, fallback_tag(plain.digest)}


@pytest.mark.parametrize("part", ["/manifests/sha256:", "/blobs/sha256:", ".sig"])
async def test_case_20_bytes_that_do_not_hash_to_their_name_are_an_error(
    faulty_client: RegistryClient,
    faulty: FaultyRegistry,
    client: RegistryClient,
    plain: PushedImage,
    part: str,
) -> None:
    payload = simple_signing.make_payload(plain.index.name, plain.digest)
    await put_legacy(client, plain.index, plain.digest, [(payload, await KEY.sign(payload))])

    async def lie(request: web.Request) -> web.Response | None:
        if request.method == "GET" and part in request.path_qs:
            headers = {"Docker-Content-Digest": plain.digest}
            return web.Response(body=b'{"layers":[]}', content_type=OCI_MANIFEST, headers=headers)
        return None

    faulty.faults.append(lie)
    with pytest.raises(DigestMismatch):
        await verify_image(faulty_client, through(faulty, plain), demand(PLANT, any_repository=True))


@pytest.mark.parametrize("part", [".sig", "/referrers/", "/blobs/", "/manifests/sha256:"])
@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
async def test_case_23_a_failing_registry_is_an_error_and_never_unsigned(
    faulty_client: RegistryClient,
    faulty: FaultyRegistry,
    client: RegistryClient,
    plain: PushedImage,
    part: str,
    status: int,
) -> None:
    # Signed, but by somebody unknown: whether the image is trusted hangs on what cannot be read.
    payload = simple_signing.make_payload(plain.index.name, plain.digest)
    await put_legacy(client, plain.index, plain.digest, [(payload, await STRANGER.sign(payload))])
    faulty.faults.append(fail_times(1000, status, part=part))
    with pytest.raises(RegistryError):
        await verify_image(faulty_client, through(faulty, plain), demand(PLANT, any_repository=True))


async def test_case_11_a_broken_list_of_referrers_is_an_error(
    faulty_client: RegistryClient, faulty: FaultyRegistry, plain: PushedImage
) -> None:
    for body, content_type in ((b'{"manifests":[', OCI_INDEX), (b'{"manifests":7}', OCI_INDEX)):
        faulty.faults[:] = [answer_with("/referrers/", body, content_type)]
        with pytest.raises(RegistryError):
            await verify_image(faulty_client, through(faulty, plain), demand(PLANT))


async def test_case_23_a_failing_format_does_not_matter_when_the_other_suffices(
    faulty_client: RegistryClient, faulty: FaultyRegistry, client: RegistryClient, plain: PushedImage
) -> None:
    await sign_image(client, plain.index, [KEY])
    for part in (".sig", "/referrers/"):
        faulty.faults[:] = [fail_times(1000, 500, part=part)]
        image = through(faulty, plain)
        assert isinstance(
            await verify_image(faulty_client, image, demand(PLANT, any_repository=True)), Trusted
        )


async def test_case_21_too_many_and_too_large_objects_are_bounded(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    payload = simple_signing.make_payload(image.index.name, image.digest)
    junk = [(payload, b"junk %d" % number) for number in range(1500)]
    good = (payload, await KEY.sign(payload))
    await put_legacy(registry_client, image.index, image.digest, [*junk, good])
    with pytest.raises(TooLarge, match="has 1501 signatures; only the first 100 are read"):
        await verify_image(registry_client, image.index, demand(PLANT))
    await put_legacy(registry_client, image.index, image.digest, [good, *junk])
    assert isinstance(await verify_image(registry_client, image.index, demand(PLANT)), Trusted)

    other = image.children[0]
    await attach_blob(registry_client, other, b"{" + b" " * 300_000 + b"}")
    assert reason_of(await verify_image(registry_client, other, demand(PLANT))) is Reason.UNSIGNED


async def test_case_21_a_flood_of_referrers_is_no_trust_and_ends_soon(
    faulty_client: RegistryClient, faulty: FaultyRegistry, plain: PushedImage
) -> None:
    flood = [Descriptor(OCI_MANIFEST, f"sha256:{number:064x}", 500) for number in range(MAX_OBJECTS + 1)]
    faulty.faults.append(answer_with("/referrers/", make_index(flood), OCI_INDEX))
    with pytest.raises(TooLarge, match="has more than 100 referrers"):
        await verify_image(faulty_client, through(faulty, plain), demand(PLANT))
    assert len(faulty.seen) < 10


async def test_case_18_nothing_but_the_registry_is_contacted(
    client: RegistryClient, plain: PushedImage
) -> None:
    contacted: list[Any] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname"}:
            contacted.append((event, arguments[-1] if event == "socket.connect" else arguments[0]))

    sys.addaudithook(watch)
    try:
        await sign_image(client, plain.index, [KEY])
        assert isinstance(await verify_image(client, plain.index, demand(PLANT)), Trusted)
    finally:
        watching = False
    address, _, port = plain.index.registry.rpartition(":")
    allowed = {("socket.connect", (address, int(port))), ("socket.getaddrinfo", address)}
    assert contacted
    assert set(contacted) <= allowed


async def test_an_index_that_could_also_be_an_image_is_neither_signed_nor_trusted(
    faulty_client: RegistryClient, faulty: FaultyRegistry, plain: PushedImage
) -> None:
    ambiguous = canonical_json(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [], "layers": [], "config": {}}
    )
    image = Reference(faulty.host, plain.index.repository, digest=Descriptor.of(OCI_INDEX, ambiguous).digest)
    faulty.faults.append(answer_with("/manifests/sha256:", ambiguous, OCI_INDEX))
    assert reason_of(await verify_image(faulty_client, image, demand(PLANT))) is Reason.AMBIGUOUS_MANIFEST
    with pytest.raises(NotSignable):
        await sign_image(faulty_client, image, [KEY])
