"""Report: the status if it changed, then events about what changed in it, then metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.conditions import ConditionStatus, ConditionType
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.core.chain import LINKS, RUNNING_REASONS
from edgemodel_operator.core.world import Model
from edgemodel_operator.reconcile.ports import Ports

log = logging.getLogger(__name__)

ALARMING = frozenset({"RolledBack", "RolloutStopped", "NodesFailed", "RevisionQuarantined"})
CHAIN = frozenset({*LINKS, ConditionType.PLACED, ConditionType.REGISTRY_CLEAN})
"""Conditions that do not hold because of some failure, unless somebody is at work on them."""
AT_WORK = frozenset({*RUNNING_REASONS.values(), "Verifying"})
TOLD = frozenset(
    {
        ConditionType.SOURCE_RESOLVED,
        ConditionType.BUILT,
        ConditionType.SIGNED,
        ConditionType.TRUSTED,
        ConditionType.PLACED,
        ConditionType.PROGRESSING,
        ConditionType.READY,
        ConditionType.REGISTRY_CLEAN,
    }
)
"""Conditions whose changes are worth an event. Stalled repeats the reason of the one that caused it."""


@dataclass(frozen=True)
class Notice:
    """An event to be recorded."""

    kind: str
    reason: str
    message: str


async def publish(model: Model, raw: Mapping[str, Any], status: EdgeModelStatus, ports: Ports) -> None:
    """Write the status; only when that worked, tell about it."""
    if status != model.status:
        await ports.cluster.write_status(model.namespace, model.name, status)
    for notice in notices(model.status, status):
        await _emit(raw, notice, ports)
    _count(model.status, status, ports.metrics)
    ports.metrics.observe_status(model.namespace, model.name, status)


async def _emit(raw: Mapping[str, Any], notice: Notice, ports: Ports) -> None:
    try:
        await ports.cluster.emit(raw, notice.kind, notice.reason, notice.message)
    except KubeError as error:
        # An event is a courtesy: the condition says the same and stays.
        log.warning("an event could not be recorded: %s", error)


def notices(old: EdgeModelStatus, new: EdgeModelStatus) -> Iterator[Notice]:
    """Give one event for each condition whose status or reason changed, each reason once."""
    before = {condition.type: (condition.status, condition.reason) for condition in old.conditions}
    told: set[str] = set()
    for condition in new.conditions:
        same = before.get(condition.type) == (condition.status, condition.reason)
        quiet = condition.type not in TOLD or condition.status is ConditionStatus.UNKNOWN
        if same or quiet or condition.reason in told:
            continue
        told.add(condition.reason)
        failed = condition.type in CHAIN and condition.status is ConditionStatus.FALSE
        is_warning = (failed and condition.reason not in AT_WORK) or condition.reason in ALARMING
        kind = "Warning" if is_warning else "Normal"
        yield Notice(kind, condition.reason, condition.message)


def _count(old: EdgeModelStatus, new: EdgeModelStatus, metrics: Metrics) -> None:
    if new.rollout is None:
        return
    before = old.rollout if old.rollout and old.rollout.revision == new.rollout.revision else None
    if before is None:
        metrics.rollouts.labels("started").inc()
    if new.rollout.completed_at and not (before and before.completed_at):
        metrics.rollouts.labels("completed").inc()
    if len(new.quarantined) > len(old.quarantined):
        metrics.rollouts.labels("rolled_back").inc()
    reasons = {condition.reason for condition in new.conditions}
    if "RolloutStopped" in reasons - {condition.reason for condition in old.conditions}:
        metrics.rollouts.labels("stopped").inc()
