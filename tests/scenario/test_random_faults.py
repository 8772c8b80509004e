"""Any order of faults and changes: what must never happen, and what must hold when the faults stop."""

from __future__ import annotations

from datetime import timedelta
from functools import cache

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from typing_extensions import override

from edgemodel_operator.api.conditions import Condition
from support.builders import NPU_RESOURCE, ModelBuilder, NodeBuilder, make_class, make_model, make_node
from support.simulated_cluster import GOOD, KILLS_NODE, NEVER_READY, RESTARTS
from support.simulator import Simulation, installed

BEHAVIORS = (GOOD, GOOD, "GoldenMismatch", "LoadFailed", NEVER_READY, RESTARTS, KILLS_NODE)
NODES = tuple(f"edge-{number}" for number in range(1, 6))


def release_of(version: int) -> ModelBuilder:
    model = make_model(f"v{version}").on("npu", "cpu").probation(5).deadline(40)
    return model.with_waves(1, "50%", "100%", soak=10)


def new_node(name: str, devices: frozenset[str]) -> NodeBuilder:
    node = make_node(name)
    return node.offering(NPU_RESOURCE) if name in devices else node


@cache
def first_install(devices: frozenset[str]) -> Simulation:
    nodes = [new_node(name, devices) for name in NODES[:4]]
    return installed(release_of(1), nodes, classes={"npu": make_class()})


