"""The trial of one node: every rule, and which of two rules speaks first."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgemodel_operator.core.trial import FATAL_ANSWERS, Evidence, Result, TrialRules, judge
from edgemodel_operator.core.world import Answer, Pod

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RULES = TrialRules(probation=timedelta(seconds=30), deadline=timedelta(seconds=600))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


POD = Pod(
    name="pod",
    uid="uid",
    node="edge-1",
    revision="new",
    target="cpu",
    role="serve",
    created=ago(60),
    acknowledged=True,
    running=True,
    ready=True,
    ready_since=ago(30),
)
READY = Answer(reachable=True, ready=True)
PASSING = Evidence("edge-1", node_ready=True, pod=POD, answer=READY, touched_at=ago(60))


def judged(*, pod: dict[str, Any] | None = None, **changes: Any) -> tuple[Result, str]:
    evidence = replace(PASSING, **changes)
    if pod is not None:
        evidence = replace(evidence, pod=replace(POD, **pod))
    judgement = judge(evidence, RULES, NOW)
    return judgement.result, judgement.reason


def test_ready_for_the_whole_probation_passes() -> None:
    assert judged() == (Result.PASSED, "Passed")


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({"node_ready": False}, (Result.FAILED, "NodeLost")),
        ({"node_ready": False, "pod": {"acknowledged": False}}, (Result.DEFERRED, "OfflineBeforeTouched")),
        ({"pod": {"restarts": 1}}, (Result.FAILED, "Restarted")),
        ({"pod": {"ready": False, "created": ago(600)}}, (Result.FAILED, "ProgressDeadlineExceeded")),
        ({"pod": {"ready": False, "created": ago(599)}}, (Result.WAITING, "PodNotReady")),
        ({"pod": {"ready_since": ago(29)}}, (Result.WAITING, "Probation")),
        ({"pod": {"ready_since": None}}, (Result.WAITING, "NoData")),
        ({"answer": None}, (Result.WAITING, "NoData")),
        ({"answer": Answer(reachable=False)}, (Result.WAITING, "NoData")),
        ({"answer": Answer(reachable=True, ready=False)}, (Result.WAITING, "NoData")),
        ({"answer": Answer(reachable=True, reason="Starting")}, (Result.WAITING, "NoData")),
        ({"answer": Answer(reachable=False, reason="GoldenMismatch")}, (Result.WAITING, "NoData")),
        (
            {"node_ready": False, "pod": {"restarts": 3, "acknowledged": False}},
            (Result.DEFERRED, "OfflineBeforeTouched"),
        ),
    ],
)
def test_each_rule(changes: dict[str, Any], want: tuple[Result, str]) -> None:
    assert judged(**changes) == want


@pytest.mark.parametrize("reason", sorted(FATAL_ANSWERS))
def test_a_fatal_answer_fails_at_once_also_while_the_pod_is_not_ready(reason: str) -> None:
    answer = Answer(reachable=True, reason=reason, message="the evidence")
    assert judged(answer=answer, pod={"ready": False}) == (Result.FAILED, reason)


def test_without_a_pod_the_deadline_counts_from_the_touch() -> None:
    assert judged_without_pod(ago(599)) == (Result.WAITING, "PodNotReady")
    assert judged_without_pod(ago(600)) == (Result.FAILED, "ProgressDeadlineExceeded")


def judged_without_pod(touched_at: datetime) -> tuple[Result, str]:
    judgement = judge(replace(PASSING, pod=None, answer=None, touched_at=touched_at), RULES, NOW)
    return judgement.result, judgement.reason


def test_a_node_that_goes_offline_before_there_is_a_pod_is_deferred() -> None:
    evidence = replace(PASSING, pod=None, answer=None, node_ready=False)
    assert judge(evidence, RULES, NOW).result is Result.DEFERRED


@pytest.mark.parametrize(
    "evidence",
    [
        PASSING,
        replace(PASSING, answer=None),
        replace(PASSING, pod=replace(POD, ready_since=ago(1))),
        replace(PASSING, pod=replace(POD, ready=False)),
        replace(PASSING, pod=None),
    ],
)
def test_waiting_says_when_to_look_again(evidence: Evidence) -> None:
    judgement = judge(evidence, RULES, NOW)
    if judgement.result is Result.WAITING:
        assert judgement.look_again_at is not None
        assert judgement.look_again_at > NOW
    else:
        assert judgement.look_again_at is None


def test_a_pod_that_stays_unready_is_asked_again_soon() -> None:
    """Nothing in the cluster changes when a pod finds out that its answers are wrong: only asking tells."""
    unready = replace(PASSING, pod=replace(POD, ready=False), answer=Answer(reachable=False))
    again = judge(unready, RULES, NOW).look_again_at
    assert again is not None
    assert again - NOW <= timedelta(seconds=5)


def test_a_waiting_container_is_named_in_the_message() -> None:
    evidence = replace(PASSING, pod=replace(POD, ready=False, waiting="ImagePullBackOff"))
    assert "ImagePullBackOff" in judge(evidence, RULES, NOW).message
