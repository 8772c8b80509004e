"""Events follow from the change of the status: each said once, warnings where somebody should look."""

from __future__ import annotations

from edgemodel_operator.api.conditions import ConditionStatus, ConditionType, Finding, merge_conditions
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.reconcile.publish import Notice, notices

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def status(*findings: tuple[ConditionType, ConditionStatus, str]) -> EdgeModelStatus:
    made = [
        Finding(type=kind, status=value, reason=reason, message=reason) for kind, value, reason in findings
    ]
    return EdgeModelStatus(conditions=merge_conditions((), made, generation=1, now="2026-01-01T00:00:00Z"))


def test_nothing_is_said_when_nothing_changed() -> None:
    same = status((ConditionType.READY, TRUE, "AllNodesUpdated"))
    assert list(notices(same, same)) == []


def test_a_changed_reason_is_said_once_though_several_conditions_give_it() -> None:
    new = status(
        (ConditionType.BUILT, FALSE, "RegistryUnavailable"),
        (ConditionType.PROGRESSING, TRUE, "RegistryUnavailable"),
        (ConditionType.READY, FALSE, "RegistryUnavailable"),
    )
    assert [notice.reason for notice in notices(EdgeModelStatus(), new)] == ["RegistryUnavailable"]


def test_what_stalls_is_a_warning() -> None:
    new = status(
        (ConditionType.SIGNED, FALSE, "SigningKeyNotFound"),
        (ConditionType.READY, FALSE, "SigningKeyNotFound"),
        (ConditionType.STALLED, TRUE, "SigningKeyNotFound"),
    )
    assert list(notices(EdgeModelStatus(), new)) == [
        Notice("Warning", "SigningKeyNotFound", "SigningKeyNotFound")
    ]


def test_a_rollback_is_a_warning_and_progress_is_not() -> None:
    begun = status((ConditionType.PROGRESSING, TRUE, "RollingOut"))
    back = status((ConditionType.PROGRESSING, FALSE, "RolledBack"))
    assert [notice.kind for notice in notices(EdgeModelStatus(), begun)] == ["Normal"]
    assert [notice.kind for notice in notices(begun, back)] == ["Warning"]


def test_what_is_not_known_yet_is_not_said() -> None:
    new = status((ConditionType.TRUSTED, UNKNOWN, "Waiting"))
    assert list(notices(EdgeModelStatus(), new)) == []
