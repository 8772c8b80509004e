"""What may be signed: our own documents about an image, byte for byte, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.signer.messages import (
    PREDICATE_KINDS,
    Claim,
    Kind,
    RefusalReason,
    Refused,
    read_message,
)
from edgemodel_operator.signing.bundle import (
    REPOSITORY_ANNOTATION,
    SIGN_PREDICATE_TYPE,
    STATEMENT_MEDIA_TYPE,
    make_statement,
    pre_authentication_encoding,
)
from edgemodel_operator.signing.simple_signing import make_payload

REPOSITORY = "registry.plant-a.local:5000/models/line"
HEX = "ab" * 32
DIGEST = f"sha256:{HEX}"
EVERY = ("**",)
SLSA = "https://slsa.dev/provenance/v1"


def encoded(payload: bytes, media_type: str = STATEMENT_MEDIA_TYPE) -> bytes:
    return pre_authentication_encoding(media_type, payload)


def statement(**changes: Any) -> dict[str, Any]:
    """Give a statement about how an image was built, with some members changed (None: left out)."""
    document = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": REPOSITORY,
                "digest": {"sha256": HEX},
                "annotations": {REPOSITORY_ANNOTATION: REPOSITORY},
            }
        ],
        "predicateType": SLSA,
        "predicate": {"buildDefinition": {"buildType": "https://example.com/build"}},
    } | changes
    return {name: value for name, value in document.items() if value is not None}


def subject(**changes: Any) -> list[dict[str, Any]]:
    changed = statement()["subject"][0] | changes
    return [{name: value for name, value in changed.items() if value is not None}]


def refusal(message: bytes, *repositories: str) -> Refused:
    with pytest.raises(Refused) as refused:
        read_message(message, repositories or EVERY)
    return refused.value


def test_both_ways_to_say_that_an_image_is_signed_are_signed() -> None:
    assert read_message(make_payload(REPOSITORY, DIGEST), EVERY) == Claim(
        Kind.SIMPLE_SIGNING, REPOSITORY, DIGEST
    )
    assert read_message(encoded(make_statement(REPOSITORY, DIGEST)), EVERY) == Claim(
        Kind.SIGNATURE, REPOSITORY, DIGEST, SIGN_PREDICATE_TYPE
    )


@pytest.mark.parametrize("predicate_type", PREDICATE_KINDS.keys() - {SIGN_PREDICATE_TYPE})
@pytest.mark.parametrize("version", ["v1", "v0.1"])
@pytest.mark.parametrize("named", [REPOSITORY, None])
def test_statements_about_an_image_are_signed(predicate_type: str, version: str, named: str | None) -> None:
    document = statement(
        predicateType=predicate_type,
        _type=f"https://in-toto.io/Statement/{version}",
        subject=subject(name=named),
    )
    claim = read_message(encoded(canonical_json(document)), EVERY)
    assert claim == Claim(PREDICATE_KINDS[predicate_type], REPOSITORY, DIGEST, predicate_type)


PAYLOAD = json.loads(make_payload(REPOSITORY, DIGEST))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"hello",
        b"\x30\x82\x01\x0a",
        b"{}",
        json.dumps(PAYLOAD).encode(),
        make_payload(REPOSITORY, DIGEST) + b"\n",
        canonical_json(PAYLOAD | {"optional": {"approved": "yes"}}),
        canonical_json(PAYLOAD | {"more": 1}),
        make_payload(REPOSITORY, DIGEST.upper()),
        make_payload(f"{REPOSITORY}:1", DIGEST),
        make_payload(f"{REPOSITORY}@{DIGEST}", DIGEST),
        make_payload("Registry.plant-a.local/x", DIGEST),
        make_payload("models", DIGEST),
    ],
)
def test_a_payload_that_we_would_not_write_is_refused(message: bytes) -> None:
    assert refusal(message).reason is RefusalReason.NOT_A_DOCUMENT


GOOD = canonical_json(statement())


@pytest.mark.parametrize(
    "message",
    [
        b"DSSEv1 ",
        b"DSSEv1 28 application/vnd.in-toto+json 2 {}",
        encoded(GOOD)[:-1],
        encoded(GOOD) + b" ",
        encoded(GOOD).replace(b"DSSEv1 28", b"DSSEv1 028"),
        encoded(GOOD, "application/json"),
        encoded(json.dumps(statement()).encode()),
        encoded(canonical_json(statement(_type="https://in-toto.io/Statement/v2"))),
        encoded(canonical_json(statement(subject=[]))),
        encoded(canonical_json(statement(subject=subject() * 2))),
        encoded(canonical_json(statement(subject=subject(annotations=None)))),
        encoded(
            canonical_json(statement(subject=subject(annotations={REPOSITORY_ANNOTATION: "x", "y": "z"})))
        ),
        encoded(canonical_json(statement(subject=subject(digest={"sha512": "ab" * 64})))),
        encoded(canonical_json(statement(subject=subject(digest={"sha256": HEX, "sha1": "ab"})))),
        encoded(canonical_json(statement(subject=subject(digest={"sha256": HEX.upper()})))),
        encoded(canonical_json(statement(subject=subject(name="registry.plant-b.local/other")))),
        encoded(canonical_json(statement(subject=subject(uri="x")))),
        encoded(canonical_json(statement(subject=[1]))),
        encoded(canonical_json(statement(predicate=None))),
        encoded(canonical_json(statement(predicate=[]))),
        encoded(canonical_json(statement(more=1))),
        encoded(canonical_json(statement(predicateType=SIGN_PREDICATE_TYPE))),
        encoded(GOOD.replace(b'"predicate":', b'"predicate":{},"predicate":', 1)),
    ],
)
def test_a_statement_that_we_would_not_write_is_refused(message: bytes) -> None:
    assert refusal(message).reason is RefusalReason.NOT_A_DOCUMENT


@pytest.mark.parametrize("kind", ["https://example.com/approval/v1", "https://slsa.dev/provenance/v0.2", ""])
def test_other_types_of_statements_are_refused_by_name(kind: str) -> None:
    refused = refusal(encoded(canonical_json(statement(predicateType=kind))))
    assert refused.reason is RefusalReason.PREDICATE_TYPE
    assert repr(kind) in str(refused)
    assert SLSA in str(refused)


def test_only_repositories_that_are_named_are_signed_for() -> None:
    named = ("registry.plant-a.local:5000/models/**", "registry.plant-b.local/*")
    for message in (make_payload(REPOSITORY, DIGEST), encoded(GOOD)):
        assert read_message(message, named).repository == REPOSITORY
        refused = refusal(message, "registry.plant-b.local/**", "registry.plant-a.local:5000/*")
        assert refused.reason is RefusalReason.REPOSITORY
        assert "signing.repositories" in str(refused)
        assert refused.claim is not None
        assert refused.claim.digest == DIGEST


def test_nothing_is_signed_when_no_repository_is_named() -> None:
    with pytest.raises(Refused):
        read_message(make_payload(REPOSITORY, DIGEST), ())


@given(st.binary(max_size=200))
@example(b"DSSEv1 28 application/vnd.in-toto+json 2 []")
@example(b"DSSEv1 28 application/vnd.in-toto+json 4 \xff\xff\xff\xff")
def test_random_bytes_are_refused_with_a_sentence(message: bytes) -> None:
    assert str(refusal(message))


@given(
    st.sampled_from(
        [make_payload(REPOSITORY, DIGEST), encoded(make_statement(REPOSITORY, DIGEST)), encoded(GOOD)]
    ),
    st.data(),
)
def test_a_signed_message_is_always_one_that_our_own_code_writes(message: bytes, data: st.DataObject) -> None:
    """Whatever is changed in a good message: either it is refused, or it is again of our own writing."""
    start = data.draw(st.integers(0, len(message)))
    end = data.draw(st.integers(start, min(len(message), start + 8)))
    changed = message[:start] + data.draw(st.binary(max_size=8)) + message[end:]
    try:
        claim = read_message(changed, EVERY)
    except Refused:
        return
    if claim.kind is Kind.SIMPLE_SIGNING:
        assert changed == make_payload(claim.repository, claim.digest)
    elif claim.kind is Kind.SIGNATURE:
        assert changed == encoded(make_statement(claim.repository, claim.digest))
    else:
        payload = changed.split(b" ", 4)[-1]
        assert changed == encoded(canonical_json(json.loads(payload)))
        assert claim.digest.removeprefix("sha256:") in changed.decode()
