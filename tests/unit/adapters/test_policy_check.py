"""What is refused of a TrustPolicy when it is applied: whatever could never work."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgemodel_operator.adapters.policy_check import check_policy
from edgemodel_operator.api.trustpolicy import TrustPolicySpec


def pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


PLANT, QA = (pem(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
SMALL = pem(rsa.generate_private_key(65537, 2048))
ROOT = {"name": "sigstore"}


def sentences(*authorities: dict[str, Any], **spec: Any) -> tuple[str, ...]:
    fields = {"images": ["registry.plant-a.local:5000/**"], "authorities": list(authorities)} | spec
    return check_policy(TrustPolicySpec.model_validate(fields))


def known_by(*keys: str, name: str = "plant", **fields: Any) -> dict[str, Any]:
    return {"name": name, "keys": [{"data": key} for key in keys]} | fields


def attesting(expression: str) -> list[dict[str, Any]]:
    checks = [{"expression": expression, "message": "it was not built here"}]
    return [{"name": "origin", "predicateType": "https://slsa.dev/provenance/v1", "checks": checks}]


def test_a_policy_that_can_work_is_let_through() -> None:
    assert sentences(known_by(PLANT)) == ()
    everything = sentences(
        known_by(PLANT, QA, required=True),
        {"name": "stored", "keys": [{"secretRef": {"name": "key"}}]},
        {"name": "ci", "keyless": {"issuer": "https://ci.plant-a.local", "subjectRegExp": "build-[0-9]+@.*",
                                   "trustedRoot": ROOT}},
        threshold=3,
        attestations=attesting("predicate.builder.startsWith('plant')"),
    )  # fmt: skip
    assert everything == ()


@pytest.mark.parametrize(
    ("key", "want"),
    [
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "holds no usable key"),
        (PLANT + QA, "not exactly one PEM block"),
        (SMALL, "2048 bits"),
    ],
)
def test_case_40_a_key_that_cannot_be_used_is_refused(key: str, want: str) -> None:
    (sentence,) = sentences(known_by(PLANT, key))
    assert want in sentence
    assert 'authority "plant": keys[1]' in sentence


@pytest.mark.parametrize("pattern", ["(", "a)|(b", "(?=x)", r"(a)\1"])
def test_case_40_a_bad_regular_expression_is_refused(pattern: str) -> None:
    for field, other in (("subjectRegExp", "issuer"), ("issuerRegExp", "subject")):
        keyless = {field: pattern, other: "https://ci.plant-a.local", "trustedRoot": ROOT}
        (sentence,) = sentences({"name": "ci", "keyless": keyless})
        assert 'authority "ci"' in sentence
        assert "regular expression" in sentence


@pytest.mark.parametrize("expression", ["predicate.a ==", "predicat.a == 1", "open('/etc/passwd') == ''"])
def test_case_40_a_bad_expression_is_refused(expression: str) -> None:
    (sentence,) = sentences(known_by(PLANT), attestations=attesting(expression))
    assert 'attestation "origin": checks[0]' in sentence
    assert expression in sentence


def test_case_41_a_threshold_that_the_keys_cannot_reach_is_refused() -> None:
    (sentence,) = sentences(known_by(PLANT), known_by(PLANT, name="again"), threshold=2)
    assert "no more than 1" in sentence
    assert sentences(known_by(PLANT), known_by(PLANT, QA, name="again"), threshold=2) == ()
    (required,) = sentences(
        known_by(PLANT, required=True), known_by(PLANT, name="again", required=True), known_by(QA, name="qa")
    )
    assert "is required" in required
