"""A deleted model leaves no label and no DaemonSet, whenever it is deleted."""

from __future__ import annotations

import pytest

from support.builders import NPU_RESOURCE, fleet, make_class, make_model
from support.simulator import Simulation, installed, model_labels, start


def updating(sharing: str) -> Simulation:
    nodes = [node.offering(NPU_RESOURCE, 1 if sharing == "Exclusive" else 2) for node in fleet(3)]
    classes = {"npu": make_class(sharing=sharing)}
    simulation = installed(make_model("v1").on("npu").probation(5), nodes, classes=classes)
    simulation.cut("edge-3")
    simulation.apply(make_model("v2").on("npu").probation(5))
    return simulation


def require_nothing_left(simulation: Simulation) -> None:
    assert simulation.gone
    assert model_labels(simulation) == []
    assert simulation.cluster.daemon_sets() == {}
    simulation.restore(*simulation.cluster.nodes)
    simulation.cluster.settle()
    while simulation.cluster.next_event() is not None:
        simulation.cluster.now = simulation.cluster.next_event() or simulation.now
        simulation.cluster.settle()
    assert simulation.cluster.pods == []


@pytest.mark.parametrize("sharing", ["Shared", "Exclusive"])
def test_deletion_at_any_moment_of_a_rollout(sharing: str) -> None:
    rollout = updating(sharing)
    for moment in range(100):
        if rollout.wave() >= 0 and rollout.condition_reason("Ready") == "NodesDeferred":
            assert moment > 20
            return
        simulation = rollout.copy()
        simulation.delete()
        simulation.run_until(lambda: simulation.gone, limit=100)  # noqa: B023 - called within the loop
        require_nothing_left(simulation)
        rollout.step()
    raise AssertionError(f"the rollout did not end: {rollout.summary()}")


def test_deletion_before_the_first_pass() -> None:
    simulation = start(make_model("v1"), fleet(1))
    simulation.delete()
    simulation.run_until(lambda: simulation.gone, limit=10)
    require_nothing_left(simulation)


def test_deletion_survives_a_kill_after_any_action() -> None:
    for kill_after in range(6):
        simulation = updating("Shared")
        simulation.run_for(7)
        simulation.delete()
        simulation.run_pass(kill_after=kill_after)
        assert not simulation.gone
        simulation.run_until(lambda: simulation.gone, limit=100)  # noqa: B023 - called within the loop
        require_nothing_left(simulation)


def test_the_finalizer_is_there_before_the_first_label() -> None:
    simulation = start(make_model("v1"), fleet(1))
    simulation.watchers.append(require_finalizer)
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v1"}


def require_finalizer(simulation: Simulation) -> None:
    assert simulation.has_finalizer or not model_labels(simulation)
