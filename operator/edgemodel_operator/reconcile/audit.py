"""The background audit: again and again, hold what runs against the policies of now, and report.

It runs at an interval, and soon after policies, exceptions, or the images of pods changed. Nothing is
remembered that the cluster does not hold, but for findings beyond those that a status has room for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pydantic import ValidationError

from edgemodel_operator.adapters.audit_metrics import AuditMetrics
from edgemodel_operator.adapters.authorities import PolicyDemand
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.api.trustpolicy_status import TrustPolicyStatus
from edgemodel_operator.core.audit import (
    NO_POLICY,
    Answers,
    Audit,
    Finding,
    FindingKey,
    PartQuestion,
    PolicyAudit,
    Question,
    Scope,
    audit,
    questions,
)
from edgemodel_operator.core.audit_status import (
    MAX_NEWS,
    News,
    Readiness,
    counts_by_reason,
    known_findings,
    news,
    next_status,
)
from edgemodel_operator.core.audit_uses import ImageUse
from edgemodel_operator.core.exemption import Exemption
from edgemodel_operator.core.trust import AnyPolicy, BrokenPolicy, Policy, parse_policy

SETTLE_SECONDS = 5.0
"""After a change others follow: a rollout changes many pods."""
RETRY_SECONDS = 30.0

Raw = Mapping[str, Any]

log = logging.getLogger(__name__)


class AuditedCluster(Protocol):
    """What the audit reads and writes; every method raises KubeError."""

    async def list_policies(self) -> tuple[dict[str, Any], ...]:
        """Read all TrustPolicies as they are stored."""
        ...

    async def list_exemptions(self) -> tuple[Exemption, ...]:
        """Read the TrustExceptions that count."""
        ...

    async def list_guarded(self) -> frozenset[str]:
        """Name the namespaces whose pods the admission webhook judges."""
        ...

    async def write_status(self, name: str, status: TrustPolicyStatus) -> None:
        """Write the status of a policy."""
        ...

    async def tell(self, policy: Raw, news: News, now: datetime) -> None:
        """Record an event about a policy."""
        ...


class Running(Protocol):
    """What runs."""

    @property
    def synced(self) -> bool:
        """Whether all pods were read."""
        ...

    @property
    def uses(self) -> tuple[ImageUse, ...]:
        """Every use of an image."""
        ...


class FindsOut(Protocol):
    """What answers the questions of an audit."""

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        """Say what a policy asks for, and what is wrong with its keys."""
        ...

    async def find_out(
        self, policies: Mapping[str, Policy], asked: frozenset[Question], parts: frozenset[PartQuestion]
    ) -> Answers:
        """Answer as many questions as can be."""
        ...


@dataclass(frozen=True)
class _Held:
    """A policy with the object that it was read from."""

    raw: Raw
    policy: AnyPolicy

    @property
    def status(self) -> TrustPolicyStatus:
        try:
            return TrustPolicyStatus.model_validate(self.raw.get("status") or {})
        except ValidationError:
            return TrustPolicyStatus()


class Auditor:
    """Holds what runs against the policies; one audit at a time."""

    def __init__(
        self,
        cluster: AuditedCluster,
        running: Running,
        answers: FindsOut,
        metrics: AuditMetrics,
        *,
        clock: Callable[[], datetime],
        interval_seconds: float,
    ) -> None:
        self._cluster = cluster
        self._running = running
        self._answers = answers
        self._metrics = metrics
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._woken = asyncio.Event()
        self._known: dict[str, dict[FindingKey, Finding]] = {}
        self._uncovered: frozenset[str] = frozenset()

    def wake(self) -> None:
        """Ask for an audit soon: something changed."""
        self._woken.set()

    async def run(self) -> None:
        """Audit until cancelled."""
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._woken.wait()
                await asyncio.sleep(SETTLE_SECONDS)
            except TimeoutError:
                pass
            self._woken.clear()
            pause = await self._audit_safely()

    async def _audit_safely(self) -> float:
        """Audit once and say in how many seconds to do it again, if nothing changes before."""
        if not self._running.synced:
            return RETRY_SECONDS
        try:
            await self.audit_once()
        except KubeError as error:
            log.warning("the audit could not be made: %s", error)
        except Exception:
            log.exception("the audit failed")
        else:
            self._metrics.audits.labels("done").inc()
            self._metrics.last.set(self._clock().timestamp())
            return self._interval_seconds
        self._metrics.audits.labels("failed").inc()
        return RETRY_SECONDS

    async def audit_once(self) -> None:
        """Judge what runs now and report it. Raises KubeError when reading or writing failed."""
        held = [_Held(raw, parse_policy(raw)) for raw in await self._cluster.list_policies()]
        uses = self._running.uses
        policies = [one.policy for one in held]
        scope = Scope(
            policies,
            await self._cluster.list_exemptions(),
            await self._cluster.list_guarded(),
            self._clock(),
        )
        answers = await self._find_out(uses, policies)
        known = {one.policy.name: self._known_of(one) for one in held}
        # In a thread: of ten thousand pods this is some tenths of a second, and the Lease must be kept.
        found = await asyncio.to_thread(audit, uses, scope, answers, known)
        self._show(found)
        await self._report(held, found, known)

    async def _find_out(self, uses: tuple[ImageUse, ...], policies: Sequence[AnyPolicy]) -> Answers:
        understood = {policy.name: policy for policy in policies if isinstance(policy, Policy)}
        asked, parts = await asyncio.to_thread(questions, uses, policies)
        return await self._answers.find_out(understood, asked, parts)

    def _known_of(self, one: _Held) -> dict[FindingKey, Finding]:
        if one.policy.name not in self._known:
            self._known[one.policy.name] = known_findings(one.status)
        return self._known[one.policy.name]

    def _show(self, found: Audit) -> None:
        counts = {name: counts_by_reason(one.findings) for name, one in found.policies.items()}
        self._metrics.show(counts, len(found.uncovered))
        self._metrics.images.set(found.images)
        self._metrics.unverified.set(len({image for one in found.policies.values() for image in one.unknown}))
        uncovered = frozenset(use.image for use in found.uncovered)
        if uncovered - self._uncovered:
            named = sorted(uncovered - self._uncovered)[:MAX_NEWS]
            log.warning("images run that no policy covers", extra={"reason": NO_POLICY, "images": named})
        self._uncovered = uncovered

    async def _report(
        self, held: Sequence[_Held], found: Audit, known: Mapping[str, Mapping[FindingKey, Finding]]
    ) -> None:
        failed: list[KubeError] = []
        for one in held:
            name = one.policy.name
            try:
                await self._report_one(one, found.policies[name], known[name])
            except KubeError as error:
                failed.append(error)
        for gone in set(self._known) - {one.policy.name for one in held}:
            del self._known[gone]
        if failed:
            raise failed[0]

    async def _report_one(self, one: _Held, result: PolicyAudit, known: Mapping[FindingKey, Finding]) -> None:
        """Write the status if it says something new; only when that worked, tell about it."""
        now, old = self._clock(), one.status
        generation = int(one.raw["metadata"].get("generation", 0))
        status = next_status(old, result, await self._readiness(one.policy), generation=generation, now=now)
        if status is not old:
            await self._cluster.write_status(one.policy.name, status)
        for item in news(known.values(), result.findings):
            level = logging.WARNING if item.kind == "Warning" else logging.INFO
            log.log(level, "%s", item.message, extra={"policy": one.policy.name, "reason": item.reason})
            await self._cluster.tell(one.raw, item, now)
        self._known[one.policy.name] = {finding.key: finding for finding in result.findings}

    async def _readiness(self, policy: AnyPolicy) -> Readiness:
        if isinstance(policy, BrokenPolicy):
            return Readiness(understood=False, problems=(policy.problem,))
        demand = await self._answers.demand_of(policy)
        return Readiness(problems=tuple(problem.message for problem in demand.problems))
