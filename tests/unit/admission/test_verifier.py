"""One image against one policy: what is asked, what is counted, and which verdicts still have a use."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import pytest

from edgemodel_operator.adapters.authorities import PolicyDemand, Problem
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.verdict_book import VerdictBook, group_of
from edgemodel_operator.admission.verdict_cache import FRESH_S, VerdictCache
from edgemodel_operator.admission.verifier import ImageVerifier
from edgemodel_operator.core.trust import Policy
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.signing.demand import Demand
from edgemodel_operator.signing.verdict import Evidence, Reason, Trusted, Untrusted, Verdict
from support.admission import GOOD, policy

IMAGE = parse_reference(GOOD)


class Checks:
    """Stands for the verifier of policies: a stated demand, a stated answer."""

    def __init__(self, answer: Verdict | Exception) -> None:
        self.answer = answer
        self.problems: tuple[Problem, ...] = ()
        self.asked = 0

    async def demand_of(self, asked: Policy) -> PolicyDemand:
        return PolicyDemand(Demand((), threshold=asked.spec.threshold), self.problems)

    async def examine(self, client: Any, image: Any, demand: Demand) -> Verdict:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass
class Registries:
    """Gives no client, or fails."""

    error: KubeError | None = None

    async def client(self) -> Any:
        if self.error is not None:
            raise self.error


TRUSTED = Trusted(("plant",), (Evidence(IMAGE.digest or "", ("plant",)),))
UNTRUSTED = Untrusted(Reason.UNKNOWN_KEY, f"{IMAGE} is not trusted: signed by a stranger.", ())


class Site:
    """A verifier with what it asks."""

    def __init__(self, answer: Verdict | Exception, error: KubeError | None = None) -> None:
        self.now = 1_800_000_000.0
        self.checks = Checks(answer)
        self.metrics = AdmissionMetrics()
        self.cache = VerdictCache(VerdictBook(), lambda: self.now, lambda: self.now)
        self.verifier = ImageVerifier(self.checks, Registries(error), self.cache, self.metrics)  # type: ignore[arg-type]

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"edgemodel_admission_{name}_total", labels) or 0


def plant(**spec: Any) -> Policy:
    parsed = policy(**spec)
    assert isinstance(parsed, Policy)
    return parsed


async def test_a_verdict_is_asked_for_once_and_given_in_the_name_of_each_policy() -> None:
    site = Site(TRUSTED)
    for name in ("one", "two"):
        verdict = await site.verifier.verify(IMAGE, plant(name=name, mode="Audit"))
        assert (verdict.policy, verdict.mode, verdict.trusted) == (name, "Audit", True)
    assert site.checks.asked == 1  # both ask for the same
    assert site.count("cached_verdicts") == 1
    assert site.count("verifications", result="trusted") == 1


async def test_what_was_verified_leaves_a_line_with_what_it_lacks(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(UNTRUSTED)
    with caplog.at_level(logging.INFO):
        verdict = await site.verifier.verify(IMAGE, plant())
    assert (verdict.trusted, verdict.reason) == (False, "UnknownKey")
    assert verdict.missing == "signed by a stranger (accepted: a signature by plant)"
    line = vars(caplog.records[0])
    assert (line["image"], line["policy"], line["reason"]) == (GOOD, "plant", "UnknownKey")


async def test_an_old_verdict_that_stands_is_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    site = Site(TRUSTED)
    await site.verifier.verify(IMAGE, plant())
    site.now += FRESH_S
    site.checks.answer = CannotVerify("the registry is away")
    assert (await site.verifier.verify(IMAGE, plant())).trusted
    assert site.count("stale_verdicts_used") == 1
    assert "An old verdict stands" in caplog.text


async def test_credentials_that_cannot_be_read_are_an_error() -> None:
    site = Site(TRUSTED, KubeError(403, "the Secret with registry credentials may not be read."))
    with pytest.raises(CannotVerify, match=r"may not be read$"):
        await site.verifier.verify(IMAGE, plant())
    assert site.count("verifications", result="error") == 1
    assert len(site.cache.book) == 0


async def test_only_verdicts_that_some_policy_still_asks_for_have_a_use() -> None:
    site = Site(TRUSTED)
    first = plant()
    fingerprint = (await site.checks.demand_of(first)).fingerprint
    assert await site.verifier.live_groups((first,)) == {group_of(fingerprint)}
    assert await site.verifier.live_groups(()) == set()


async def test_nothing_is_dropped_while_a_policy_or_key_is_not_known_for_certain() -> None:
    site = Site(TRUSTED)
    assert await site.verifier.live_groups((policy("newer", quorum=2),)) is None
    site.checks.problems = (Problem("a Secret could not be read", unknown=True),)
    assert await site.verifier.live_groups((plant(),)) is None
