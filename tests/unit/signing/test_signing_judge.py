import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.judge import Candidate, Wanted, judge_digest, judge_signature
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.verdict import Format, Reason, Rejected, Vouching

REPOSITORY = "registry.example.com/models/a"
DIGEST = "sha256:" + "ab" * 32
OTHER_DIGEST = "sha256:" + "cd" * 32
SOURCE = "sha256:" + "ef" * 32
WANTED = Wanted(REPOSITORY, DIGEST)

KEY = LocalKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = LocalKey(ec.generate_private_key(ec.SECP256R1()))
AUTHORITIES = (Authority("plant", (KEY.public_key,)),)
DEMAND = Demand(AUTHORITIES)


async def legacy(payload: bytes, key: LocalKey = KEY) -> Candidate:
    return Candidate(Format.LEGACY, SOURCE, await key.sign(payload), payload, payload)


async def bundled(
    statement: bytes, key: LocalKey = KEY, payload_type: str = bundle.STATEMENT_MEDIA_TYPE
) -> Candidate:
    message = bundle.pre_authentication_encoding(payload_type, statement)
    return Candidate(Format.BUNDLE, SOURCE, await key.sign(message), message, statement, payload_type)


def statement_about(*digests: str, predicate_type: str = bundle.SIGN_PREDICATE_TYPE) -> bytes:
    document = json.loads(bundle.make_statement(REPOSITORY, DIGEST))
    subjects = [{"digest": {"sha256": digest.removeprefix("sha256:")}} for digest in digests]
    return json.dumps(document | {"subject": subjects, "predicateType": predicate_type}).encode()


def reason_of(judged: Vouching | Rejected) -> Reason:
    assert isinstance(judged, Rejected)
    return judged.reason


async def test_a_signature_for_this_digest_and_repository_counts_in_both_formats() -> None:
    for candidate in (
        await legacy(simple_signing.make_payload(REPOSITORY, DIGEST)),
        await bundled(bundle.make_statement(REPOSITORY, DIGEST)),
    ):
        want = Vouching(candidate.format, SOURCE, ("plant",), KEY.public_key.fingerprint, True)
        assert judge_signature(candidate, WANTED, AUTHORITIES) == want


async def test_case_01_the_wrong_key_and_garbage_do_not_count() -> None:
    payload = simple_signing.make_payload(REPOSITORY, DIGEST)
    garbage = Candidate(Format.LEGACY, SOURCE, b"garbage", payload, payload)
    for candidate in (await legacy(payload, STRANGER), garbage):
        assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.UNKNOWN_KEY


async def test_case_02_the_payload_of_another_image_does_not_count() -> None:
    for candidate in (
        await legacy(simple_signing.make_payload(REPOSITORY, OTHER_DIGEST)),
        await bundled(bundle.make_statement(REPOSITORY, OTHER_DIGEST)),
    ):
        judged = judge_signature(candidate, WANTED, AUTHORITIES)
        assert reason_of(judged) is Reason.OTHER_DIGEST


async def test_case_02_a_payload_swapped_under_a_signature_does_not_count() -> None:
    signed = await legacy(simple_signing.make_payload(REPOSITORY, OTHER_DIGEST))
    swapped = simple_signing.make_payload(REPOSITORY, DIGEST)
    candidate = Candidate(Format.LEGACY, SOURCE, signed.signature, swapped, swapped)
    assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.UNKNOWN_KEY


async def test_case_03_a_foreign_critical_type_does_not_count() -> None:
    payload = simple_signing.make_payload(REPOSITORY, DIGEST).replace(
        b"cosign container", b"atomic container"
    )
    assert reason_of(judge_signature(await legacy(payload), WANTED, AUTHORITIES)) is Reason.MALFORMED


async def test_case_04_a_signature_for_another_repository_counts_only_when_asked() -> None:
    other = "registry.example.com/models/other"
    for candidate in (
        await legacy(simple_signing.make_payload(other, DIGEST)),
        await bundled(bundle.make_statement(other, DIGEST)),
    ):
        judged = judge_signature(candidate, WANTED, AUTHORITIES)
        assert reason_of(judged) is Reason.OTHER_REPOSITORY
        assert isinstance(judged, Rejected)
        assert other in judged.message
        assert REPOSITORY in judged.message
        anywhere = judge_signature(candidate, Wanted(REPOSITORY, DIGEST, any_repository=True), AUTHORITIES)
        assert isinstance(anywhere, Vouching)
        assert not anywhere.binds_repository


