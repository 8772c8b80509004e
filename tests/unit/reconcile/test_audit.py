"""The audit's loop: when it looks, what it writes, and what it says, against a cluster of plain values."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from edgemodel_operator.adapters.audit_metrics import REASONS, AuditMetrics
from edgemodel_operator.adapters.authorities import PolicyDemand, Problem
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus
from edgemodel_operator.core.audit import Answers, PartQuestion, Question, Unknown
from edgemodel_operator.core.audit_status import News
from edgemodel_operator.core.audit_uses import ImageUse
from edgemodel_operator.core.exemption import Exemption
from edgemodel_operator.core.trust import Policy, PolicyVerdict
from edgemodel_operator.reconcile import audit as audit_module
from edgemodel_operator.reconcile.audit import Auditor
from edgemodel_operator.signing.demand import Demand

REGISTRY = "registry.plant-a.local:5000"
LINE = f"{REGISTRY}/models/line@sha256:{'a' * 64}"
PEM = "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n"


def policy(name: str = "models", generation: int = 1, **spec: Any) -> dict[str, Any]:
    key = {"name": "operator", "keys": [{"data": PEM}]}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": generation},
        "spec": {"images": [f"{REGISTRY}/**"], "authorities": [key], **spec},
    }


def use(pod: str = "line-x", image: str = LINE) -> ImageUse:
    return ImageUse("plant-a", pod, "containers[main]", "edge-a", image, image)


@dataclass
class Plant:
    """Cluster, pods and registry at once."""

    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    uses: tuple[ImageUse, ...] = ()
    all_read: bool = True
    asked_whether_read: int = 0
    trusted: set[str] = field(default_factory=set)
    away: bool = False
    problems: tuple[Problem, ...] = ()
    refuse: int = 0
    writes: list[tuple[str, TrustPolicyStatus]] = field(default_factory=list)
    events: list[News] = field(default_factory=list)
    audits: int = 0

    @property
    def synced(self) -> bool:
        self.asked_whether_read += 1
        return self.all_read

    async def list_policies(self) -> tuple[dict[str, Any], ...]:
        self.audits += 1
        return tuple(self.policies.values())

    async def list_exemptions(self) -> tuple[Exemption, ...]:
        return ()

    async def list_guarded(self) -> frozenset[str]:
        return frozenset({"plant-a"})

    async def write_status(self, name: str, status: TrustPolicyStatus) -> None:
        if self.refuse:
            raise KubeError(self.refuse, "refused by the test")
        self.writes.append((name, status))
        self.policies[name]["status"] = status.to_raw()

    async def tell(self, policy: Mapping[str, Any], news: News, now: datetime) -> None:
        self.events.append(news)

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        return PolicyDemand(Demand(()), self.problems)

    async def find_out(
        self, policies: Mapping[str, Policy], asked: frozenset[Question], parts: frozenset[PartQuestion]
    ) -> Answers:
        assert {question.policy for question in asked} <= set(policies)
        return Answers({question: self._answer(question, policies) for question in asked})

    def _answer(self, question: Question, policies: Mapping[str, Policy]) -> PolicyVerdict | Unknown:
        if self.away:
            return Unknown("the registry did not answer")
        mode = policies[question.policy].spec.mode
        if str(question.image) in self.trusted:
            return PolicyVerdict(question.policy, mode, trusted=True)
        return PolicyVerdict(question.policy, mode, False, "it is not signed", "Unsigned")

    def status(self, name: str = "models") -> TrustPolicyStatus:
        return TrustPolicyStatus.model_validate(self.policies[name].get("status") or {})


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def plant() -> Plant:
    return Plant({"models": policy()}, (use(), use("line-y")))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def auditor(plant: Plant, clock: Clock, registry: CollectorRegistry) -> Auditor:
    return new_auditor(plant, clock, registry)


def new_auditor(
    plant: Plant, clock: Clock, registry: CollectorRegistry, interval_seconds: float = 300
) -> Auditor:
    return Auditor(
        plant, plant, plant, AuditMetrics(registry), clock=clock, interval_seconds=interval_seconds
    )


def conditions(status: TrustPolicyStatus) -> dict[str, str]:
    return {one.type: one.status.value for one in status.conditions}


async def test_what_runs_against_a_policy_stands_in_its_status_and_is_told_once(
    plant: Plant, auditor: Auditor, clock: Clock
) -> None:
    await auditor.audit_once()
    status = plant.status()
    assert conditions(status) == {"Ready": "True", "Satisfied": "False"}
    assert [(one.pod, one.reason, one.since) for one in status.findings] == [
        ("line-x", "Unsigned", "2026-11-21T12:00:00Z"),
        ("line-y", "Unsigned", "2026-11-21T12:00:00Z"),
    ]
    assert [one.reason for one in plant.events] == ["Unsigned"]
    clock.now += timedelta(minutes=5)
    await auditor.audit_once()
    assert (len(plant.writes), len(plant.events)) == (1, 1)


async def test_a_new_operator_goes_on_where_the_last_one_stopped(
    plant: Plant, auditor: Auditor, clock: Clock
) -> None:
    await auditor.audit_once()
    clock.now += timedelta(minutes=5)
    await new_auditor(plant, clock, CollectorRegistry()).audit_once()
    assert (len(plant.writes), len(plant.events)) == (1, 1)
    assert plant.status().findings[0].since == "2026-11-21T12:00:00Z"


async def test_a_signature_that_comes_resolves_the_finding(plant: Plant, auditor: Auditor) -> None:
    await auditor.audit_once()
    plant.trusted.add(LINE)
    await auditor.audit_once()
    assert conditions(plant.status()) == {"Ready": "True", "Satisfied": "True"}
    assert [(one.kind, one.reason) for one in plant.events] == [
        ("Warning", "Unsigned"),
        ("Normal", "Resolved"),
    ]


async def test_a_registry_that_is_away_changes_nothing_that_was_found_and_accuses_nobody(
    plant: Plant, auditor: Auditor
) -> None:
    await auditor.audit_once()
    before = plant.status()
    plant.away = True
    plant.uses = (*plant.uses, use("new", f"{REGISTRY}/models/new@sha256:{'b' * 64}"))
    await auditor.audit_once()
    after = plant.status()
    assert after.findings == before.findings
    assert after.untrusted == 2
    assert after.checked == 2


async def test_a_first_look_without_registry_says_unknown(plant: Plant, auditor: Auditor) -> None:
    plant.away = True
    await auditor.audit_once()
    assert conditions(plant.status()) == {"Ready": "True", "Satisfied": "Unknown"}
    assert plant.status().findings == ()
    assert plant.events == []


async def test_a_broken_policy_is_not_ready_and_says_why(plant: Plant, auditor: Auditor) -> None:
    plant.policies = {"models": policy(surprise="from a newer version")}
    await auditor.audit_once()
    (ready, satisfied) = plant.status().conditions
    assert (ready.type, ready.status.value, ready.reason) == ("Ready", "False", "NotUnderstood")
    assert "surprise" in ready.message
    assert satisfied.status.value == "Unknown"


async def test_a_key_that_cannot_be_read_makes_a_policy_not_ready(plant: Plant, auditor: Auditor) -> None:
    plant.problems = (Problem("Secret site-key does not exist", unknown=False, authority="operator"),)
    await auditor.audit_once()
    assert plant.status().conditions[0].message == "Secret site-key does not exist"
    assert conditions(plant.status())["Ready"] == "False"


async def test_what_could_not_be_written_is_written_and_told_next_time(
    plant: Plant, auditor: Auditor
) -> None:
    plant.refuse = 500
    with pytest.raises(KubeError):
        await auditor.audit_once()
    assert plant.events == []
    plant.refuse = 0
    await auditor.audit_once()
    assert (len(plant.writes), len(plant.events)) == (1, 1)


async def test_one_policy_that_cannot_be_written_keeps_none_of_the_others(
    plant: Plant, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.policies["other"] = policy("other")
    write = plant.write_status

    async def refuse_models(name: str, status: TrustPolicyStatus) -> None:
        if name == "models":
            raise KubeError(409, "refused by the test")
        await write(name, status)

    monkeypatch.setattr(plant, "write_status", refuse_models)
    with pytest.raises(KubeError):
        await auditor.audit_once()
    assert [name for name, _ in plant.writes] == ["other"]


async def test_metrics_show_every_reason_from_the_start_and_forget_policies_that_are_gone(
    plant: Plant, auditor: Auditor, registry: CollectorRegistry
) -> None:
    def untrusted(policy: str, reason: str) -> float | None:
        return registry.get_sample_value(
            "edgemodel_untrusted_containers", {"policy": policy, "reason": reason}
        )

    assert untrusted("", "NoTrustPolicy") == 0
    await auditor.audit_once()
    assert untrusted("models", "Unsigned") == 2
    assert {untrusted("models", reason) for reason in REASONS if reason != "Unsigned"} == {0}
    assert registry.get_sample_value("edgemodel_audited_images") == 1
    plant.policies.clear()
    await auditor.audit_once()
    assert untrusted("models", "Unsigned") is None
    assert untrusted("", "NoTrustPolicy") == 2


async def test_ten_thousand_pods_that_run_untrusted_make_a_small_status(
    plant: Plant, auditor: Auditor
) -> None:
    plant.uses = tuple(use(f"pod-{number}") for number in range(10_000))
    await auditor.audit_once()
    status = plant.status()
    assert (status.untrusted, len(status.findings), len(plant.events)) == (10_000, 50, 1)


async def test_images_that_no_policy_covers_are_logged_once(
    plant: Plant, auditor: Auditor, caplog: pytest.LogCaptureFixture
) -> None:
    plant.policies.clear()
    await auditor.audit_once()
    await auditor.audit_once()
    lines = [one for one in caplog.records if one.message == "images run that no policy covers"]
    assert [one.__dict__["images"] for one in lines] == [[LINE]]


# --- when it looks ---------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def at_work(auditor: Auditor) -> AsyncIterator[None]:
    task = asyncio.create_task(auditor.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await asyncio.sleep(0.002)


async def test_it_looks_at_once_then_at_every_interval(
    plant: Plant, clock: Clock, registry: CollectorRegistry
) -> None:
    async with at_work(new_auditor(plant, clock, registry, interval_seconds=0.01)):
        await until(lambda: plant.audits >= 3)
    assert registry.get_sample_value("edgemodel_audits_total", {"result": "failed"}) == 0
    assert registry.get_sample_value("edgemodel_audit_last_success_timestamp_seconds") == (
        clock.now.timestamp()
    )


async def test_a_change_brings_the_next_audit_forward(
    plant: Plant, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "SETTLE_SECONDS", 0.0)
    async with at_work(auditor):
        await until(lambda: bool(plant.writes))
        auditor.wake()
        await until(lambda: plant.audits == 2)


async def test_without_all_pods_nothing_is_judged(
    plant: Plant, auditor: Auditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every finding of a pod that was not read yet would be taken back."""
    monkeypatch.setattr(audit_module, "RETRY_SECONDS", 0.01)
    plant.all_read = False
    async with at_work(auditor):
        await until(lambda: plant.asked_whether_read >= 3)
        assert plant.audits == 0
        plant.all_read = True
        await until(lambda: bool(plant.writes))


async def test_an_audit_that_fails_is_counted_and_tried_again(
    plant: Plant, auditor: Auditor, registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "RETRY_SECONDS", 0.01)
    plant.refuse = 503
    async with at_work(auditor):
        await until(lambda: plant.audits >= 2)
        plant.refuse = 0
        await until(lambda: bool(plant.writes))
    assert (registry.get_sample_value("edgemodel_audits_total", {"result": "failed"}) or 0) >= 1
