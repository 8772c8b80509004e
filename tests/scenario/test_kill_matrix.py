"""The operator is killed after every action of every pass: the story ends the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from edgemodel_operator.core.plan import make_plan
from support.builders import NPU_RESOURCE, fleet, make_class, make_model
from support.simulated_cluster import NEVER_READY
from support.simulator import Simulation, installed, start

End = tuple[object, ...]


def first_install() -> Simulation:
    return start(make_model("v1").with_waves(1, "100%").probation(5), fleet(3))


def update() -> Simulation:
    simulation = installed(make_model("v1").probation(5), fleet(4))
    simulation.apply(make_model("v2").with_waves(1, "50%", "100%", soak=1000).probation(5).deadline(60))
    return simulation


def failing_update() -> Simulation:
    simulation = installed(make_model("v1").probation(5), fleet(4))
    simulation.cluster.behavior["v2@edge-2"] = "GoldenMismatch"
    simulation.apply(make_model("v2").with_waves(1, "50%", "100%").probation(5))
    return simulation


def one_failure_allowed() -> Simulation:
    simulation = installed(make_model("v1").probation(5), fleet(4))
    simulation.cluster.behavior["v2@edge-2"] = "GoldenMismatch"
    simulation.apply(make_model("v2").with_waves("100%").probation(5).max_failures(2))
    return simulation


def exclusive(version_behavior: str = "Good") -> Simulation:
    nodes = [node.offering(NPU_RESOURCE) for node in fleet(2)]
    simulation = installed(make_model("v1").on("npu").probation(5), nodes, classes={"npu": make_class()})
    simulation.cluster.behavior["v2"] = version_behavior
    simulation.apply(make_model("v2").on("npu").with_waves(1, "100%").probation(5))
    return simulation


def failing_exclusive() -> Simulation:
    return exclusive(NEVER_READY)


def failing_first_install() -> Simulation:
    simulation = start(make_model("v1").probation(5), fleet(2))
    simulation.cluster.behavior["v1"] = "LoadFailed"
    return simulation


def with_an_offline_node() -> Simulation:
    simulation = installed(make_model("v1").probation(5), fleet(3))
    simulation.cut("edge-1")
    simulation.apply(make_model("v2").probation(5))
    return simulation


STORIES = (
    first_install,
    update,
    failing_update,
    one_failure_allowed,
    exclusive,
    failing_exclusive,
    failing_first_install,
    with_an_offline_node,
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_a_kill_at_any_line_ends_in_the_same_state(story: Callable[[], Simulation]) -> None:
    going = story()
    undisturbed = at_rest(going)
    want = end_of(undisturbed)
    killed = 0
    while going.now <= undisturbed.last_change:
        if going.is_due():
            for simulation in killed_in_this_pass(going):
                killed += 1
                simulation.run_to_rest()
                assert end_of(simulation) == want, f"killed at {going.summary()}"
        going.step()
    assert killed > 10


def at_rest(simulation: Simulation) -> Simulation:
    """Give how the story ends if nobody kills the operator."""
    undisturbed = simulation.copy()
    undisturbed.run_to_rest()
    return undisturbed


def killed_in_this_pass(going: Simulation) -> Iterator[Simulation]:
    """Give every different state in which a kill during the pass that is due can leave the world."""
    actions = len(make_plan(going.world()).actions)
    changes = -1
    for kill_after in range(actions + 1):
        simulation = going.copy()
        simulation.run_pass(kill_after=kill_after)
        if simulation.cluster.changes != changes:
            changes = simulation.cluster.changes
            yield simulation


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_an_operator_that_dies_in_every_other_pass_gets_there(story: Callable[[], Simulation]) -> None:
    simulation = story()
    want = end_of(at_rest(simulation))
    for number in range(200):
        simulation.step()
        if simulation.is_due():
            simulation.run_pass(kill_after=number % 5)
    simulation.run_to_rest()
    assert end_of(simulation) == want


def end_of(simulation: Simulation) -> End:
    """Give what a user sees at the end, but for times and names of pods."""
    status = simulation.status
    nodes = simulation.cluster.nodes
    return (
        {name: simulation.labels(name) for name in nodes},
        {name: simulation.serving(name) for name in nodes},
        sorted(simulation.cluster.objects),
        status.nodes,
        status.node_reports,
        [(item.type, item.status, item.reason) for item in status.conditions],
        [(item.revision, item.reason) for item in status.quarantined],
        status.last_known_good,
        status.current_revision,
        len(simulation.cluster.gaps),
    )
