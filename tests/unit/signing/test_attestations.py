"""Which signed statements are the attestations that are asked for."""

from __future__ import annotations

import json
from asyncio import run
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.attestations import (
    SignedStatement,
    judge_statement,
    match_attestation,
    missing_attestation,
)
from edgemodel_operator.signing.demand import Authority, WantedAttestation
from edgemodel_operator.signing.judge import Candidate
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.verdict import Attested, Format, Reason, Rejected

DIGEST, OTHER_DIGEST = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
SOURCE = "sha256:" + "ef" * 32
SLSA, SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
KEY, QA_KEY, STRANGER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(3))
AUTHORITIES = (Authority("plant", (KEY.public_key,)), Authority("qa", (QA_KEY.public_key,)))
WANTED = WantedAttestation("origin", SLSA)


def statement(**changes: Any) -> bytes:
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "models/a", "digest": {"sha256": DIGEST.removeprefix("sha256:")}}],
        "predicateType": SLSA,
        "predicate": {"builder": "plant"},
    }
    return json.dumps(document | changes).encode()


async def signed(
    payload: bytes, key: LocalKey = KEY, payload_type: str = bundle.STATEMENT_MEDIA_TYPE
) -> Candidate:
    message = bundle.pre_authentication_encoding(payload_type, payload)
    return Candidate(Format.BUNDLE, SOURCE, await key.sign(message), message, payload, payload_type)


def reason_of(judged: object) -> Reason:
    assert isinstance(judged, Rejected)
    return judged.reason


async def answer(payload: bytes, wanted: WantedAttestation = WANTED, key: LocalKey = KEY) -> object:
    judged = judge_statement(await signed(payload, key), DIGEST, AUTHORITIES)
    return match_attestation(judged, wanted) if isinstance(judged, SignedStatement) else judged


async def test_a_statement_about_the_digest_by_somebody_known_is_an_attestation() -> None:
    for kind in ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"):
        want = Attested("origin", SLSA, SOURCE, ("plant",), KEY.public_key.fingerprint)
        assert await answer(statement(_type=kind)) == want


async def test_case_06_the_signed_type_decides_and_nothing_else_is_asked() -> None:
    assert reason_of(await answer(statement(predicateType=SPDX))) is Reason.ATTESTATION_MISSING
    assert reason_of(await answer(statement(predicateType=SLSA.upper()))) is Reason.ATTESTATION_MISSING
    assert reason_of(await answer(statement(predicateType=f"{SLSA} "))) is Reason.ATTESTATION_MISSING
    assert reason_of(await answer(statement(predicateType=[SLSA]))) is Reason.MALFORMED


async def test_case_06_a_signature_is_no_attestation_of_another_type() -> None:
    signature = bundle.make_statement("registry.example.com/models/a", DIGEST)
    assert reason_of(await answer(signature)) is Reason.ATTESTATION_MISSING


async def test_only_those_who_may_say_it_count() -> None:
    wanted = WantedAttestation("tested", SLSA, frozenset({"qa"}))
    assert reason_of(await answer(statement(), wanted)) is Reason.UNKNOWN_KEY
    got = await answer(statement(), wanted, QA_KEY)
    assert isinstance(got, Attested)
    assert got.authorities == ("qa",)
    assert reason_of(await answer(statement(), key=STRANGER)) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"[]",
        statement(subject=None),
        statement(subject=[]),
        statement(subject=[None]),
        statement(subject=[{"digest": {"sha256": "ab" * 32}}, None]),
        statement(subject=[{"digest": None}]),
        statement(subject=[{"name": "x"}]),
        statement(subject={"digest": {"sha256": "ab" * 32}}),
        statement(_type="https://in-toto.io/Statement/v2"),
        statement(_type=None),
        statement(predicateType=None),
        statement()[:-1] + b',"predicateType":"https://spdx.dev/Document"}',
        statement()[:-1] + b',"PredicateType":"https://spdx.dev/Document"}',
        statement()[:-1] + b',"Subject":[]}',
    ],
)
async def test_case_07_signed_nonsense_attests_nothing(payload: bytes) -> None:
    assert reason_of(await answer(payload)) is Reason.MALFORMED


