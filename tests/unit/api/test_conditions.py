"""Conditions: how a new set follows from the old one."""

from __future__ import annotations

from edgemodel_operator.api.conditions import (
    Condition,
    ConditionStatus,
    ConditionType,
    Finding,
    merge_conditions,
)
from edgemodel_operator.api.names import CONDITION_MESSAGE_LIMIT

EARLIER, LATER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def finding(kind: ConditionType, status: ConditionStatus, reason: str = "Some", message: str = "") -> Finding:
    return Finding(type=kind, status=status, reason=reason, message=message)


READY = finding(ConditionType.READY, ConditionStatus.TRUE)
NOT_READY = finding(ConditionType.READY, ConditionStatus.FALSE)


def merged(old: tuple[Condition, ...], *findings: Finding, generation: int = 1) -> tuple[Condition, ...]:
    return merge_conditions(old, findings, generation=generation, now=LATER if old else EARLIER)


def test_the_time_moves_when_the_status_flips() -> None:
    (condition,) = merged(merged((), READY), NOT_READY)
    assert condition.last_transition_time == LATER


def test_the_time_stays_when_only_reason_message_or_generation_change() -> None:
    changed = finding(ConditionType.READY, ConditionStatus.TRUE, "Other", "another sentence")
    (condition,) = merged(merged((), READY), changed, generation=7)
    assert condition.last_transition_time == EARLIER
    assert (condition.reason, condition.message, condition.observed_generation) == (
        "Other",
        "another sentence",
        7,
    )


def test_a_condition_that_nobody_speaks_of_is_dropped() -> None:
    assert merged(merged((), READY)) == ()


def test_the_order_is_that_in_which_a_model_passes_them() -> None:
    findings = [finding(kind, ConditionStatus.UNKNOWN) for kind in reversed(ConditionType)]
    assert [item.type for item in merged((), *findings)] == [kind.value for kind in ConditionType]


def test_a_long_message_is_cut_to_the_bound() -> None:
    text = "x" * (CONDITION_MESSAGE_LIMIT + 1)
    (condition,) = merged((), finding(ConditionType.READY, ConditionStatus.TRUE, message=text))
    assert len(condition.message) == CONDITION_MESSAGE_LIMIT
    assert condition.message.endswith("…")


def test_merging_twice_changes_nothing() -> None:
    once = merged((), READY, finding(ConditionType.STALLED, ConditionStatus.FALSE))
    assert merged(once, READY, finding(ConditionType.STALLED, ConditionStatus.FALSE)) == once
