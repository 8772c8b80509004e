"""Exclusive devices: the image is on the node before the old pod goes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from edgemodel_operator.api.names import ROLE_PREFETCH
from support.builders import NPU_RESOURCE, ModelBuilder, NodeBuilder, fleet, make_class, make_model, make_node
from support.simulated_cluster import NEVER_READY, PULL_FAILS
from support.simulator import Simulation, installed


def npu_model(version: str) -> ModelBuilder:
    return make_model(version).on("npu", "cpu").with_waves(1, "100%").probation(10)


def npu_fleet(count: int) -> list[NodeBuilder]:
    return [node.offering(NPU_RESOURCE) for node in fleet(count)]


def npu_installed(count: int = 3, **fields: object) -> Simulation:
    return installed(npu_model("v1"), npu_fleet(count), classes={"npu": make_class()})


def all_serve(simulation: Simulation, version: str) -> bool:
    return all(simulation.serving(name) == {version} for name in simulation.cluster.nodes)


def prefetching(simulation: Simulation) -> list[str]:
    return [
        pod.node for pod in simulation.cluster.pods if not pod.serves and pod.bound and not pod.terminating
    ]


def test_the_image_is_fetched_before_the_cut_over() -> None:
    simulation = npu_installed()

    def require_prefetch(now: Simulation) -> None:
        for name in now.cluster.nodes:
            if now.labels(name)[0] == "v2":
                fetched.add(name)
            elif name not in fetched:
                assert now.serving(name) == {"v1"}

    fetched: set[str] = set()
    simulation.watchers.append(require_prefetch)
    simulation.apply(npu_model("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert prefetching(simulation) == []
    assert simulation.condition("Ready").reason == "AllNodesUpdated"
    assert {gap.node for gap in simulation.cluster.gaps} == set(simulation.cluster.nodes)


def test_a_pod_never_waits_for_a_device_that_its_own_predecessor_holds() -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2"))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (node,) = prefetching(simulation)
    assert simulation.labels(node) == ("v1", "v2")
    assert [pod.version for pod in simulation.cluster.pods if pod.serves and pod.node == node] == ["v1"]
    simulation.run_until(lambda: simulation.labels(node) == ("v2", "v2"))
    assert prefetching(simulation) == []
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


@pytest.mark.parametrize("behavior", ["ProviderMismatch", NEVER_READY])
def test_what_fails_after_the_cut_over_goes_back(behavior: str) -> None:
    simulation = npu_installed()
    simulation.cluster.behavior["v2"] = behavior
    simulation.apply(npu_model("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert len({gap.node for gap in simulation.cluster.gaps}) == 1
    assert simulation.condition("Stalled").reason == "RevisionQuarantined"


def test_an_image_that_cannot_be_fetched_never_takes_the_device() -> None:
    simulation = npu_installed()
    simulation.cluster.behavior["v2"] = PULL_FAILS
    simulation.apply(npu_model("v2"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    assert simulation.cluster.gaps == []
    (quarantine,) = simulation.status.quarantined
    assert quarantine.reason == "ProgressDeadlineExceeded"
    assert "ImagePullBackOff" in quarantine.message


def test_a_pod_that_fetches_is_no_pod_that_answers() -> None:
    simulation = npu_installed(2)
    simulation.apply(npu_model("v2"))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (victim,) = prefetching(simulation)
    simulation.run_until(lambda: any(pod.running and not pod.serves for pod in simulation.cluster.pods))
    simulation.crash(victim)
    assert simulation.serving(victim) == set()
    simulation.run_pass()
    assert simulation.status.nodes.ready == 1
    assert simulation.condition("Available").reason == "PodsNotReady"


def test_a_plugin_that_is_silent_while_the_image_is_fetched_changes_nothing() -> None:
    simulation = installed(npu_model("v1").on("cpu"), npu_fleet(2), classes={"npu": make_class()})
    simulation.apply(npu_model("v2"))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (victim,) = prefetching(simulation)
    before = simulation.cluster.nodes[victim].labels
    simulation.change(victim, capacity={NPU_RESOURCE: 0})
    simulation.run_for(2)
    assert simulation.cluster.nodes[victim].labels == before
    assert simulation.labels(victim) == ("v1", "v2")
    simulation.change(victim, capacity={NPU_RESOURCE: 1})
    simulation.run_to_rest()
    assert {pod.labels["edgemodel.dev/target"] for pod in simulation.cluster.pods} == {"npu"}


def test_a_failed_node_goes_back_alone_where_more_may_fail() -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2").max_failures(2))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (victim,) = prefetching(simulation)
    simulation.cluster.behavior[f"v2@{victim}"] = "LoadFailed"
    simulation.run_to_rest()
    assert simulation.serving(victim) == {"v1"}
    assert simulation.node_states() == {victim: "Failed"}
    assert simulation.condition("Ready").reason == "NodesFailed"


def test_a_node_that_moves_to_another_target_goes_back_to_the_one_before() -> None:
    nodes = npu_fleet(3)
    on_cpu = npu_model("v1").on("cpu")
    simulation = installed(on_cpu, nodes, classes={"npu": make_class()})
    simulation.apply(npu_model("v2").max_failures(2))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (victim,) = prefetching(simulation)
    simulation.cluster.behavior[f"v2@{victim}"] = "ProviderMismatch"
    simulation.run_to_rest()
    assert simulation.serving(victim) == {"v1"}
    assert all(simulation.serving(name) == {"v2"} for name in set(simulation.cluster.nodes) - {victim})


def test_a_cut_over_after_a_long_absence_of_the_operator_has_its_whole_deadline() -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2").deadline(60))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (node,) = prefetching(simulation)
    while (event := simulation.cluster.next_event()) is not None:
        simulation.cluster.now = event
        simulation.cluster.settle()
    simulation.cluster.now += timedelta(minutes=15)
    simulation.cluster.controller_runs = False
    while simulation.labels(node) != ("v2", "v2"):
        simulation.run_pass()
    simulation.run_pass()
    simulation.cluster.controller_runs = True
    simulation.run_to_rest()
    assert simulation.status.quarantined == ()
    assert all_serve(simulation, "v2")


def test_newer_spec_while_the_image_is_fetched() -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2"))
    simulation.run_until(lambda: bool(prefetching(simulation)))
    (node,) = prefetching(simulation)
    simulation.apply(npu_model("v3"))
    simulation.run_to_rest()
    assert all_serve(simulation, "v3")
    assert len([gap for gap in simulation.cluster.gaps if gap.node == node]) == 1


@pytest.mark.parametrize("next_version", ["v1", "v3"])
def test_newer_spec_after_the_cut_over_keeps_what_answers(next_version: str) -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2"))
    simulation.run_until(lambda: any(simulation.serving(name) == {"v2"} for name in simulation.cluster.nodes))
    gaps = len(simulation.cluster.gaps)
    simulation.apply(npu_model(next_version).with_waves(1, "100%", soak=600))
    simulation.run_for(4)
    assert len(simulation.cluster.gaps) == gaps
    simulation.run_until(lambda: simulation.condition_reason("Ready") == "AllNodesUpdated")
    assert all_serve(simulation, next_version)


def test_a_node_lost_between_cut_over_and_start_is_deferred_to_what_it_had() -> None:
    simulation = npu_installed()
    simulation.apply(npu_model("v2"))
    simulation.run_until(
        lambda: any(simulation.labels(name) == ("v2", "v2") for name in simulation.cluster.nodes)
    )
    (victim,) = [name for name in simulation.cluster.nodes if simulation.labels(name) == ("v2", "v2")]
    simulation.cut(victim)
    simulation.run_to_rest()
    assert simulation.status.quarantined == ()
    assert simulation.labels(victim) == ("v1", "")
    simulation.restore(victim)
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")


def test_a_plugin_that_is_silent_for_a_moment_changes_nothing() -> None:
    simulation = npu_installed(2)
    before = simulation.labels("edge-1")
    simulation.change("edge-1", capacity={NPU_RESOURCE: 0})
    simulation.run_for(30)
    simulation.change("edge-1", capacity={NPU_RESOURCE: 1})
    simulation.run_to_rest()
    assert simulation.labels("edge-1") == before == ("v1", "")
    assert simulation.cluster.gaps == []
    assert [count.model_dump() for count in simulation.status.targets] == [{"accelerator": "npu", "nodes": 2}]


def test_a_node_without_the_device_takes_the_next_rung() -> None:
    simulation = installed(
        npu_model("v1"), [*npu_fleet(1), make_node("plain")], classes={"npu": make_class()}
    )
    targets = {pod.node: pod.labels["edgemodel.dev/target"] for pod in simulation.cluster.pods}
    assert targets == {"edge-1": "npu", "plain": "cpu"}


def test_a_deleted_class_leaves_its_nodes_as_they_are() -> None:
    simulation = npu_installed(2)
    del simulation.classes["npu"]
    simulation.touch()
    simulation.run_to_rest()
    assert all_serve(simulation, "v1")
    simulation.join(make_node("new").offering(NPU_RESOURCE))
    simulation.run_for(10)
    assert [count.model_dump() for count in simulation.status.targets] == [
        {"accelerator": "cpu", "nodes": 1},
        {"accelerator": "npu", "nodes": 2},
    ]
    assert simulation.labels("new") == ("", "")
    assert simulation.condition("Ready").reason == "AcceleratorClassNotFound"
    assert simulation.condition("Stalled").status == "True"
    assert simulation.cluster.gaps == []
    simulation.classes["npu"] = make_class()
    simulation.touch()
    simulation.run_to_rest()
    assert simulation.condition("Ready").reason == "AllNodesUpdated"


def test_an_edited_class_reaches_the_nodes_in_waves() -> None:
    simulation = npu_installed(2)
    before = simulation.status.current_revision
    simulation.classes["npu"] = make_class(env={"NPU_THREADS": "2"})
    simulation.touch()
    most = 0
    simulation.watchers.append(lambda now: trials.append(len(now.on_trial())))
    trials: list[int] = []
    simulation.run_to_rest()
    most = max(trials)
    assert most == 1
    assert simulation.status.current_revision != before
    assert all(
        pod.spec["containers"][0]["env"] == [{"name": "NPU_THREADS", "value": "2"}]
        for pod in simulation.cluster.pods
    )


def test_a_class_with_the_longest_name_works_like_any_other() -> None:
    name = "n" * 60 + "." + "p" * 190
    model = make_model("v1").on(name).probation(5)
    simulation = installed(model, npu_fleet(2), classes={name: make_class()})
    simulation.apply(make_model("v2").on(name).probation(5))
    simulation.run_to_rest()
    assert all_serve(simulation, "v2")
    assert all(pod.labels["edgemodel.dev/role"] != ROLE_PREFETCH for pod in simulation.cluster.pods)
