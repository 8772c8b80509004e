"""Rollouts that go wrong: what is bad goes away, what is good stays."""

from __future__ import annotations

import pytest

from support.builders import ModelBuilder, fleet, make_model, make_node
from support.simulated_cluster import KILLS_NODE, NEVER_READY, RESTARTS, SILENT
from support.simulator import Simulation, installed, model_labels, start


def three_waves(version: str) -> ModelBuilder:
    return make_model(version).with_waves(1, "50%", "100%").probation(10)


def all_serve(simulation: Simulation, version: str) -> bool:
    return all(simulation.serving(name) == {version} for name in simulation.cluster.nodes)


def require_answers(simulation: Simulation) -> None:
    for node in simulation.cluster.nodes.values():
        if node.ready:
            assert simulation.serving(node.name), f"{node.name} does not answer: {simulation.summary()}"


@pytest.mark.parametrize(
    ("behavior", "want_reason"),
    [
        ("GoldenMismatch", "GoldenMismatch"),
        ("ProviderMismatch", "ProviderMismatch"),
        ("FileDigestMismatch", "FileDigestMismatch"),
        ("LoadFailed", "LoadFailed"),
        (NEVER_READY, "ProgressDeadlineExceeded"),
        (RESTARTS, "Restarted"),
    ],
)
def test_a_bad_version_is_rolled_back_and_never_tried_again(behavior: str, want_reason: str) -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.watchers.append(require_answers)
    simulation.cluster.behavior["v2"] = behavior
    touched: set[str] = set()
    simulation.watchers.append(
        lambda now: touched.update(name for name in now.cluster.nodes if "v2" in now.labels(name))
    )
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert len(touched) == 1
    assert [item.reason for item in simulation.status.quarantined] == [want_reason]
    assert simulation.condition("Progressing").reason == "RolledBack"
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"
    assert simulation.condition("Ready").status == "False"
    assert simulation.status.version == "v1"
    touched.clear()
    simulation.watchers.remove(require_answers)
    simulation.join(make_node("late"))
    simulation.apply(three_waves("v2").probation(20))
    simulation.run_to_rest()
    assert touched == set()
    assert all_serve(simulation, "v1")


def test_a_failure_in_a_later_wave_takes_the_version_off_every_node() -> None:
    simulation = installed(three_waves("v1"), fleet(6))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    victim = simulation.on_trial()[0]
    simulation.cluster.behavior[f"v2@{victim}"] = "GoldenMismatch"
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.cluster.gaps == []


def test_silence_never_passes() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.cluster.behavior["v2"] = SILENT
    simulation.apply(three_waves("v2"))
    simulation.run_for(1500)
    assert simulation.status.last_known_good != simulation.status.target_revision
    assert sorted(map(simulation.labels, simulation.cluster.nodes)) == [("v1", ""), ("v1", "v2")]
    assert simulation.status.nodes.trial == 1


def test_a_node_lost_after_its_kubelet_took_the_pod_counts_as_failed() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.cluster.behavior["v2"] = KILLS_NODE
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert [item.reason for item in simulation.status.quarantined] == ["NodeLost"]
    lost = [node.name for node in simulation.cluster.nodes.values() if not node.ready]
    assert len(lost) == 1
    simulation.cluster.behavior.clear()
    simulation.restore(*lost)
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")


def test_with_two_failures_allowed_the_first_node_alone_goes_back() -> None:
    simulation = installed(three_waves("v1").max_failures(2), fleet(4))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2").max_failures(2))
    simulation.run_until(lambda: bool(simulation.on_trial()))
    victim = simulation.on_trial()[0]
    simulation.cluster.behavior[f"v2@{victim}"] = "GoldenMismatch"
    simulation.run_to_rest()
    others = set(simulation.cluster.nodes) - {victim}
    assert all(simulation.serving(name) == {"v2"} for name in others)
    assert simulation.serving(victim) == {"v1"}
    assert simulation.node_states() == {victim: "Failed"}
    assert simulation.condition("Ready").reason == "NodesFailed"
    assert simulation.status.quarantined == ()


@pytest.mark.parametrize("nodes", [1, 2, 4])
def test_a_version_that_fails_everywhere_is_stopped_whatever_is_allowed(nodes: int) -> None:
    simulation = installed(three_waves("v1").max_failures(3), fleet(nodes))
    simulation.watchers.append(require_answers)
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2").max_failures(3))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"


def test_on_failure_pause_leaves_all_for_a_person() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.watchers.append(require_answers)
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2").pausing_on_failure())
    simulation.run_to_rest()
    assert sorted(map(simulation.labels, simulation.cluster.nodes)) == [("v1", ""), ("v1", ""), ("v1", "v2")]
    assert simulation.condition("Stalled").reason == "RolloutStopped"
    assert simulation.condition("Progressing").reason == "RolloutStopped"
    assert simulation.status.quarantined == ()
    simulation.apply(three_waves("v3").pausing_on_failure())
    simulation.run_to_rest()
    assert all_serve(simulation, "v3")