class Faults(RuleBasedStateMachine):
    """A fleet of up to five nodes, some with an exclusive device, and everything that happens to it."""

    simulation: Simulation

    @initialize(devices=st.sets(st.sampled_from(NODES), max_size=2))
    def install(self, devices: set[str]) -> None:
        self.devices = frozenset(devices)
        self.version = 1
        self.simulation = first_install(self.devices).copy()
        self.conditions: dict[str, Condition] = {}
        self.met: dict[str, set[str]] = {}
        self.lost: set[str] = set()
        self.simulation.watchers += [self.require_quarantine, self.require_conditions, self.require_fault]

    def model(self) -> ModelBuilder:
        return release_of(self.version)

    # --- what happens ------------------------------------------------------------------------------------

    @rule(behavior=st.sampled_from(BEHAVIORS), node=st.sampled_from(("", *NODES)))
    def release(self, behavior: str, node: str) -> None:
        self.version += 1
        on = f"@{node}" if node else ""
        self.simulation.cluster.behavior[f"v{self.version}{on}"] = behavior
        self.simulation.apply(self.model())

    @precondition(lambda self: self.version > 1)
    @rule(back=st.integers(1, 3), max_failures=st.integers(1, 3))
    def release_an_older_version(self, back: int, max_failures: int) -> None:
        newest = self.version
        self.version = max(1, newest - back)
        self.simulation.apply(self.model().max_failures(max_failures))
        self.version = newest

    @rule(max_failures=st.integers(1, 3), paused=st.booleans())
    def edit(self, max_failures: int, paused: bool) -> None:
        self.simulation.apply(self.model().max_failures(max_failures).paused(paused))

    @rule(name=st.sampled_from(NODES))
    def cut(self, name: str) -> None:
        if name in self.simulation.cluster.nodes:
            self.simulation.cut(name)

    @rule(name=st.sampled_from(NODES))
    def restore(self, name: str) -> None:
        if name in self.simulation.cluster.nodes:
            self.simulation.restore(name)

    @rule(name=st.sampled_from(NODES))
    def power_cycle(self, name: str) -> None:
        self.simulation.power_cycle(name)

    @rule(name=st.sampled_from(NODES))
    def join_or_leave(self, name: str) -> None:
        if name in self.simulation.cluster.nodes:
            self.simulation.remove(name)
        else:
            self.simulation.join(new_node(name, self.devices))

    @rule(kill_after=st.integers(0, 8))
    def kill(self, kill_after: int) -> None:
        self.simulation.cluster.settle()
        self.simulation.run_pass(kill_after=kill_after)

    @rule(seconds=st.sampled_from((1, 3, 7, 20, 60)))
    def wait(self, seconds: int) -> None:
        self.simulation.run_for(seconds)

    # --- what must never happen --------------------------------------------------------------------------

    def require_quarantine(self, simulation: Simulation) -> None:
        """What is good is never quarantined; what is quarantined gets onto no node that did not have it."""
        condemned = {item.revision for item in simulation.status.quarantined}
        assert simulation.status.last_known_good not in condemned, simulation.summary()
        for node in simulation.cluster.nodes.values():
            values = {node.active(simulation.key), node.next(simulation.key)}
            now = {value.partition(".")[0] for value in values if value}
            assert not (now & condemned) - self.met.get(node.name, set()), simulation.summary()
            self.met[node.name] = now

    def require_conditions(self, simulation: Simulation) -> None:
        """Conditions speak of the stored generation; their time moves when the status flips, only then."""
        for condition in simulation.status.conditions:
            assert condition.observed_generation == simulation.status.observed_generation
            before = self.conditions.get(condition.type)
            if before is not None:
                is_flip = condition.status is not before.status
                moved = condition.last_transition_time != before.last_transition_time
                assert moved <= is_flip
            self.conditions[condition.type] = condition

    def require_fault(self, simulation: Simulation) -> None:
        """A lost node counts only if its kubelet had taken the pod."""
        rollout = simulation.status.rollout
        lost = {node.name for node in rollout.failed if node.reason == "NodeLost"} if rollout else set()
        for name in lost - self.lost:
            assert any(
                pod.acknowledged and rollout is not None and rollout.revision in pod.owner
                for pod in simulation.cluster.pods
                if pod.node == name
            )
        self.lost = lost

    @invariant()
    def an_answering_pod_is_never_taken_from_a_shared_node(self) -> None:
        gaps = [gap for gap in self.simulation.cluster.gaps if gap.node not in self.devices]
        assert gaps == [], self.simulation.summary()

    @invariant()
    def nodes_add_up(self) -> None:
        counts = self.simulation.status.nodes
        states = (counts.updated, counts.trial, counts.pending, counts.deferred, counts.failed)
        assert sum(states) == counts.total

    # --- what must hold in the end -----------------------------------------------------------------------

    @override
    def teardown(self) -> None:
        simulation = self.simulation
        simulation.restore(*simulation.cluster.nodes)
        if simulation.spec.rollout.paused:
            simulation.apply(self.model())
        simulation.run_to_rest(quiet=timedelta(minutes=11))
        ready = simulation.condition("Ready")
        match ready.reason:
            case "AllNodesUpdated":
                want = simulation.spec.model.version
                self.require_that_all_serve(want)
            case "RevisionQuarantined" if simulation.status.last_known_good:
                self.require_that_all_serve(simulation.status.version)
            case "NodesDeferred":
                assert not all(node.ready for node in simulation.cluster.nodes.values())
            case _:
                assert ready.status == "False"
                assert self.has_bad_pods(), f"{ready} {simulation.summary()}"

    def require_that_all_serve(self, version: str) -> None:
        simulation = self.simulation
        for name, node in simulation.cluster.nodes.items():
            if node.ready and simulation.cluster.behavior_on(version, name) == GOOD:
                assert simulation.labels(name) == (version, ""), simulation.summary()
                assert simulation.serving(name) == {version}, simulation.summary()

    def has_bad_pods(self) -> bool:
        cluster = self.simulation.cluster
        return (
            not cluster.nodes
            or any(
                cluster.behavior_on(self.simulation.spec.model.version, name) != GOOD
                for name in cluster.nodes
            )
            or bool(self.simulation.status.nodes.failed)
        )


Faults.TestCase.settings = settings(
    max_examples=25,
    phases=[Phase.generate, Phase.shrink],  # To explain a failure, every line would be traced: too slow.
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
)
TestFaults = Faults.TestCase
