"""From the findings of an audit to what is reported: the status of a policy, and what is news in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgemodel_operator.api.conditions import Condition, ConditionStatus, shorten
from edgemodel_operator.api.names import CONDITION_MESSAGE_LIMIT
from edgemodel_operator.api.trustexception import parse_time
from edgemodel_operator.api.trustpolicy_status import MAX_FINDINGS, TrustPolicyStatus, UntrustedUse
from edgemodel_operator.core.audit import Finding, FindingKey, PolicyAudit
from edgemodel_operator.core.audit_uses import ImageUse

READY = "Ready"
SATISFIED = "Satisfied"
CONFIRM_AFTER = timedelta(hours=1)
"""A status that says the same is written again this often: each write wears the disk of a small cluster."""
MAX_NEWS = 10
"""Different images of which one audit tells in events, for each policy."""


@dataclass(frozen=True)
class Readiness:
    """Whether a policy can be applied: `problems` are sentences; `understood` is false for a broken one."""

    understood: bool = True
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class News:
    """Something that is told once; `image` names what it is about, to tell one from the other."""

    kind: str
    reason: str
    image: str
    message: str


def known_findings(status: TrustPolicyStatus) -> dict[FindingKey, Finding]:
    """Read the findings of a status back, as the next audit wants them."""
    found = (
        Finding(
            ImageUse(item.namespace, item.pod, item.container, item.node, item.image, item.running),
            item.reason,
            item.message,
            item.since,
        )
        for item in status.findings
    )
    return {finding.key: finding for finding in found}


def next_status(
    old: TrustPolicyStatus, result: PolicyAudit, readiness: Readiness, *, generation: int, now: datetime
) -> TrustPolicyStatus:
    """Give the status after an audit: the old one itself if there is nothing new to write."""
    time = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = tuple(
        _condition(old, fresh, generation, time)
        for fresh in (_ready(readiness), _satisfied(result, readiness))
    )
    new = TrustPolicyStatus(
        observed_generation=generation,
        conditions=conditions,
        checked=result.images,
        untrusted=len(result.findings),
        findings=tuple(_listed(finding) for finding in result.findings[:MAX_FINDINGS]),
        audited_at=old.audited_at,
    )
    confirmed = parse_time(old.audited_at)
    if new == old and confirmed is not None and now - confirmed < CONFIRM_AFTER:
        return old
    return new.model_copy(update={"audited_at": time})


def news(old: Iterable[Finding], new: Iterable[Finding]) -> tuple[News, ...]:
    """Tell which images came to be found, or found for another reason, and which are gone; each once."""
    before, now = _by_image(old), _by_image(new)
    told = [
        _found(image, findings) for image, findings in now.items() if _is_new(findings, before.get(image))
    ]
    told += [
        News("Normal", "Resolved", image, f"{image} does not run against this policy any more")
        for image in before
        if image not in now
    ]
    told.sort(key=lambda item: (item.kind != "Warning", item.image))
    if len(told) > MAX_NEWS:
        rest = f"and {len(told) - MAX_NEWS} images more; the status and the log list them"
        told = [*told[:MAX_NEWS], News("Warning", "AuditChanged", "", rest)]
    return tuple(told)


def _by_image(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.use.image, []).append(finding)
    return groups


def _is_new(findings: Sequence[Finding], before: Sequence[Finding] | None) -> bool:
    return before is None or not {one.reason for one in findings} <= {one.reason for one in before}


def _found(image: str, findings: Sequence[Finding]) -> News:
    first = min(findings, key=lambda finding: finding.use)
    use = first.use
    more = f" and {len(findings) - 1} more" if len(findings) > 1 else ""
    where = f"{use.namespace}/{use.pod} {use.container}{more}"
    message = f"{image} runs in {where} although the policy does not hold: {first.message}"
    return News("Warning", first.reason, image, message)


def _listed(finding: Finding) -> UntrustedUse:
    use = finding.use
    return UntrustedUse(
        namespace=use.namespace,
        pod=use.pod,
        container=shorten(use.container, 253),
        node=use.node,
        image=shorten(use.image, 512),
        running=shorten(use.running, 512),
        reason=finding.reason,
        message=shorten(finding.message, 512),
        since=finding.since,
    )


@dataclass(frozen=True)
class _Fresh:
    type: str
    status: ConditionStatus
    reason: str
    message: str


def _ready(readiness: Readiness) -> _Fresh:
    problems = "; ".join(readiness.problems)
    if not readiness.understood:
        return _Fresh(READY, ConditionStatus.FALSE, "NotUnderstood", problems)
    if problems:
        return _Fresh(READY, ConditionStatus.FALSE, "KeysUnusable", problems)
    return _Fresh(READY, ConditionStatus.TRUE, "Understood", "")


def _satisfied(result: PolicyAudit, readiness: Readiness) -> _Fresh:
    if result.findings:
        return _Fresh(SATISFIED, ConditionStatus.FALSE, "UntrustedImages", _summary(result))
    if not readiness.understood:
        return _Fresh(SATISFIED, ConditionStatus.UNKNOWN, "NotUnderstood", "nothing can be held against it")
    if result.unknown:
        some = f"{len(result.unknown)} images could not be verified, among them {result.unknown[0]}"
        return _Fresh(SATISFIED, ConditionStatus.UNKNOWN, "NotVerified", some)
    return _Fresh(SATISFIED, ConditionStatus.TRUE, "NothingUntrusted", "")


def _summary(result: PolicyAudit) -> str:
    images = {finding.use.image for finding in result.findings}
    reasons: dict[str, int] = {}
    for finding in result.findings:
        reasons[finding.reason] = reasons.get(finding.reason, 0) + 1
    counted = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    uses = f"{len(result.findings)} use{'s' if len(result.findings) > 1 else ''}"
    return (
        f"{uses} of {len(images)} image{'s' if len(images) > 1 else ''} for which it does not hold: {counted}"
    )


def _condition(old: TrustPolicyStatus, fresh: _Fresh, generation: int, time: str) -> Condition:
    before = {condition.type: condition for condition in old.conditions}.get(fresh.type)
    same = before is not None and before.status is fresh.status
    # What a registry says while it fails can differ each time; once is enough.
    unknown = fresh.status is ConditionStatus.UNKNOWN
    repeated = before is not None and same and unknown and before.reason == fresh.reason
    return Condition(
        type=fresh.type,
        status=fresh.status,
        reason=fresh.reason,
        message=before.message if before and repeated else shorten(fresh.message, CONDITION_MESSAGE_LIMIT),
        observed_generation=generation,
        last_transition_time=before.last_transition_time if before and same else time,
    )


def counts_by_reason(findings: Iterable[Finding]) -> Mapping[str, int]:
    """Count the findings of each reason."""
    counts: dict[str, int] = {}
    for finding in findings:
        counts[finding.reason] = counts.get(finding.reason, 0) + 1
    return counts
