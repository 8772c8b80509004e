"""The trial of a new revision on one node: passed, failed, not over yet, or never begun.

The rules are an ordered list of small checks; the first that speaks decides:

1. The node is lost and its kubelet never took the pod: the node was offline before it was touched, so it
   is *deferred*. If the kubelet had taken the pod, the update may have killed the node: *failed*.
2. The pod restarted: failed. A trial has no second attempts.
3. The pod says, or shows, that it is bad (wrong answers, damaged files, wrong provider): failed at once.
4. No ready pod within the progress deadline: failed.
5. No data (no pod yet, or nobody can ask it): the trial holds; silence never passes.
6. Ready for the whole probation: passed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from edgemodel_operator.core.roster import REMINDER
from edgemodel_operator.core.world import Answer, Pod

FATAL_ANSWERS = frozenset(
    {"GoldenMismatch", "FileDigestMismatch", "ProviderMismatch", "LoadFailed", "WarmUpFailed"}
)
"""What a pod cannot recover from by waiting."""

ASK_AGAIN = timedelta(seconds=5)
"""How long to wait before a pod under trial is asked again."""


class Result(StrEnum):
    """How a trial stands."""

    WAITING = "Waiting"
    PASSED = "Passed"
    FAILED = "Failed"
    DEFERRED = "Deferred"


@dataclass(frozen=True)
class Judgement:
    """How a trial stands, why, and when to look again."""

    result: Result
    reason: str = ""
    message: str = ""
    look_again_at: datetime | None = None


@dataclass(frozen=True)
class TrialRules:
    """What the spec asks of a trial."""

    probation: timedelta
    deadline: timedelta


@dataclass(frozen=True)
class Evidence:
    """What was seen of one node under trial."""

    node_name: str
    node_ready: bool
    pod: Pod | None
    answer: Answer | None
    touched_at: datetime


def judge(evidence: Evidence, rules: TrialRules, now: datetime) -> Judgement:
    """Judge one trial; the numbers are those of the module's procedure."""
    checks = (_lost, _restarted, _bad, _late, _silent)
    for check in checks:
        judgement = check(evidence, rules, now)
        if judgement is not None:
            return judgement
    return _probation(evidence, rules, now)


def _lost(evidence: Evidence, _rules: TrialRules, _now: datetime) -> Judgement | None:  # (1)
    if evidence.node_ready:
        return None
    name = evidence.node_name
    if evidence.pod is None or not evidence.pod.acknowledged:
        return Judgement(
            Result.DEFERRED, "OfflineBeforeTouched", f"{name} went offline before the update reached it"
        )
    return Judgement(Result.FAILED, "NodeLost", f"{name} went offline while the new revision was under trial")


def _restarted(evidence: Evidence, _rules: TrialRules, _now: datetime) -> Judgement | None:  # (2)
    pod = evidence.pod
    if pod is None or pod.restarts == 0:
        return None
    return Judgement(
        Result.FAILED, "Restarted", f"pod {pod.name} restarted {pod.restarts} times in its trial"
    )


def _bad(evidence: Evidence, _rules: TrialRules, _now: datetime) -> Judgement | None:  # (3)
    answer = evidence.answer
    if answer is None or not answer.reachable or answer.reason not in FATAL_ANSWERS:
        return None
    return Judgement(Result.FAILED, answer.reason, answer.message)


def _late(evidence: Evidence, rules: TrialRules, now: datetime) -> Judgement | None:  # (4)
    pod = evidence.pod
    if pod is not None and pod.ready:
        return None
    begun = pod.created if pod is not None else evidence.touched_at
    ends = begun + rules.deadline
    why = _why_not_ready(evidence)
    if now >= ends:
        seconds = int(rules.deadline.total_seconds())
        return Judgement(Result.FAILED, "ProgressDeadlineExceeded", f"not ready after {seconds} s: {why}")
    # A pod that found its own fault stays up and unready: no event will ever tell of it, so it is asked.
    pause = REMINDER if pod is None else ASK_AGAIN
    return Judgement(Result.WAITING, "PodNotReady", why, look_again_at=min(ends, now + pause))


def _why_not_ready(evidence: Evidence) -> str:
    pod, answer = evidence.pod, evidence.answer
    if pod is None:
        return f"no pod on {evidence.node_name} yet"
    if pod.waiting:
        return f"pod {pod.name}: {pod.waiting}"
    if answer is not None and answer.message:
        return answer.message
    return f"pod {pod.name} is not ready yet"


def _silent(evidence: Evidence, _rules: TrialRules, now: datetime) -> Judgement | None:  # (5)
    answer = evidence.answer
    if answer is not None and answer.reachable and answer.ready:
        return None
    said = answer.message if answer is not None and answer.message else "the pod has not been asked yet"
    return Judgement(Result.WAITING, "NoData", said, look_again_at=now + ASK_AGAIN)


def _probation(evidence: Evidence, rules: TrialRules, now: datetime) -> Judgement:  # (6)
    pod = evidence.pod
    if pod is None or pod.ready_since is None:
        return Judgement(Result.WAITING, "NoData", "the pod does not say since when it is ready")
    ends = pod.ready_since + rules.probation
    if now >= ends:
        return Judgement(Result.PASSED, "Passed", f"{evidence.node_name} passed its trial")
    return Judgement(
        Result.WAITING, "Probation", f"on probation until {ends.isoformat(timespec='seconds')}", ends
    )
