"""What a verdict means for a policy, above all when a key could not be read."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.adapters.authorities import PolicyDemand, Problem
from edgemodel_operator.adapters.policy_verifier import KeyUnavailable, conclude
from edgemodel_operator.core.trust import Policy, parse_policy
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.verdict import (
    Evidence,
    Format,
    Reason,
    Trusted,
    Untrusted,
    Vouching,
)

DIGEST = f"sha256:{'a' * 64}"
IMAGE = parse_reference(f"registry.plant-a.local:5000/models/line@{DIGEST}")
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
QA_AWAY = Problem('a key of authority "qa" cannot be used: the API is away', unknown=True, authority="qa")


def policy(**spec: Any) -> Policy:
    authorities = [{"name": name, "keys": [{"data": PEM}]} for name in ("plant", "qa", "lab")]
    fields = {"images": ["**"], "authorities": authorities}
    parsed = parse_policy({"metadata": {"name": "models"}, "spec": fields | spec})
    assert isinstance(parsed, Policy)
    return parsed


def asked(*problems: Problem, threshold: int = 1, required: frozenset[str] = frozenset()) -> PolicyDemand:
    authorities = tuple(Authority(name) for name in ("plant", "qa", "lab"))
    return PolicyDemand(Demand(authorities, threshold, required), problems)


def signed_by(*names: str) -> Evidence:
    signatures = tuple(Vouching(Format.LEGACY, DIGEST, (name,), f"key of {name}", True) for name in names)
    return Evidence(DIGEST, names, signatures=signatures)


def untrusted(reason: Reason, *evidence: Evidence) -> Untrusted:
    return Untrusted(reason, f"{IMAGE} is not trusted: it is not signed.", evidence)


def test_a_trusted_image_is_trusted_whatever_else_could_not_be_read() -> None:
    verdict = conclude(IMAGE, policy(), asked(QA_AWAY), Trusted(("plant",), (signed_by("plant"),)))
    assert verdict.trusted
    assert verdict.by == ("plant=key of plant",)


def test_an_untrusted_image_lacks_something_that_is_said_without_naming_it_twice() -> None:
    verdict = conclude(IMAGE, policy(), asked(), untrusted(Reason.UNSIGNED, signed_by()))
    assert not verdict.trusted
    assert verdict.reason == "Unsigned"
    assert verdict.missing == "it is not signed (accepted: a signature by plant, qa, lab)"


@pytest.mark.parametrize(
    ("demand", "verdict", "could_change"),
    [
        (asked(QA_AWAY), untrusted(Reason.UNSIGNED, signed_by()), True),
        (asked(QA_AWAY), untrusted(Reason.NO_AUTHORITY), True),
        (asked(QA_AWAY), untrusted(Reason.AMBIGUOUS_MANIFEST), False),
        (asked(QA_AWAY), untrusted(Reason.NO_DIGEST), False),
        (asked(QA_AWAY, threshold=2), untrusted(Reason.UNSIGNED, signed_by()), False),
        (asked(QA_AWAY, threshold=2), untrusted(Reason.TOO_FEW_AUTHORITIES, signed_by("plant")), True),
        (asked(QA_AWAY, threshold=3), untrusted(Reason.TOO_FEW_AUTHORITIES, signed_by("plant")), False),
        (
            asked(QA_AWAY, required=frozenset({"lab"})),
            untrusted(Reason.REQUIRED_AUTHORITY_MISSING, signed_by("plant")),
            False,
        ),
        (
            asked(QA_AWAY, required=frozenset({"qa"})),
            untrusted(Reason.REQUIRED_AUTHORITY_MISSING, signed_by("plant")),
            True,
        ),
        (asked(QA_AWAY), untrusted(Reason.ATTESTATION_MISSING, signed_by("plant")), True),
    ],
)
def test_case_23_a_key_that_could_not_be_read_leaves_no_verdict_if_it_could_change_it(
    demand: PolicyDemand,
    verdict: Untrusted,
    could_change: bool,
) -> None:
    if could_change:
        with pytest.raises(KeyUnavailable, match="the API is away"):
            conclude(IMAGE, policy(), demand, verdict)
    else:
        assert not conclude(IMAGE, policy(), demand, verdict).trusted
