"""Nodes that come after a rollout is complete: what is good on others may be bad on them."""

from __future__ import annotations

from dataclasses import replace

from support.builders import NPU_RESOURCE, ModelBuilder, fleet, make_class, make_model, make_node
from support.simulator import Simulation, installed


def release(version: str, *targets: str) -> ModelBuilder:
    return make_model(version).on(*(targets or ("cpu",))).with_waves(1, "50%", "100%").probation(10)


def updated_without(*away: str, count: int, exclusive: bool = False) -> Simulation:
    """Give a fleet that was updated from v1 to v2 while some of its nodes were offline."""
    nodes = [node.offering(NPU_RESOURCE) if exclusive else node for node in fleet(count)]
    targets = ("npu",) if exclusive else ()
    simulation = installed(release("v1", *targets), nodes, classes={"npu": make_class()})
    simulation.cut(*away)
    simulation.apply(release("v2", *targets))
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "NodesDeferred"
    return simulation


def recorded(simulation: Simulation) -> set[str]:
    return {item.model_version for item in simulation.status.revisions}


def test_an_exclusive_node_that_fails_late_goes_back_to_what_it_had() -> None:
    simulation = updated_without("edge-1", count=3, exclusive=True)
    simulation.cluster.behavior["v2@edge-1"] = "LoadFailed"
    simulation.restore("edge-1")
    simulation.run_until(lambda: simulation.labels("edge-1") == ("v2", "v2"))
    simulation.run_for(86_400)
    assert simulation.serving("edge-1") == {"v1"}
    assert simulation.labels("edge-1") == ("v1", "")
    assert simulation.node_states() == {"edge-1": "Failed"}
    assert simulation.condition("Ready").reason == "NodesFailed"
    assert simulation.status.quarantined == ()
    assert simulation.status.nodes.updated == 2


def test_what_was_good_before_is_kept_until_the_late_nodes_have_passed() -> None:
    simulation = updated_without("edge-1", count=3, exclusive=True)
    simulation.restore("edge-1")
    simulation.run_until(lambda: simulation.labels("edge-1") == ("v2", "v2"))
    assert recorded(simulation) == {"v1", "v2"}
    assert simulation.status.previous_good
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v2"}
    assert recorded(simulation) == {"v2"}
    assert simulation.status.previous_good == ""
    assert len(simulation.cluster.daemon_sets()) == 2  # It serves, and it fetches.


def test_a_site_that_comes_back_is_brought_in_in_waves() -> None:
    away = [f"edge-{number}" for number in range(2, 9)]
    simulation = updated_without(*away, count=8)
    trials: list[int] = []
    simulation.watchers.append(lambda now: trials.append(len(now.on_trial())))
    simulation.restore(*away)
    simulation.run_to_rest()
    assert all(simulation.serving(name) == {"v2"} for name in simulation.cluster.nodes)
    assert max(trials) == 4  # One of eight has it: at 50 % three more may, then the other four.
    assert simulation.cluster.gaps == []


def test_late_nodes_stop_when_as_many_failed_as_may_fail() -> None:
    away = [f"edge-{number}" for number in range(2, 9)]
    simulation = updated_without(*away, count=8)
    touched: set[str] = set()
    simulation.watchers.append(lambda now: touched.update(now.on_trial()))
    simulation.cluster.behavior.update({f"v2@{name}": "GoldenMismatch" for name in away})
    simulation.restore(*away)
    simulation.run_to_rest()
    assert len(touched) == 3
    assert all(simulation.serving(name) == {"v1"} for name in away)
    assert simulation.serving("edge-1") == {"v2"}
    assert simulation.status.quarantined == ()
    assert simulation.condition("Stalled").reason == "RolloutStopped"
    assert simulation.condition("Ready").status == "False"
    assert simulation.cluster.gaps == []
    simulation.apply(release("v3"))
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_late_node_that_restarts_once_is_tried_again() -> None:
    simulation = updated_without("edge-1", count=3)
    simulation.restore("edge-1")
    simulation.run_until(lambda: "v2" in simulation.serving("edge-1"))
    simulation.power_cycle("edge-1")
    simulation.run_for(600)
    assert simulation.labels("edge-1") == ("v1", "")
    assert simulation.serving("edge-1") == {"v1"}
    assert simulation.node_states() == {"edge-1": "Failed"}
    simulation.run_for(3600)
    assert simulation.serving("edge-1") == {"v2"}
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_node_that_replaces_one_that_failed_gets_its_own_trial() -> None:
    simulation = updated_without("edge-1", count=3)
    simulation.cluster.behavior["v2@edge-1"] = "LoadFailed"
    simulation.restore("edge-1")
    simulation.run_to_rest()
    assert simulation.node_states() == {"edge-1": "Failed"}
    simulation.cluster.behavior.clear()
    bare = make_node("edge-1").build()
    simulation.change("edge-1", uid="uid-of-another", labels=bare.labels)
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v2"}
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_failed_node_that_left_and_returned_is_tried_again() -> None:
    simulation = updated_without("edge-1", count=3)
    simulation.cluster.behavior["v2@edge-1"] = "LoadFailed"
    simulation.restore("edge-1")
    simulation.run_to_rest()
    node = simulation.cluster.nodes["edge-1"]
    simulation.remove("edge-1")
    simulation.run_for(60)
    simulation.cluster.behavior.clear()
    simulation.cluster.nodes["edge-1"] = replace(node, labels={})
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v2"}
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_node_that_failed_and_has_nothing_is_tried_again_a_day_later() -> None:
    simulation = installed(release("v1"), fleet(2))
    simulation.cluster.behavior["v1@new"] = "LoadFailed"
    simulation.join(make_node("new"))
    simulation.run_to_rest()
    assert simulation.labels("new") == ("", "")
    assert simulation.node_states() == {"new": "Failed"}
    simulation.cluster.behavior.clear()
    simulation.run_for(40_000)
    assert simulation.labels("new") == ("", "")
    simulation.run_for(90_000)
    assert simulation.serving("new") == {"v1"}
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
