"""Attestations that a policy asks for, found beside real images on registries of both kinds."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.oci.descriptor import (
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Platform,
    canonical_json,
)
from edgemodel_operator.oci.errors import RegistryError, TooLarge
from edgemodel_operator.oci.image import make_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import RetryPolicy
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.attached import BundlePart, keep_bundles
from edgemodel_operator.signing.attest import (
    Attestation,
    attest_digest,
    make_envelope,
)
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.keyless import load_identity
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.stored_attestations import ENVELOPE_MEDIA_TYPE, attestation_tag
from edgemodel_operator.signing.verdict import Format, Outcome, Reason, Trusted, Untrusted, Verdict
from edgemodel_operator.signing.verify import verify_image
from support.registry import FaultyRegistry, RegistryServer, fail_times
from support.signed_images import PushedImage, push_image
from support.sigstore_site import ISSUER, SUBJECT, Site

KEY, QA_KEY, STRANGER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(3))
PLANT, QA = Authority("plant", (KEY.public_key,)), Authority("qa", (QA_KEY.public_key,))
SLSA, TESTS = "https://slsa.dev/provenance/v1", "https://plant-a.local/tests/v1"
PROVENANCE = Attestation(SLSA, b'{"builder":{"id":"https://ci.plant-a.local"}}')
QUICK = RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.002, longest_retry_after=0.01)

BUILT_HERE = PredicateCheck("predicate.builder.id == 'https://ci.plant-a.local'", "it was not built here")
ORIGIN = WantedAttestation("origin", SLSA, checks=(BUILT_HERE,))
DEMAND = Demand((PLANT, QA), attestations=(ORIGIN,))


@pytest.fixture
def registry_client(http_session: aiohttp.ClientSession, host: str) -> RegistryClient:
    return RegistryClient(http_session, plain_http={host}, retry=QUICK)


@pytest.fixture
async def image(registry_client: RegistryClient, host: str, own_name: str) -> PushedImage:
    """Push an image that is signed, and not attested."""
    pushed = await push_image(registry_client, Reference(host, f"attested/{own_name}"))
    await sign_image(registry_client, pushed.index, [KEY], formats={Format.LEGACY})
    return pushed


async def attest(
    client: RegistryClient,
    image: PushedImage,
    attestation: Attestation = PROVENANCE,
    key: LocalKey = KEY,
    *,
    digest: str = "",
    formats: Sequence[Format] = (Format.LEGACY, Format.BUNDLE),
) -> None:
    subject = await client.head_manifest(image.index.with_digest(digest or image.digest))
    assert subject is not None
    await attest_digest(client, image.index, subject, [attestation], [key], formats)


async def store_bundle(client: RegistryClient, image: PushedImage, content: bytes, label: str) -> None:
    subject = await client.head_manifest(image.index)
    assert subject is not None
    await keep_bundles(client, image.index, subject, [BundlePart(content, label)])


def reason_of(verdict: Verdict) -> Reason:
    assert isinstance(verdict, Untrusted)
    return verdict.reason


@pytest.mark.parametrize("kind", list(Format))
async def test_an_attestation_about_the_index_counts_in_either_format(
    registry_client: RegistryClient, image: PushedImage, kind: Format
) -> None:
    missing = await verify_image(registry_client, image.index, DEMAND)
    assert reason_of(missing) is Reason.ATTESTATION_MISSING
    await attest(registry_client, image, formats=[kind])
    verdict = await verify_image(registry_client, image.index, DEMAND)
    assert isinstance(verdict, Trusted)
    (attested,) = verdict.evidence[0].attestations
    assert (attested.name, attested.authorities) == ("origin", ("plant",))
    assert attested.key == KEY.public_key.fingerprint
    (step,) = [step for step in verdict.steps if step.number == 11]
    assert step.outcome is Outcome.HOLDS
    assert '"origin" by plant' in step.detail


async def test_attestations_about_every_platform_count_for_the_index_and_about_one_do_not(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    await attest(registry_client, image, digest=image.platforms[0].digest)
    half = await verify_image(registry_client, image.index, DEMAND)
    assert reason_of(half) is Reason.ATTESTATION_MISSING
    assert isinstance(half, Untrusted)
    assert "linux/arm64" in half.message
    await attest(registry_client, image, digest=image.platforms[1].digest)
    verdict = await verify_image(registry_client, image.index, DEMAND)
    assert isinstance(verdict, Trusted)
    assert [len(one.attestations) for one in verdict.evidence] == [0, 1, 1]


async def test_case_13_what_buildkit_stores_in_an_index_is_no_platform(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    about = Descriptor(
        OCI_MANIFEST,
        image.platforms[1].digest,
        image.platforms[1].size,
        Platform("unknown", "unknown"),
        {"vnd.docker.reference.type": "attestation-manifest"},
    )
    body = make_index([image.platforms[0], about])
    index = image.index.with_digest(Descriptor.of(OCI_INDEX, body).digest)
    await registry_client.put_manifest(index, body, OCI_INDEX)
    await sign_image(registry_client, index, [KEY], formats={Format.LEGACY})
    await attest(registry_client, image, digest=image.platforms[0].digest)
    strict = replace(DEMAND, platforms_signed=True)
    assert isinstance(await verify_image(registry_client, index, strict), Trusted)
    # A platform that only calls itself such a thing is still one that nodes run.
    lying = replace(about, platform=Platform("linux", "arm64"))
    body = make_index([image.platforms[0], lying])
    index = image.index.with_digest(Descriptor.of(OCI_INDEX, body).digest)
    await registry_client.put_manifest(index, body, OCI_INDEX)
    await sign_image(registry_client, index, [KEY], formats={Format.LEGACY})
    assert reason_of(await verify_image(registry_client, index, strict)) is Reason.ATTESTATION_MISSING


async def test_case_06_the_label_of_a_bundle_decides_nothing(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    async def bundle_of(kind: str) -> bytes:
        document = json.loads(bundle.make_statement(image.index.name, image.digest))
        statement = canonical_json(
            document | {"predicateType": kind, "predicate": json.loads(PROVENANCE.predicate)}
        )
        message = bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, statement)
        return bundle.make_bundle(statement, await KEY.sign(message), KEY.public_key.hint)

    await store_bundle(registry_client, image, await bundle_of(TESTS), label=SLSA)
    lied = await verify_image(registry_client, image.index, DEMAND)
    assert reason_of(lied) is Reason.ATTESTATION_MISSING
    await store_bundle(registry_client, image, await bundle_of(SLSA), label="https://example.com/another")
    assert isinstance(await verify_image(registry_client, image.index, DEMAND), Trusted)


async def test_only_an_allowed_authority_attests_and_a_strangers_word_harms_nothing(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    tested = WantedAttestation("tested", TESTS, frozenset({"qa"}))
    demand = Demand((PLANT, QA), attestations=(tested,))
    await attest(registry_client, image, Attestation(TESTS, b'{"by":"plant"}'))
    await attest(registry_client, image, Attestation(TESTS, b'{"by":"a stranger"}'), STRANGER)
    verdict = await verify_image(registry_client, image.index, demand)
    assert reason_of(verdict) is Reason.ATTESTATION_MISSING
    assert isinstance(verdict, Untrusted)
    await attest(registry_client, image, Attestation(TESTS, b'{"by":"qa"}'), QA_KEY)
    assert isinstance(await verify_image(registry_client, image.index, demand), Trusted)


async def test_all_checks_must_hold_of_one_and_the_same_statement(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    checks = (
        PredicateCheck("predicate.passed", "the test has failed"),
        PredicateCheck("predicate.site == 'plant-a'", "it was tested elsewhere"),
    )
    demand = Demand((PLANT,), attestations=(WantedAttestation("tested", TESTS, checks=checks),))
    for predicate in (b'{"passed":true,"site":"plant-b"}', b'{"passed":false,"site":"plant-a"}'):
        await attest(registry_client, image, Attestation(TESTS, predicate))
    verdict = await verify_image(registry_client, image.index, demand)
    assert reason_of(verdict) is Reason.ATTESTATION_CHECK_FAILED
    assert isinstance(verdict, Untrusted)
    assert "it was tested elsewhere" in verdict.message or "the test has failed" in verdict.message
    await attest(registry_client, image, Attestation(TESTS, b'{"passed":true,"site":"plant-a"}'))
    assert isinstance(await verify_image(registry_client, image.index, demand), Trusted)


async def test_case_05_an_attested_image_that_nobody_signed_is_not_trusted(
    registry_client: RegistryClient, host: str, own_name: str
) -> None:
    unsigned = await push_image(registry_client, Reference(host, f"attested/{own_name}"))
    await attest(registry_client, unsigned)
    assert reason_of(await verify_image(registry_client, unsigned.index, DEMAND)) is Reason.ONLY_ATTESTATION


async def test_case_02_an_attestation_moved_from_another_image_does_not_count(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    other = await push_image(registry_client, image.index, b"another model")
    await attest(registry_client, other, formats=[Format.LEGACY])
    theirs = await registry_client.get_manifest(image.index.with_tag(attestation_tag(other.digest)))
    ours = image.index.with_tag(attestation_tag(image.digest))
    await registry_client.put_manifest(ours, theirs.body, OCI_MANIFEST)
    verdict = await verify_image(registry_client, image.index, DEMAND)
    assert reason_of(verdict) is Reason.ATTESTATION_MISSING
    assert isinstance(verdict, Untrusted)
    assert "is not about" in verdict.message


async def put_envelopes(client: RegistryClient, image: PushedImage, layers: list[tuple[bytes, int]]) -> None:
    """Write an `.att` manifest by hand, each layer with the size that it claims to have."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    empty = bundle.EMPTY_DESCRIPTOR
    await client.put_blob(image.index, bundle.EMPTY_BLOB, empty)
    document |= {"config": empty.to_json(), "layers": []}
    for content in dict.fromkeys(content for content, _ in layers):
        await client.put_blob(image.index, content, Descriptor.of(ENVELOPE_MEDIA_TYPE, content))
    for content, size in layers:
        described = Descriptor.of(ENVELOPE_MEDIA_TYPE, content)
        document["layers"].append(described.to_json() | {"size": size})
    tag = image.index.with_tag(attestation_tag(image.digest))
    await client.put_manifest(tag, canonical_json(document), OCI_MANIFEST)