async def test_case_07_another_payload_type_attests_nothing() -> None:
    for kind in ("application/json", "", "application/vnd.in-toto+JSON"):
        judged = judge_statement(await signed(statement(), payload_type=kind), DIGEST, AUTHORITIES)
        assert reason_of(judged) is Reason.MALFORMED
    # Nor does a changed type keep the signature: it is part of what is signed.
    good = await signed(statement())
    message = bundle.pre_authentication_encoding("application/json", good.payload)
    changed = Candidate(
        Format.BUNDLE, SOURCE, good.signature, message, good.payload, bundle.STATEMENT_MEDIA_TYPE
    )
    assert reason_of(judge_statement(changed, DIGEST, AUTHORITIES)) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize(
    ("digests", "want"),
    [
        ([{"sha512": "ab" * 64}], Reason.OTHER_DIGEST),
        ([{"sha256": OTHER_DIGEST.removeprefix("sha256:")}], Reason.OTHER_DIGEST),
        ([{"sha256": "AB" * 32}], Reason.MALFORMED),
        ([{"SHA256": "ab" * 32}], Reason.MALFORMED),
        ([{"sha256": "ab" * 31}], Reason.MALFORMED),
        ([{"sha256": ""}], Reason.MALFORMED),
        ([{"sha512": "ab" * 32}, {"gitCommit": "ab" * 32}], Reason.OTHER_DIGEST),
    ],
)
async def test_case_08_only_the_sha256_of_a_subject_counts(digests: list[object], want: Reason) -> None:
    judged = await answer(statement(subject=[{"digest": digest} for digest in digests]))
    assert reason_of(judged) is want


async def test_case_08_an_attestation_may_speak_of_several_things() -> None:
    subjects = [{"digest": {"sha256": one.removeprefix("sha256:")}} for one in (OTHER_DIGEST, DIGEST)]
    assert isinstance(await answer(statement(subject=subjects)), Attested)


# Whatever somebody known signs: it is understood, by us and by a lax reader, or it does not count.

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=8)
    | st.sampled_from([SLSA, SPDX, "ab" * 32]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
DIGESTS = st.dictionaries(
    st.sampled_from(["sha256", "sha512", "SHA256"]), st.sampled_from(["ab" * 32, "cd" * 32, "AB" * 32, "", 7])
)
OURS = {"digest": {"sha256": "ab" * 32}}
SUBJECTS = (
    st.just([OURS])
    | st.lists(st.just(OURS) | st.fixed_dictionaries({"digest": DIGESTS}), max_size=3)
    | st.lists(st.just(OURS) | JSON, max_size=3)
)
DOCUMENTS = st.fixed_dictionaries(
    {
        "_type": st.sampled_from(["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"])
        | JSON,
        "subject": SUBJECTS,
        "predicateType": st.sampled_from([SLSA, SPDX]) | JSON,
    },
    optional={"predicate": JSON, "Subject": JSON, "predicatetype": JSON, "more": JSON},
)


@settings(max_examples=150, deadline=None)
@given(DOCUMENTS, st.integers(0, 400), st.binary(max_size=3))
def test_no_junk_that_somebody_known_signed_becomes_an_attestation(
    document: dict[str, Any], place: int, noise: bytes
) -> None:
    good = json.dumps(document).encode()
    for payload in (good, good[:place] + noise + good[place:]):
        judged = judge_statement(run(signed(payload)), DIGEST, AUTHORITIES)
        if isinstance(judged, Rejected):
            continue
        read = json.loads(payload)
        assert judged.predicate_type == read["predicateType"]
        assert any(one["digest"].get("sha256") == "ab" * 32 for one in read["subject"])
        folded = [name.casefold() for name in read]
        assert len(set(folded)) == len(folded) or not {"subject", "predicatetype", "_type"} & {
            name for name in folded if folded.count(name) > 1
        }


def test_the_reason_that_tells_most_is_reported() -> None:
    unknown = Rejected(Reason.UNKNOWN_KEY, "by a stranger", step=11)
    failed = Rejected(Reason.ATTESTATION_CHECK_FAILED, "not built here", step=11)
    nothing = missing_attestation(WANTED, [])
    assert nothing.reason is Reason.ATTESTATION_MISSING
    assert SLSA in nothing.message
    assert missing_attestation(WANTED, [unknown]).message.endswith("is missing: by a stranger")
    best = missing_attestation(WANTED, [unknown, failed, unknown])
    assert best.reason is Reason.ATTESTATION_CHECK_FAILED
    assert best.message.endswith("does not pass: not built here")
