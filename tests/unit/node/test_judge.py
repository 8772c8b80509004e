"""What the agent says about a pull: it asks less than the webhook, and never lets doubt through."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict, parse_policy
from edgemodel_operator.node import judge
from edgemodel_operator.node.judge import Answer, PullJudge
from edgemodel_operator.node.metrics import Outcome
from edgemodel_operator.node.record import Fixed
from edgemodel_operator.oci.reference import Reference

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
GOOD, BAD, DARK, SLOW = (f"sha256:{letter * 64}" for letter in "abcd")
HOST = "registry.plant-a.local:5000"
OWN = f"{HOST}/edgemodel/operator@sha256:{'e' * 64}"
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def policy(name: str = "models", **spec: Any) -> AnyPolicy:
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    spec = {"images": [f"{HOST}/models/**"], "authorities": authorities} | spec
    return parse_policy({"metadata": {"name": name}, "spec": spec})


def exemption(**spec: Any) -> Exemption:
    values = {
        "images": [f"{HOST}/models/**"], "namespaces": ["plant-a"],
        "expires": "2026-12-01T00:00:00Z", "reason": "the old gateway",
    } | spec  # fmt: skip
    found = parse_exemption({"metadata": {"name": "for-now", "namespace": "s"}, "spec": values}, "s")
    assert found is not None
    return found


@dataclass
class Stated:
    """Policies and exceptions that a test states."""

    policies: tuple[AnyPolicy, ...] | None
    exemptions: tuple[Exemption, ...] = ()


class Verdicts:
    """Trusts GOOD, does not trust BAD, cannot tell about DARK, and never answers about SLOW."""

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        if image.digest == DARK:
            raise CannotVerify("the registry is away")
        if image.digest == SLOW:
            await asyncio.Event().wait()
        trusted = image.digest == GOOD
        return PolicyVerdict(policy.name, policy.spec.mode, trusted, "" if trusted else "it is not signed")


def decide(
    digest: str,
    *policies: AnyPolicy,
    name: str = f"{HOST}/models/line:1",
    exemptions: tuple[Exemption, ...] = (),
    deny: bool = False,
    exempt: tuple[str, ...] = (),
) -> Answer:
    trust = Stated(policies or (policy(),), exemptions)
    fixed = Fixed(pod="", own=OWN, exempt=exempt, deny_unmatched=deny)
    return asyncio.run(PullJudge(trust, Verdicts(), fixed, lambda: NOW).decide(name, digest))


def test_a_pull_is_allowed_when_the_policy_holds_and_refused_when_not() -> None:
    assert decide(GOOD).outcome is Outcome.ALLOW
    refused = decide(BAD)
    assert refused.outcome is Outcome.DENY
    assert 'does not satisfy TrustPolicy "models": it is not signed' in refused.reason
    assert f"{HOST}/models/line@{BAD}" in refused.reason


def test_case_23b_what_cannot_be_found_out_is_refused_as_an_error() -> None:
    answer = decide(DARK)
    assert answer.outcome is Outcome.ERROR
    assert not answer.allowed
    assert "the registry is away" in answer.reason


def test_a_slow_registry_is_refused_in_time_for_containerd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "BUDGET_SECONDS", 0.01)
    answer = decide(SLOW)
    assert answer.outcome is Outcome.ERROR
    assert "trying again may succeed" in answer.reason


def test_all_policies_must_hold_but_those_that_only_audit() -> None:
    assert decide(BAD, policy(mode="Audit")).allowed
    assert "Audit" in decide(BAD, policy(mode="Audit")).reason
    assert not decide(BAD, policy(mode="Audit"), policy("strict")).allowed


def test_policies_for_some_namespaces_are_left_to_the_webhook() -> None:
    assert decide(BAD, policy(namespaces=["plant-a"])).allowed
    assert decide(BAD, policy(namespaces=["plant-a"]), deny=True).allowed
    assert not decide(BAD, policy(namespaces=["plant-a"]), policy("everywhere")).allowed
    assert not decide(BAD, policy(namespaces=["plant-a", "*"])).allowed


def test_a_policy_that_is_not_understood_admits_nothing_that_it_covers() -> None:
    broken = policy(newField=True)
    answer = decide(GOOD, broken)
    assert answer.outcome is Outcome.ERROR
    assert "cannot be understood" in answer.reason


@pytest.mark.parametrize("name", ["registry.plant-b.local/models/line:1", f"{HOST}/tools/x"])
def test_what_no_policy_covers_is_pulled_unless_it_is_to_be_denied(name: str) -> None:
    assert decide(BAD, name=name).outcome is Outcome.UNMATCHED
    assert decide(BAD, name=name, deny=True).outcome is Outcome.DENY
    assert decide(BAD, name=name, deny=True, exempt=("**",)).allowed


def test_an_exception_counts_whatever_its_namespaces_and_not_after_its_end() -> None:
    assert decide(BAD, exemptions=(exemption(),)).allowed
    assert "for-now" in decide(BAD, exemptions=(exemption(),)).reason
    assert not decide(BAD, exemptions=(exemption(policies=["others"]),)).allowed
    assert not decide(BAD, exemptions=(exemption(expires="2026-11-21T11:59:59Z"),)).allowed
    outside = f"{HOST}/tools/x:1"
    assert decide(BAD, name=outside, deny=True, exemptions=(exemption(images=["**"]),)).allowed


def test_the_verifier_itself_can_always_be_pulled() -> None:
    name, _, digest = OWN.partition("@")
    everything = policy(images=["**"])
    assert decide(digest, everything, name=OWN).allowed
    assert not decide(BAD, everything, name=f"{name}:1").allowed


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        (f"{HOST}/models/line@{GOOD}", BAD),
        ("line", GOOD),
        (f"{HOST}/models/line", "sha512:" + "a" * 128),
        (f"{HOST}/models/line", ""),
        ("", GOOD),
        (f"{HOST}/models/../line", GOOD),
        ("x" * 600, GOOD),
    ],
)
def test_a_pull_that_is_not_named_properly_is_refused(name: str, digest: str) -> None:
    assert decide(digest, policy(images=["other/**"]), name=name).outcome is Outcome.DENY


def test_before_the_policies_are_known_everything_but_the_exempt_is_refused() -> None:
    fixed = Fixed(pod="", own=OWN, exempt=("**/pause",), deny_unmatched=False)
    pulls = PullJudge(Stated(None), Verdicts(), fixed, lambda: NOW)
    assert asyncio.run(pulls.decide(f"{HOST}/tools/x", GOOD)).outcome is Outcome.ERROR
    assert asyncio.run(pulls.decide(f"{HOST}/tools/pause", GOOD)).allowed
    assert asyncio.run(pulls.decide(OWN, OWN.partition("@")[2])).allowed
