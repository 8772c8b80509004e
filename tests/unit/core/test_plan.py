"""Single passes that no story reaches by itself."""

from __future__ import annotations

from dataclasses import replace

from edgemodel_operator.core.plan import Apply, LabelNode, SetFinalizer, make_plan
from support.builders import NPU_RESOURCE, fleet, make_class, make_model
from support.simulator import Simulation, installed, start


def in_the_first_wave() -> Simulation:
    simulation = installed(make_model("v1").probation(5), fleet(2))
    simulation.apply(make_model("v2").probation(5))
    simulation.run_until(lambda: bool(simulation.on_trial()))
    return simulation


def test_the_finalizer_is_the_first_thing_and_the_only_one() -> None:
    plan = make_plan(start(make_model(), fleet(1)).world())
    assert plan.actions == (SetFinalizer(present=True),)
    assert plan.status is None


def test_a_revision_is_recorded_before_any_of_its_objects_exists() -> None:
    simulation = start(make_model(), fleet(1), has_finalizer=True)
    plan = make_plan(simulation.world())
    assert not any(isinstance(action, LabelNode) for action in plan.actions)
    assert [action.document["kind"] for action in plan.actions if isinstance(action, Apply)] == ["Service"]
    assert plan.status is not None
    assert plan.status.rollout is not None
    assert plan.status.rollout.revision == plan.status.revisions[0].name


def test_a_rollout_whose_revision_is_not_recorded_begins_anew() -> None:
    simulation = start(make_model(), fleet(1), has_finalizer=True)
    simulation.run_pass()
    simulation.status = simulation.status.model_copy(update={"revisions": ()})
    plan = make_plan(simulation.world())
    assert not any(isinstance(action, LabelNode) for action in plan.actions)
    assert plan.status is not None
    assert plan.status.revisions[0].name == plan.status.target_revision


def test_the_same_world_gives_the_same_plan_whatever_the_order_of_what_was_read() -> None:
    world = in_the_first_wave().world()
    turned = replace(
        world,
        nodes=world.nodes[::-1],
        pods=world.pods[::-1],
        workloads=world.workloads[::-1],
        golden_copies=world.golden_copies[::-1],
    )
    assert make_plan(turned).status == make_plan(world).status
    assert make_plan(turned).actions == make_plan(world).actions


def test_labels_of_another_model_are_left_alone() -> None:
    simulation = installed(make_model("v1").probation(5), fleet(1))
    other = {"edgemodel.dev.node-restriction.kubernetes.io/0123456789ab.active": "0000000000.cpu"}
    simulation.change("edge-1", labels={**simulation.cluster.nodes["edge-1"].labels, **other})
    simulation.delete()
    simulation.run_until(lambda: simulation.gone, limit=50)
    assert simulation.cluster.nodes["edge-1"].labels == other


def test_a_label_that_names_an_unknown_revision_is_replaced() -> None:
    simulation = installed(make_model("v1").probation(5), fleet(2))
    simulation.cluster.label(
        "edge-1", dict.fromkeys(simulation.cluster.nodes["edge-1"].labels, "0123456789.cpu")
    )
    simulation.run_to_rest()
    assert simulation.labels("edge-1") == ("v1", "")
    assert simulation.serving("edge-1") == {"v1"}


def test_pods_of_an_exclusive_target_hold_the_device_and_their_fetchers_do_not() -> None:
    nodes = [node.offering(NPU_RESOURCE) for node in fleet(1)]
    simulation = installed(make_model().on("npu").probation(5), nodes, classes={"npu": make_class()})
    limits = {
        document["metadata"]["labels"]["edgemodel.dev/role"]: document["spec"]["template"]["spec"][
            "containers"
        ][0]["resources"].get("limits", {})
        for document in simulation.cluster.daemon_sets().values()
    }
    assert limits == {"serve": {NPU_RESOURCE: "1"}, "prefetch": {}}