async def test_case_04_a_bundle_that_names_no_repository_counts_only_when_asked() -> None:
    candidate = await bundled(statement_about(DIGEST))
    judged = judge_signature(candidate, WANTED, AUTHORITIES)
    assert reason_of(judged) is Reason.OTHER_REPOSITORY
    assert isinstance(judged, Rejected)
    assert f"-a dev.edgemodel.repository={REPOSITORY}" in judged.message
    anywhere = judge_signature(candidate, Wanted(REPOSITORY, DIGEST, any_repository=True), AUTHORITIES)
    assert isinstance(anywhere, Vouching)
    assert not anywhere.binds_repository


async def test_case_05_an_attestation_by_the_right_key_is_no_signature() -> None:
    for predicate_type in ("https://slsa.dev/provenance/v1", "https://spdx.dev/Document", ""):
        candidate = await bundled(statement_about(DIGEST, predicate_type=predicate_type))
        assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.ONLY_ATTESTATION


async def test_case_07_signed_nonsense_does_not_count() -> None:
    for candidate in (
        await bundled(b"not json"),
        await bundled(statement_about()),
        await bundled(json.dumps({"_type": "https://in-toto.io/Statement/v1", "subject": None}).encode()),
        await bundled(statement_about(DIGEST), payload_type="application/json"),
        await legacy(b"not json"),
    ):
        assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.MALFORMED


async def test_case_08_two_subjects_do_not_count_even_if_one_is_right() -> None:
    for digests in ((OTHER_DIGEST, DIGEST), (DIGEST, OTHER_DIGEST), (DIGEST, DIGEST)):
        candidate = await bundled(statement_about(*digests))
        assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.MALFORMED


async def test_case_08_a_subject_without_sha256_does_not_count() -> None:
    document = json.loads(statement_about(DIGEST))
    document["subject"] = [{"digest": {"sha512": "ab" * 64}}]
    candidate = await bundled(json.dumps(document).encode())
    assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.OTHER_DIGEST


async def test_a_legacy_payload_is_no_statement_and_a_statement_no_payload() -> None:
    payload, statement = (
        simple_signing.make_payload(REPOSITORY, DIGEST),
        bundle.make_statement(REPOSITORY, DIGEST),
    )
    for candidate in (await bundled(payload), await legacy(statement)):
        assert reason_of(judge_signature(candidate, WANTED, AUTHORITIES)) is Reason.MALFORMED
    # Nor does a signature of one format verify over the bytes of the other.
    crossed = Candidate(Format.LEGACY, SOURCE, (await bundled(statement)).signature, statement, statement)
    assert reason_of(judge_signature(crossed, WANTED, AUTHORITIES)) is Reason.UNKNOWN_KEY


async def test_every_authority_that_has_the_key_vouches() -> None:
    candidate = await legacy(simple_signing.make_payload(REPOSITORY, DIGEST))
    both = Authority("both", (STRANGER.public_key, KEY.public_key))
    judged = judge_signature(candidate, WANTED, (*AUTHORITIES, both, Authority("nobody", ())))
    assert isinstance(judged, Vouching)
    assert judged.authorities == ("plant", "both")


async def test_case_10_one_good_signature_suffices_and_junk_is_counted() -> None:
    good = judge_signature(await legacy(simple_signing.make_payload(REPOSITORY, DIGEST)), WANTED, AUTHORITIES)
    junk = Rejected(Reason.UNKNOWN_KEY, "junk")
    for found in ([good, junk], [junk, good], [junk, good, junk]):
        evidence, rejected = judge_digest(found, 3, DIGEST, DEMAND)
        assert rejected is None
        assert evidence.by == ("plant",)
        assert evidence.ignored == 3 + len(found) - 1


@pytest.mark.parametrize(
    ("reasons", "want"),
    [
        ([Reason.UNKNOWN_KEY, Reason.OTHER_REPOSITORY], Reason.OTHER_REPOSITORY),
        ([Reason.OTHER_REPOSITORY, Reason.OTHER_DIGEST], Reason.OTHER_DIGEST),
        ([Reason.UNKNOWN_KEY, Reason.ONLY_ATTESTATION], Reason.ONLY_ATTESTATION),
        ([Reason.UNKNOWN_KEY], Reason.UNKNOWN_KEY),
        ([], Reason.UNSIGNED),
    ],
)
def test_the_reason_that_tells_most_is_reported(reasons: list[Reason], want: Reason) -> None:
    evidence, rejected = judge_digest([Rejected(reason, "sentence") for reason in reasons], 0, DIGEST, DEMAND)
    assert rejected is not None
    assert rejected.reason is want
    assert evidence.by == ()


def test_unusable_objects_alone_leave_an_image_unsigned() -> None:
    _, rejected = judge_digest([], 2, DIGEST, DEMAND)
    assert rejected is not None
    assert rejected.reason is Reason.UNSIGNED
    assert "2 objects" in rejected.message
