"""The client without the agent gives the answers that the agent gives without registry and API server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict, parse_policy
from edgemodel_operator.node.client import judge_alone
from edgemodel_operator.node.judge import PullJudge
from edgemodel_operator.node.record import Fixed, Record, to_document
from edgemodel_operator.oci.reference import Reference

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOST = "registry.plant-a.local:5000"
DIGEST = f"sha256:{'a' * 64}"
PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
REPOSITORIES = [
    f"{HOST}/models/line",
    f"{HOST}/models/a/b",
    f"{HOST}/tools/x",
    "other.plant-b.local/models/line",
]
GLOBS = [f"{HOST}/models/*", f"{HOST}/models/**", f"{HOST}/**", "**", "*/models/line", f"{HOST}/tools/x"]

globs = st.lists(st.sampled_from(GLOBS), min_size=1, max_size=2, unique=True)


@st.composite
def policies(draw: st.DrawFn) -> tuple[AnyPolicy, ...]:
    """Make up to three policies, some of which are not understood."""
    made = []
    for number in range(draw(st.integers(0, 3))):
        spec: dict[str, Any] = {
            "images": draw(globs),
            "authorities": [{"name": f"a{number}", "keys": [{"data": PEM}]}],
            "mode": draw(st.sampled_from(["Enforce", "Audit"])),
            "namespaces": draw(st.sampled_from([[], ["plant-a"], ["*"], ["plant-a", "**"]])),
        }
        if draw(st.integers(0, 5)) == 0:
            spec["fromTheFuture"] = True
        made.append(parse_policy({"metadata": {"name": f"p{number}"}, "spec": spec}))
    return tuple(made)


@st.composite
def exemptions(draw: st.DrawFn) -> tuple[Exemption, ...]:
    """Make up to two exceptions, some of them over or too long."""
    made = []
    for number in range(draw(st.integers(0, 2))):
        end = NOW + timedelta(days=draw(st.sampled_from([-1, 1, 89, 91])))
        images = draw(st.one_of(globs, st.just([f"{REPOSITORIES[0]}@{DIGEST}"])))
        spec = {
            "images": images,
            "namespaces": ["plant-a"],
            "policies": draw(st.lists(st.sampled_from(["p0", "p1", "p2"]), max_size=3, unique=True)),
            "expires": end.isoformat(),
            "reason": "because of it",
        }
        one = parse_exemption({"metadata": {"name": f"e{number}", "namespace": "s"}, "spec": spec}, "s")
        assert one is not None
        made.append(one)
    return tuple(made)


@dataclass
class Stated:
    policies: tuple[AnyPolicy, ...]
    exemptions: tuple[Exemption, ...]


@dataclass
class Remembered:
    """Knows what the record knows, and can find out nothing else."""

    record: Record

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        if not self.record.holds(str(image), self.record.demands.get(policy.hash, "")):
            raise CannotVerify("the registry is away")
        return PolicyVerdict(policy.name, policy.spec.mode, trusted=True)


@settings(max_examples=400)
@given(
    policies=policies(),
    exemptions=exemptions(),
    held=st.sets(st.integers(0, 2)),
    unread=st.sets(st.integers(0, 2)),
    repository=st.sampled_from(REPOSITORIES),
    exempt=st.one_of(st.just([]), globs),
    deny=st.booleans(),
)
def test_both_give_the_same_answer(
    *,
    policies: tuple[AnyPolicy, ...],
    exemptions: tuple[Exemption, ...],
    held: set[int],
    unread: set[int],
    repository: str,
    exempt: list[str],
    deny: bool,
) -> None:
    record = Record()
    for number, policy in enumerate(policies):
        if isinstance(policy, Policy) and number not in unread:
            record.demands[policy.hash] = f"d{number}"
        if number in held:
            record.keep(f"{repository}@{DIGEST}", f"d{number}")
    fixed = Fixed(pod="", own=f"{REPOSITORIES[2]}@{DIGEST}", exempt=tuple(exempt), deny_unmatched=deny)
    judge = PullJudge(Stated(policies, exemptions), Remembered(record), fixed, lambda: NOW)
    agent = asyncio.run(judge.decide(f"{repository}:1", DIGEST))
    document = to_document(record, fixed, policies, exemptions)
    alone = judge_alone(document, f"{repository}:1", DIGEST, NOW.timestamp())
    assert (alone == "") is agent.allowed, (alone, agent)