async def envelope(image: PushedImage, predicate: dict[str, Any]) -> bytes:
    document = json.loads(bundle.make_statement(image.index.name, image.digest))
    statement = canonical_json(document | {"predicateType": SLSA, "predicate": predicate})
    message = bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, statement)
    return make_envelope(statement, await KEY.sign(message))


async def test_case_07_envelopes_that_could_mean_something_else_do_not_count(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    good = json.loads(await envelope(image, json.loads(PROVENANCE.predicate)))
    twice = good | {"signatures": [*good["signatures"], *good["signatures"]]}
    retyped = good | {"payloadType": "application/json"}
    unknown = good | {"extra": 1}
    spaced = good | {"payload": base64.b64encode(base64.b64decode(good["payload"]) + b" ").decode()}
    bad = [canonical_json(one) for one in (twice, retyped, unknown, spaced)]
    bad += [b"junk", canonical_json(good)[:-1] + b',"payloadtype":"x"}']
    await put_envelopes(registry_client, image, [(one, len(one)) for one in bad])
    verdict = await verify_image(registry_client, image.index, DEMAND)
    assert reason_of(verdict) is Reason.ATTESTATION_MISSING
    # Nor do they hide the good one.
    last = canonical_json(good)
    await put_envelopes(registry_client, image, [(one, len(one)) for one in (*bad, last)])
    assert isinstance(await verify_image(registry_client, image.index, DEMAND), Trusted)


async def test_case_21_statements_beyond_the_limits_are_not_read_and_hide_nothing_smaller(
    registry_client: RegistryClient, image: PushedImage
) -> None:
    huge = [(b"huge", 16 * 1024 * 1024)] * 120
    await put_envelopes(registry_client, image, huge)
    with pytest.raises(TooLarge, match="has 116 more objects attached than are read"):
        await verify_image(registry_client, image.index, DEMAND)
    good = await envelope(image, json.loads(PROVENANCE.predicate))
    await put_envelopes(registry_client, image, [*huge, (good, len(good))])
    assert isinstance(await verify_image(registry_client, image.index, DEMAND), Trusted)


async def test_a_large_bill_of_materials_is_read_and_checked(
    client: RegistryClient, registry: RegistryServer, own_name: str
) -> None:
    pushed = await push_image(client, Reference(registry.host, f"attested/{own_name}"))
    await sign_image(client, pushed.index, [KEY], formats={Format.LEGACY})
    components = [{"name": f"library-{number}", "version": "1.0.0"} for number in range(60_000)]
    predicate = canonical_json({"builder": {"id": "https://ci.plant-a.local"}, "components": components})
    assert len(predicate) > 2 * 1024 * 1024
    await attest(client, pushed, Attestation(SLSA, predicate), formats=[Format.BUNDLE])
    assert isinstance(await verify_image(client, pushed.index, DEMAND), Trusted)


@pytest.mark.parametrize("part", [".att", "/referrers/", "/blobs/"])
async def test_case_23_an_attestation_that_cannot_be_read_is_an_error_and_not_missing(
    faulty_client: RegistryClient,
    faulty: FaultyRegistry,
    client: RegistryClient,
    registry: RegistryServer,
    own_name: str,
    part: str,
) -> None:
    pushed = await push_image(client, Reference(registry.host, f"attested/{own_name}"))
    await sign_image(client, pushed.index, [KEY], formats={Format.LEGACY})
    payload_blob = await client.get_manifest(
        pushed.index.with_tag(attestation_tag(pushed.digest).replace(".att", ".sig"))
    )
    signature = json.loads(payload_blob.body)["layers"][0]["digest"]
    await attest(client, pushed, formats=[Format.LEGACY])
    through = Reference(faulty.host, pushed.index.repository, digest=pushed.digest)

    async def fail(asked: Any) -> Any:
        if part in asked.path_qs and signature not in asked.path_qs:
            return await fail_times(1, 500)(asked)
        return None

    faulty.faults.append(fail)
    demand = replace(DEMAND, any_repository=True)
    if part == "/referrers/":
        # What is there in the one format need not be read in the other.
        assert isinstance(await verify_image(faulty_client, through, demand), Trusted)
        demand = replace(demand, attestations=(WantedAttestation("tested", TESTS),))
    with pytest.raises(RegistryError):
        await verify_image(faulty_client, through, demand)


async def test_identities_without_a_key_sign_and_attest(
    registry_client: RegistryClient, host: str, own_name: str
) -> None:
    site = Site()
    pushed = await push_image(registry_client, Reference(host, f"attested/{own_name}"))
    identity = load_identity(site.trusted_root(), issuer=ISSUER, subject=SUBJECT)
    demand = Demand((Authority("ci", (), (identity,)),), attestations=(ORIGIN,))
    assert reason_of(await verify_image(registry_client, pushed.index, demand)) is Reason.UNSIGNED

    statement = bundle.make_statement(pushed.index.name, pushed.digest)
    signed = canonical_json(site.bundle(statement))
    await store_bundle(registry_client, pushed, signed, bundle.SIGN_PREDICATE_TYPE)
    lacking = await verify_image(registry_client, pushed.index, demand)
    assert reason_of(lacking) is Reason.ATTESTATION_MISSING

    document = json.loads(statement)
    attested = canonical_json(
        document | {"predicateType": SLSA, "predicate": json.loads(PROVENANCE.predicate)}
    )
    await store_bundle(registry_client, pushed, canonical_json(site.bundle(attested)), SLSA)
    verdict = await verify_image(registry_client, pushed.index, demand)
    assert isinstance(verdict, Trusted)
    assert verdict.by == ("ci",)
    assert verdict.evidence[0].signatures[0].key.startswith("identity:")
    # Another site's certificates, however well they are made, are by nobody known.
    stranger = load_identity(Site().trusted_root(), issuer=ISSUER, subject=SUBJECT)
    other = await verify_image(registry_client, pushed.index, Demand((Authority("ci", (), (stranger,)),)))
    assert reason_of(other) is Reason.UNKNOWN_KEY
