"""Nodes that go away: whose fault it is decides what follows."""

from __future__ import annotations

from support.builders import ModelBuilder, fleet, make_model
from support.simulator import Simulation, installed, start


def three_waves(version: str) -> ModelBuilder:
    return make_model(version).with_waves(1, "50%", "100%").probation(10)


def test_a_node_offline_before_it_is_touched_is_deferred_and_comes_straight_to_the_newest() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.cut("edge-2")
    seen: set[str] = set()
    simulation.watchers.append(lambda now: seen.update(now.labels("edge-2")))
    for version in ("v2", "v3"):
        simulation.apply(three_waves(version))
        simulation.run_to_rest()
        assert simulation.condition("Ready").status == "True"
        assert simulation.condition("Ready").reason == "NodesDeferred"
        assert simulation.node_states() == {"edge-2": "Deferred"}
    simulation.restore("edge-2")
    simulation.run_to_rest()
    assert seen == {"v1", "v3", ""}
    assert simulation.serving("edge-2") == {"v3"}
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert simulation.cluster.gaps == []


def test_the_objects_of_the_version_that_an_offline_node_runs_are_kept() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    old = simulation.status.current_revision
    simulation.cut("edge-2")
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert any(old in name for name in simulation.cluster.daemon_sets())
    assert old in [revision.name for revision in simulation.status.revisions]
    simulation.restore("edge-2")
    simulation.run_to_rest()
    assert not any(old in name for name in simulation.cluster.daemon_sets())
    assert old not in [revision.name for revision in simulation.status.revisions]


def touched(simulation: Simulation) -> list[str]:
    return [name for name in simulation.cluster.nodes if simulation.labels(name)[1] == "v2"]


def test_a_node_lost_before_its_kubelet_took_the_pod_is_deferred() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: bool(touched(simulation)))
    (victim,) = touched(simulation)
    simulation.cut(victim)
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "NodesDeferred"
    assert simulation.labels(victim) == ("v1", "")
    assert simulation.status.rollout is not None
    assert simulation.status.rollout.failed == ()
    simulation.restore(victim)
    simulation.run_to_rest()
    assert simulation.serving(victim) == {"v2"}


def test_a_node_lost_on_probation_counts_as_failed() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: bool(touched(simulation)))
    (victim,) = touched(simulation)
    simulation.run_for(8)
    simulation.cut(victim)
    simulation.run_to_rest()
    assert [item.reason for item in simulation.status.quarantined] == ["NodeLost"]
    assert simulation.labels(victim) == ("v1", "")


def test_a_node_lost_after_it_passed_stays_updated() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1)
    simulation.cut(*(name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "")))
    simulation.run_to_rest()
    assert simulation.status.quarantined == ()
    assert simulation.status.nodes.updated == 4
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert simulation.condition("Ready").message == ("all 4 nodes are updated, 3 answer with this revision")


def test_first_install_waits_for_the_first_node_to_come_online() -> None:
    simulation = start(three_waves("v1"), [node.offline() for node in fleet(3)])
    simulation.run_to_rest()
    assert simulation.condition("Progressing").reason == "NodesOffline"
    assert simulation.condition("Ready").status == "False"
    assert simulation.status.last_known_good == ""
    simulation.restore("edge-1")
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "NodesDeferred"
    simulation.restore("edge-2", "edge-3")
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_an_update_waits_while_every_node_is_offline() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    good = simulation.status.last_known_good
    simulation.cut(*simulation.cluster.nodes)
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert simulation.condition("Ready").status == "False"
    assert simulation.status.last_known_good == good
    simulation.restore(*simulation.cluster.nodes)
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_node_offline_during_a_rollback_never_meets_what_failed() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.cut("edge-1")
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    simulation.restore("edge-1")
    simulation.run_to_rest()
    assert simulation.serving("edge-1") == {"v1"}
    assert not any(pod.version == "v2" for pod in simulation.cluster.pods)


def test_a_node_that_flaps_before_it_is_reached_is_never_counted() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.apply(three_waves("v2").with_waves("100%"))
    for _ in range(10):
        simulation.cut("edge-1")
        simulation.run_for(0.6)
        simulation.restore("edge-1")
        simulation.run_for(0.6)
    simulation.run_to_rest()
    assert simulation.status.quarantined == ()
    assert simulation.serving("edge-1") == {"v2"}
    assert simulation.cluster.gaps == []


def test_the_deadline_counts_from_the_touch_also_after_a_long_soak_and_a_kill() -> None:
    slow = three_waves("v2").with_waves(1, "100%", soak=5000).deadline(30)
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.apply(slow)
    simulation.run_until(lambda: simulation.wave() == 1)
    simulation.cluster.controller_runs = False
    for _ in range(4):
        simulation.run_pass_and_die()
    assert len(touched(simulation)) == 1
    simulation.run_for(5)
    assert simulation.status.quarantined == ()
    simulation.cluster.controller_runs = True
    simulation.run_until(lambda: simulation.condition_reason("Ready") == "AllNodesUpdated")


def test_a_daemon_set_that_a_person_deletes_comes_back_for_every_node_that_needs_it() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    (old,) = simulation.cluster.daemon_sets()
    simulation.cut("edge-1")
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    simulation.cluster.delete("DaemonSet", old)
    simulation.run_to_rest()
    assert old in simulation.cluster.daemon_sets()


def test_a_node_that_comes_back_after_a_rollback_goes_on_answering() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    (away,) = [name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "")]
    simulation.cut(away)
    simulation.cluster.behavior[f"v2@{simulation.on_trial()[0]}"] = "GoldenMismatch"
    simulation.run_to_rest()
    simulation.restore(away)
    simulation.run_to_rest()
    assert simulation.serving(away) == {"v1"}
    assert simulation.cluster.gaps == []
