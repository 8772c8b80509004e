"""What the operator's metrics say of one model, and that they forget it."""

from __future__ import annotations

import pytest

from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.conditions import Condition, ConditionStatus, ConditionType
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, NodeCounts, RolloutStatus

MODEL = {"namespace": "plant-a", "model": "line"}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, MODEL | labels)


def status(**fields: object) -> EdgeModelStatus:
    return EdgeModelStatus.model_validate(fields)


@pytest.mark.parametrize(
    ("stalled", "want"),
    [(ConditionStatus.TRUE, 1), (ConditionStatus.FALSE, 0), (ConditionStatus.UNKNOWN, 0), (None, 0)],
)
def test_a_model_that_waits_for_a_person_is_named(stalled: ConditionStatus | None, want: int) -> None:
    metrics = Metrics()
    ready = Condition(
        type=ConditionType.READY, status=ConditionStatus.TRUE, reason="AllReady", last_transition_time="t"
    )
    conditions = [ready]
    if stalled is not None:
        conditions.append(ready.model_copy(update={"type": ConditionType.STALLED, "status": stalled}))
    metrics.observe_status("plant-a", "line", status(conditions=conditions))
    assert value(metrics, "edgemodel_stalled") == want


def test_the_state_of_a_model_is_shown_and_forgotten_with_it() -> None:
    metrics = Metrics()
    rollout = RolloutStatus(revision="r2", wave=1)
    nodes = NodeCounts(updated=3, failed=1, ready=4)
    metrics.observe_status("plant-a", "line", status(nodes=nodes, rollout=rollout))
    metrics.observe_status("plant-a", "other", status())
    assert value(metrics, "edgemodel_nodes", state="Updated") == 3
    assert value(metrics, "edgemodel_nodes", state="Failed") == 1
    assert value(metrics, "edgemodel_ready_nodes") == 4
    assert value(metrics, "edgemodel_rollout_wave") == 2
    metrics.forget("plant-a", "line")
    metrics.forget("plant-a", "line")
    left = {
        sample.labels["model"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if "model" in sample.labels
    }
    assert left == {"other"}
