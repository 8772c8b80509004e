"""The rule of trust: every policy that matches must hold, and silence is no trust."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.trust import (
    BrokenPolicy,
    Policy,
    PolicyVerdict,
    judge,
    matching_policies,
    parse_policy,
    strictest_mode,
)

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
IMAGE = "registry.plant-a.local:5000/models/line"
PINNED = f"{IMAGE}@sha256:{'a' * 64}"


def raw_policy(name: str, *images: str, **spec: Any) -> dict[str, Any]:
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    return {"metadata": {"name": name}, "spec": {"images": list(images), "authorities": authorities} | spec}


def names(*raw: dict[str, Any], image: str = IMAGE, namespace: str = "plant-a") -> list[str]:
    return [policy.name for policy in matching_policies(map(parse_policy, raw), image, namespace)]


@pytest.mark.parametrize(
    ("glob", "want_match"),
    [
        ("registry.plant-a.local:5000/models/*", True),
        ("registry.plant-a.local:5000/*", False),
        ("registry.plant-a.local:5000/**", True),
        ("**", True),
        ("registry.plant-a.local:5000/models/line", True),
        ("registry.plant-a.local:5000/models/lin", False),
        ("registryXplant-a.local:5000/models/*", False),
        ("registry.plant-a.local:5000/models/[a-z]*", False),
    ],
)
def test_a_policy_speaks_about_the_images_that_its_globs_cover(glob: str, want_match: bool) -> None:
    assert names(raw_policy("p", glob)) == (["p"] if want_match else [])


@pytest.mark.parametrize(
    ("namespaces", "want_match"),
    [([], True), (["plant-a"], True), (["plant-*"], True), (["plant-b"], False), (["plant"], False)],
)
def test_namespaces_limit_a_policy(namespaces: list[str], want_match: bool) -> None:
    assert names(raw_policy("p", "**", namespaces=namespaces)) == (["p"] if want_match else [])


def test_the_policies_come_in_the_order_of_their_names() -> None:
    assert names(raw_policy("b", "**"), raw_policy("a", "**"), raw_policy("c", "x/*")) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "want_problem"),
    [
        ({"quorum": 2}, "spec.quorum"),
        ({"mode": "Shadow"}, "spec.mode"),
        ({"authorities": []}, "spec.authorities"),
        ({"authorities": [{"name": "x", "keys": [{}]}]}, "spec.authorities.0.keys.0"),
        ({"accept_copies": True}, "spec.accept_copies: there is no such field here"),
    ],
)
def test_a_policy_that_is_not_understood_still_claims_its_images(
    change: dict[str, Any], want_problem: str
) -> None:
    policy = parse_policy(raw_policy("new", "registry.plant-a.local:5000/**", **change))
    assert isinstance(policy, BrokenPolicy)
    assert policy.problem.startswith(want_problem)
    assert matching_policies([policy], IMAGE, "plant-a") == (policy,)
    assert matching_policies([policy], "other.example.com/x", "plant-a") == ()
    assert strictest_mode([policy]) is Mode.ENFORCE


def test_a_policy_with_a_field_beside_its_spec_is_not_understood() -> None:
    good = raw_policy("new", "**") | {"apiVersion": "x/v1", "kind": "TrustPolicy", "status": {}}
    assert not isinstance(parse_policy(good), BrokenPolicy)
    policy = parse_policy(good | {"threshold": 2})
    assert isinstance(policy, BrokenPolicy)
    assert policy.problem.startswith("threshold: there is no such field here")


@pytest.mark.parametrize("spec", [None, [], {"images": "x/*"}, {"images": [1]}, {"images": []}])
def test_a_policy_whose_globs_cannot_be_read_claims_every_image(spec: Any) -> None:
    policy = parse_policy({"metadata": {"name": "odd"}, "spec": spec})
    assert matching_policies([policy], IMAGE, "plant-a") == (policy,)


def test_an_image_that_no_policy_matches_is_refused_with_what_to_do() -> None:
    (refusal,) = judge(PINNED, "plant-a", []).refusals
    assert PINNED in refusal
    assert "no TrustPolicy matches it in namespace plant-a" in refusal


def test_case_40_all_policies_must_hold() -> None:
    verdicts = [
        PolicyVerdict("one", Mode.ENFORCE, trusted=True),
        PolicyVerdict("two", Mode.ENFORCE, trusted=False, missing="no signature by plant"),
    ]
    judgement = judge(PINNED, "plant-a", verdicts)
    assert not judgement.allowed
    assert judgement.refusals == (
        f'image {PINNED} does not satisfy TrustPolicy "two": no signature by plant',
    )


def test_audit_admits_with_a_warning_but_never_softens_an_enforced_policy() -> None:
    audit = PolicyVerdict("soft", Mode.AUDIT, trusted=False, missing="no signature by qa")
    enforced = PolicyVerdict("hard", Mode.ENFORCE, trusted=False, missing="no signature by plant")
    alone = judge(PINNED, "plant-a", [audit])
    assert alone.allowed
    assert "Audit" in alone.warnings[0]
    both = judge(PINNED, "plant-a", [audit, enforced])
    assert not both.allowed
    assert len(both.warnings) == 1


@pytest.mark.parametrize(
    ("modes", "want"),
    [
        ([], Mode.ENFORCE),
        (["Audit"], Mode.AUDIT),
        (["Audit", "Enforce"], Mode.ENFORCE),
        (["Enforce"], Mode.ENFORCE),
    ],
)
def test_only_audit_policies_make_an_image_audited(modes: list[str], want: Mode) -> None:
    assert strictest_mode([parse_policy(raw_policy("p", "**", mode=mode)) for mode in modes]) is want


@given(
    st.lists(
        st.builds(
            PolicyVerdict,
            policy=st.text(max_size=5),
            mode=st.sampled_from(Mode),
            trusted=st.booleans(),
            missing=st.just("x"),
        )
    )
)
def test_an_image_is_allowed_exactly_when_something_matched_and_no_enforced_policy_failed(
    verdicts: list[PolicyVerdict],
) -> None:
    want = bool(verdicts) and all(v.trusted or v.mode is Mode.AUDIT for v in verdicts)
    assert judge(PINNED, "plant-a", verdicts).allowed is want


def test_the_hash_follows_the_content_and_not_the_name() -> None:
    one, two = parse_policy(raw_policy("one", "**")), parse_policy(raw_policy("two", "**"))
    other = parse_policy(raw_policy("one", "**", mode="Audit"))
    assert isinstance(one, Policy)
    assert isinstance(two, Policy)
    assert isinstance(other, Policy)
    assert one.hash == two.hash
    assert one.hash != other.hash
