"""Rollouts that go well: waves, surge, changes on the way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from support.builders import ModelBuilder, fleet, make_model, make_node
from support.simulator import Simulation, installed, start


def three_waves(version: str) -> ModelBuilder:
    return make_model(version).with_waves(1, "50%", "100%").probation(10)


def all_serve(simulation: Simulation, version: str) -> bool:
    return all(simulation.serving(name) == {version} for name in simulation.cluster.nodes)


def test_first_install_goes_in_waves_and_soaks_after_each() -> None:
    simulation = start(three_waves("v1").with_waves(1, "50%", "100%", soak=60), fleet(4))
    touched: dict[int, set[int]] = {}
    simulation.watchers.append(
        lambda now: touched.setdefault(now.status.rollout.wave if now.status.rollout else 0, set()).add(
            sum(any(now.labels(name)) for name in now.cluster.nodes)
        )
    )
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert [max(touched[wave]) for wave in range(3)] == [1, 2, 4]
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    rollout = simulation.status.rollout
    assert rollout is not None
    assert rollout.completed_at > rollout.started_at
    soaks = timedelta(seconds=3 * 60)
    assert simulation.history[-1].last_known_good == simulation.status.current_revision
    assert simulation.now - simulation.cluster.pods[0].created > soaks


def test_waves_without_soak_follow_each_other_at_once() -> None:
    simulation = start(three_waves("v1"), fleet(4))
    begun = simulation.now
    simulation.run_until(lambda: simulation.condition_reason("Ready") == "AllNodesUpdated")
    assert simulation.now - begun < timedelta(seconds=90)


def test_new_version_never_leaves_a_node_without_an_answer() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert simulation.cluster.gaps == []
    assert len({document["metadata"]["name"] for document in daemon_sets(simulation)}) == 1


def require_answers(simulation: Simulation) -> None:
    for node in simulation.cluster.nodes.values():
        if node.ready:
            assert simulation.serving(node.name), f"{node.name} does not answer: {simulation.summary()}"


def daemon_sets(simulation: Simulation) -> list[dict[str, dict[str, str]]]:
    return [item for (kind, _), item in simulation.cluster.objects.items() if kind == "DaemonSet"]


def test_new_version_on_a_one_node_cluster() -> None:
    simulation = installed(make_model("v1").probation(5), fleet(1))
    simulation.watchers.append(require_answers)
    simulation.apply(make_model("v2").probation(5))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


@pytest.mark.parametrize("waves", [("100%",), (50,), (1, 50), ("1%", "99%"), (2,)])
def test_any_waves_end_with_every_node_updated(waves: tuple[int | str, ...]) -> None:
    simulation = installed(make_model("v1").with_waves(*waves).probation(5), fleet(5))
    simulation.apply(make_model("v2").with_waves(*waves).probation(5))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_nothing_moves_while_paused_and_resuming_goes_on() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=100))
    simulation.run_until(lambda: simulation.wave() == 0 and simulation.wave_completed())
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=100).paused())
    simulation.run_for(1000)
    assert sum(simulation.serving(name) == {"v2"} for name in simulation.cluster.nodes) == 1
    assert simulation.condition("Progressing").reason == "Paused"
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=100))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


def test_a_trial_under_way_finishes_while_paused() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: ("v1", "v2") in map(simulation.labels, simulation.cluster.nodes))
    simulation.apply(three_waves("v2").paused())
    simulation.run_to_rest()
    assert sorted(map(simulation.labels, simulation.cluster.nodes)) == [("v1", ""), ("v2", "")]


def test_paused_before_the_first_node() -> None:
    simulation = start(three_waves("v1").paused(), fleet(2))
    simulation.run_to_rest()
    assert not any(map(simulation.serving, simulation.cluster.nodes))
    assert simulation.condition("Progressing").reason == "Paused"


def test_newer_spec_in_the_middle_of_a_wave_replaces_the_older_one() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    simulation.apply(three_waves("v3"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v3")
    assert simulation.cluster.gaps == []


def test_newer_spec_during_the_first_install_never_takes_away_an_answering_pod() -> None:
    simulation = start(three_waves("v1").with_waves("100%"), fleet(3))
    simulation.run_until(lambda: all_serve(simulation, "v1"))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=300))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert simulation.cluster.gaps == []


def test_going_back_to_the_version_before_in_the_middle_of_a_rollout() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    simulation.apply(three_waves("v1"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_a_node_that_joins_gets_the_stable_version_until_its_wave() -> None:
    slow = three_waves("v2").with_waves(1, "100%", soak=1000)
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.apply(slow)
    simulation.run_until(simulation.wave_completed)
    simulation.join(make_node("late"))
    simulation.run_for(100)
    assert simulation.serving("late") == {"v1"}
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


def test_a_node_that_joins_after_the_rollout_gets_the_model() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.join(make_node("late"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.status.nodes.summary == "3/3"


def test_a_node_that_leaves_the_selector_loses_its_labels_and_pods() -> None:
    model = three_waves("v1").selecting(line="4")
    nodes = [make_node(f"edge-{number}").labelled(line="4") for number in (1, 2)]
    simulation = installed(model, [*nodes, make_node("other")])
    assert simulation.serving("other") == set()
    simulation.change("edge-2", labels={**simulation.cluster.nodes["edge-2"].labels, "line": "5"})
    simulation.run_to_rest()
    assert simulation.labels("edge-2") == ("", "")
    assert simulation.serving("edge-2") == set()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert simulation.status.nodes.total == 1


def test_a_node_that_disappears_in_its_trial_does_not_hold_up_the_others() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: bool(simulation.on_trial()))
    simulation.remove(simulation.on_trial()[0])
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert len(simulation.cluster.nodes) == 3


def test_reports_say_where_every_node_stands() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: bool(simulation.on_trial()))
    simulation.run_for(3)
    assert sorted(simulation.node_states().values()) == ["Pending", "Pending", "Trial"]
    counts = simulation.status.nodes
    assert (counts.total, counts.ready, counts.trial, counts.pending) == (3, 3, 1, 2)


def test_a_node_that_stops_answering_in_the_soak_holds_the_wave() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=60))
    simulation.run_until(simulation.wave_completed)
    (updated,) = [name for name in simulation.cluster.nodes if simulation.serving(name) == {"v2"}]
    simulation.crash(updated)
    simulation.run_for(500)
    assert simulation.wave() == 0
    assert not simulation.on_trial()

    simulation.power_cycle(updated)
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