def test_on_failure_pause_says_so_when_every_node_there_is_has_failed() -> None:
    simulation = installed(three_waves("v1"), fleet(2))
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2").max_failures(3).pausing_on_failure())
    simulation.run_to_rest()
    assert simulation.status.nodes.failed == 2
    assert simulation.condition("Stalled").reason == "RolloutStopped"
    assert simulation.condition("Progressing").reason == "RolloutStopped"


def test_first_install_that_fails_leaves_nothing_behind() -> None:
    simulation = start(three_waves("v1"), fleet(3))
    simulation.cluster.behavior["v1"] = "LoadFailed"
    simulation.run_to_rest()
    assert model_labels(simulation) == []
    assert simulation.cluster.pods == []
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"
    assert simulation.status.nodes.updated == 0
    assert simulation.status.nodes.ready == 0
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


def test_corrected_version_follows_a_rollback() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.watchers.append(require_answers)
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    simulation.apply(three_waves("v3"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v3")
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_going_back_by_hand_after_a_rollback_is_ready_again() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.cluster.behavior["v2"] = "GoldenMismatch"
    simulation.apply(three_waves("v2"))
    simulation.run_to_rest()
    simulation.apply(three_waves("v1"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


@pytest.mark.parametrize("next_version", ["v1", "v3"])
@pytest.mark.parametrize("passes", range(4))
def test_newer_spec_during_a_rollback_leaves_no_node_with_what_failed(passes: int, next_version: str) -> None:
    simulation = installed(three_waves("v1"), fleet(6))
    simulation.watchers.append(require_answers)
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 2 and bool(simulation.on_trial()))
    simulation.cluster.behavior[f"v2@{simulation.on_trial()[0]}"] = "GoldenMismatch"
    simulation.run_until(lambda: bool(simulation.status.quarantined))
    for _ in range(passes):
        simulation.step()
    simulation.apply(three_waves(next_version).with_waves(1, "100%", soak=10_000))
    simulation.run_for(1000)
    assert not any("v2" in simulation.labels(name) for name in simulation.cluster.nodes), simulation.summary()
    assert simulation.cluster.gaps == []
    simulation.run_until(lambda: simulation.condition_reason("Ready") == "AllNodesUpdated")
    assert all_serve(simulation, next_version)


def test_three_bad_versions_in_a_row_never_take_an_answer_away() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.watchers.append(require_answers)
    for version, behavior in (("v2", "LoadFailed"), ("v3", RESTARTS), ("v4", "GoldenMismatch")):
        simulation.cluster.behavior[version] = behavior
        simulation.apply(three_waves(version))
        simulation.run_for(17)
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.cluster.gaps == []


def test_a_rollback_that_fails_itself_stays_where_it_is() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.apply(three_waves("v2"))
    simulation.run_until(lambda: simulation.wave() == 1 and bool(simulation.on_trial()))
    simulation.cluster.behavior[f"v2@{simulation.on_trial()[0]}"] = "GoldenMismatch"
    simulation.cluster.behavior["v1"] = NEVER_READY
    simulation.run_for(20)
    passes = simulation.passes
    simulation.run_for(3600)
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"
    assert simulation.passes - passes < 3600
    assert [name for name in simulation.cluster.nodes if simulation.serving(name) == {"v2"}]
    assert simulation.cluster.gaps == []


def test_a_node_that_joined_into_a_silent_trial_gets_what_is_good_until_the_next_wave() -> None:
    simulation = installed(three_waves("v1"), fleet(3))
    simulation.cluster.behavior["v2@new"] = NEVER_READY
    simulation.apply(three_waves("v2").with_waves("100%").probation(60))
    simulation.run_until(lambda: bool(simulation.on_trial()))
    simulation.join(make_node("new"))
    simulation.run_until(lambda: any(pod.running and pod.node == "new" for pod in simulation.cluster.pods))
    assert simulation.labels("new") == ("", "v2")
    simulation.apply(three_waves("v3").with_waves(1, "100%", soak=1000))
    simulation.run_until(simulation.wave_completed)
    simulation.run_for(30)
    assert simulation.labels("new") == ("v1", "")
    assert simulation.serving("new") == {"v1"}


def test_a_node_that_passed_and_breaks_is_named_and_then_counts_as_failed() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=30).deadline(60))
    simulation.run_until(simulation.wave_completed)
    (passed,) = [name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "")]
    simulation.crash(passed)
    simulation.run_for(50)
    reports = {report.name: report.reason for report in simulation.status.node_reports}
    assert reports[passed] == "NotAnswering"
    assert simulation.wave() == 0
    simulation.run_to_rest()
    assert [item.reason for item in simulation.status.quarantined] == ["NotAnswering"]
    assert all_serve(simulation, "v1")


def test_a_node_that_is_silent_for_a_moment_only_delays_the_wave() -> None:
    simulation = installed(three_waves("v1"), fleet(4))
    simulation.apply(three_waves("v2").with_waves(1, "100%", soak=30).deadline(60))
    simulation.run_until(simulation.wave_completed)
    (passed,) = [name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "")]
    simulation.power_cycle(passed)
    simulation.run_to_rest()
    assert simulation.status.rollout is not None
    assert simulation.status.rollout.silent == ()
    assert all_serve(simulation, "v2")
