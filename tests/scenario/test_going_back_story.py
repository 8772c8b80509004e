"""The user goes back to the last version that was good: whatever nodes do meanwhile, it stays good."""

from __future__ import annotations

from edgemodel_operator.api.edgemodel_status import Quarantine
from support.builders import ModelBuilder, fleet, make_model
from support.simulator import Simulation, installed


def release(version: str) -> ModelBuilder:
    return make_model(version).with_waves(1, "100%").probation(10)


def all_serve(simulation: Simulation, version: str) -> bool:
    return all(simulation.serving(name) == {version} for name in simulation.cluster.nodes)


def test_a_pod_of_the_good_version_that_was_restarted_long_ago_is_not_tried_again() -> None:
    simulation = installed(release("v1"), fleet(4))
    for name in simulation.cluster.nodes:
        simulation.power_cycle(name)
    simulation.run_to_rest()
    simulation.apply(release("v2").with_waves("100%"))
    simulation.run_until(lambda: len(simulation.on_trial()) == 4)
    simulation.apply(release("v1"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.status.quarantined == ()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert simulation.cluster.gaps == []


def gone_back_and_lost() -> tuple[Simulation, str]:
    """Give a fleet that goes back to v1, of which a node that had passed v2 is lost in its trial of v1."""
    simulation = installed(release("v1"), fleet(4))
    simulation.apply(release("v2").with_waves(1, "100%", soak=1000))
    simulation.run_until(simulation.wave_completed)
    (passed,) = [name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "")]
    simulation.apply(release("v1"))
    simulation.run_until(lambda: simulation.labels(passed) == ("v2", "v1"))
    simulation.run_for(8)
    simulation.cut(passed)
    simulation.run_to_rest()
    return simulation, passed


def test_a_node_lost_on_the_way_back_counts_alone_and_condemns_nothing() -> None:
    simulation, lost = gone_back_and_lost()
    assert simulation.status.quarantined == ()
    assert simulation.status.current_revision == simulation.status.last_known_good
    assert simulation.node_states() == {lost: "Failed"}
    simulation.restore(lost)
    simulation.run_to_rest()
    others = set(simulation.cluster.nodes) - {lost}
    assert all(simulation.serving(name) == {"v1"} for name in others)
    assert simulation.serving(lost) == {"v2"}
    assert simulation.condition("Stalled").status == "False"
    assert simulation.cluster.gaps == []


def test_a_version_that_failed_before_is_asked_for_again_and_moves_nothing() -> None:
    simulation = installed(release("v1"), fleet(3))
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(release("v2"))
    simulation.run_to_rest()
    simulation.apply(release("v1"))
    simulation.run_to_rest()
    labels = {name: simulation.labels(name) for name in simulation.cluster.nodes}
    assert set(labels.values()) == {("v1", "")}
    simulation.apply(release("v2"))
    simulation.run_to_rest()
    assert {name: simulation.labels(name) for name in simulation.cluster.nodes} == labels
    assert all_serve(simulation, "v1")
    assert simulation.condition("Stalled").status == "True"
    assert simulation.cluster.gaps == []


def test_a_good_version_that_a_status_condemns_is_good_again() -> None:
    simulation = installed(release("v1"), fleet(2))
    good = simulation.status.last_known_good
    condemned = Quarantine(revision=good, reason="Restarted", message="edge-1: it restarted")
    simulation.status = simulation.status.model_copy(update={"quarantined": (condemned,)})
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.status.quarantined == ()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert simulation.cluster.gaps == []


def test_what_replaces_a_condemned_version_need_only_be_ready_also_where_its_node_is_lost() -> None:
    simulation = installed(release("v1"), fleet(3))
    simulation.apply(release("v2").with_waves(2, "100%"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    simulation.cluster.behavior[f"v2@{simulation.on_trial()[0]}"] = "GoldenMismatch"
    simulation.run_until(
        lambda: any(simulation.labels(name) == ("v2", "v1") for name in simulation.cluster.nodes)
    )
    back = next(name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "v1"))
    simulation.apply(release("v1"))
    simulation.run_for(3)
    simulation.cut(back)
    simulation.run_for(60)
    simulation.restore(back)
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.condition("Stalled").status == "False"
    assert simulation.cluster.gaps == []
