"""The operator at work on one model in a simulated cluster.

Every pass builds a `World` from the cluster, asks `make_plan`, carries out the actions and stores the status;
it can be killed after any action. It wakes as the real one does: because something that is watched changed,
or because the time came that the last plan named. Time jumps from one event to the next, so that an hour
costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.conditions import Condition, ConditionStatus, ConditionType
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, VariantImage
from edgemodel_operator.api.names import (
    LABEL_REVISION,
    active_label,
    model_key,
    next_label,
)
from edgemodel_operator.core.chain import needed_variants
from edgemodel_operator.core.garbage import unneeded
from edgemodel_operator.core.plan import (
    Action,
    Apply,
    Delete,
    LabelNode,
    Plan,
    RemoveImages,
    SetFinalizer,
    StartSupply,
    make_plan,
)
from edgemodel_operator.core.world import (
    GoldenSample,
    Model,
    Supply,
    SupplyStage,
    SupplyStep,
    Sweep,
    Trust,
    Verdict,
    World,
)
from support.builders import ModelBuilder, NodeBuilder
from support.simulated_cluster import START, START_UP, Cluster, version_of, workload_of

Json = dict[str, Any]


@dataclass
class Simulation:
    """The operator at work on one model in a simulated cluster."""

    spec: EdgeModelSpec
    cluster: Cluster = field(default_factory=Cluster)
    status: EdgeModelStatus = field(default_factory=EdgeModelStatus)
    generation: int = 1
    deleting: bool = False
    has_finalizer: bool = False
    gone: bool = False
    classes: dict[str, AcceleratorClassSpec] = field(default_factory=dict)
    runtimes: dict[str, str] = field(default_factory=dict)
    platforms: tuple[str, ...] = ("linux/amd64", "linux/arm64")
    golden: GoldenSample = field(default_factory=GoldenSample)
    name_is_taken: bool = False
    supplies: dict[tuple[str, str], Supply] = field(default_factory=dict)
    """(version, variant) → its supply, where the image is not simply there."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Version → what verification says, where it is not trusted."""
    registry: set[str] = field(default_factory=set)
    """The images that were made and not removed."""
    registry_fails: Sweep | None = None
    """What comes of removing an image, where it is not simply removed."""
    claimed: frozenset[str] = frozenset()
    """The images that other models have recorded."""
    sweep: Sweep = field(default_factory=Sweep)
    """What the operator remembers of removing images until it dies."""
    plan: Plan | None = None
    look_again_at: datetime | None = None
    passes: int = 0
    history: list[EdgeModelStatus] = field(default_factory=list)
    watchers: list[Callable[[Simulation], None]] = field(default_factory=list)
    """Called after every moment; they raise when something must not be."""
    last_change: datetime = START
    _seen: int = -1

    # --- what users and the world do ---------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        return self.cluster.now

    @property
    def key(self) -> str:
        return model_key("plant", "line")

    def apply(self, model: ModelBuilder) -> None:
        """Change the spec."""
        self.spec = model.build()
        self.generation += 1
        self.cluster.changes += 1

    def delete(self) -> None:
        self.deleting = True
        self.cluster.changes += 1

    def join(self, *nodes: NodeBuilder) -> None:
        for builder in nodes:
            node = builder.build()
            self.cluster.nodes[node.name] = node
        self.cluster.changes += 1

    def change(self, name: str, **fields: Any) -> None:
        """Change fields of a node."""
        self.cluster.nodes[name] = replace(self.cluster.nodes[name], **fields)
        self.cluster.changes += 1

    def cut(self, *names: str) -> None:
        for name in names:
            self.change(name, ready=False)

    def restore(self, *names: str) -> None:
        for name in names:
            self.cluster.restore(name)

    def remove(self, name: str) -> None:
        """Take a node out of the cluster."""
        del self.cluster.nodes[name]
        self.cluster.unreported.pop(name, None)
        self.cluster.changes += 1
        self.cluster.settle()

    def crash(self, name: str) -> None:
        """Have the serving pods of a node stop answering."""
        for pod in self.cluster.pods:
            if pod.node == name and pod.serves:
                pod.ready_since = None
        self.cluster.changes += 1

    def power_cycle(self, name: str) -> None:
        """Restart a node: every container on it starts again."""
        for pod in self.cluster.pods:
            if pod.node == name and pod.running:
                pod.restarts += 1
                pod.running, pod.ready_since = False, None
                pod.due = self.now + START_UP
        self.cluster.changes += 1

    def touch(self) -> None:
        """Tell the operator that something it watches besides nodes and pods changed."""
        self.cluster.changes += 1

    def copy(self) -> Simulation:
        """Give an independent simulation that stands at the same moment."""
        cluster = replace(
            self.cluster,
            nodes=dict(self.cluster.nodes),
            objects=dict(self.cluster.objects),
            pods=[replace(pod) for pod in self.cluster.pods],
            behavior=dict(self.cluster.behavior),
            unreported=dict(self.cluster.unreported),
            gaps=list(self.cluster.gaps),
        )
        return replace(
            self,
            cluster=cluster,
            classes=dict(self.classes),
            supplies=dict(self.supplies),
            verdicts=dict(self.verdicts),
            registry=set(self.registry),
            history=list(self.history),
            watchers=[],
        )

    # --- reading -----------------------------------------------------------------------------------------

    def labels(self, name: str) -> tuple[str, str]:
        """Give the versions that the labels of a node name: active and next."""
        node = self.cluster.nodes[name]
        return self._named_version(node.active(self.key)), self._named_version(node.next(self.key))

    def _named_version(self, value: str) -> str:
        if not value:
            return ""
        revision = value.partition(".")[0]
        known = {item.name: item.model_version for item in (*self.status.revisions,)}
        for document in self.cluster.daemon_sets().values():
            known[document["metadata"]["labels"][LABEL_REVISION]] = version_of(document)
        return known.get(revision, revision)

    def serving(self, name: str) -> set[str]:
        """Give the versions whose pods answer on a node."""
        return {pod.version for pod in self.cluster.pods if pod.node == name and pod.answers}

    def condition(self, kind: str) -> Condition:
        return next(item for item in self.status.conditions if item.type == ConditionType(kind))

    def condition_reason(self, kind: str) -> str:
        """Give the reason of a condition; empty as long as there is none."""
        return next((item.reason for item in self.status.conditions if item.type == ConditionType(kind)), "")

    def wave(self) -> int:
        """Give the wave of the revision that the spec asks for now; -1 if its rollout has not begun."""
        rollout = self.status.rollout
        is_current = self.status.observed_generation == self.generation
        return rollout.wave if rollout is not None and is_current else -1

    def wave_completed(self) -> bool:
        rollout = self.status.rollout
        return self.wave() >= 0 and rollout is not None and bool(rollout.wave_completed_at)

    def on_trial(self) -> list[str]:
        """Name the nodes with something under trial."""
        return [node.name for node in self.cluster.nodes.values() if node.next(self.key)]

    def node_states(self) -> dict[str, str]:
        return {report.name: report.state.value for report in self.status.node_reports}

    # --- the operator ------------------------------------------------------------------------------------

    def world(self) -> World:
        """Gather: everything that a pass reads."""
        cluster = self.cluster
        model = Model(
            namespace="plant",
            name="line",
            uid="uid-of-line",
            generation=self.generation,
            spec=self.spec,
            status=self.status,
            deleting=self.deleting,
            has_finalizer=self.has_finalizer,
        )
        variants = needed_variants(self.spec, self.classes)
        version = self.spec.model.version
        wanted = () if self.deleting else variants
        supplies = {variant: self._supply(version, variant) for variant in wanted}
        world = World(
            now=cluster.now,
            model=model,
            nodes=tuple(cluster.nodes.values()),
            pods=tuple(cluster.observed(pod) for pod in cluster.pods),
            answers={pod.name: cluster.answer(pod) for pod in cluster.pods if pod.serves},
            workloads=tuple(map(workload_of, cluster.daemon_sets().values())),
            golden_copies=tuple(name for kind, name in cluster.objects if kind == "ConfigMap"),
            classes=self.classes,
            runtimes={variant: _image("runtimes/" + variant, "1") for variant in variants} | self.runtimes,
            supplies=supplies,
            verdicts={
                supply.image: self.verdicts.get(version, Verdict(Trust.TRUSTED))
                for supply in supplies.values()
                if supply.image
            },
            golden=self.golden if self.spec.health.golden else GoldenSample(),
            name_is_taken=self.name_is_taken,
            sweep=self._swept(),
        )
        return replace(world, claimed=self.claimed) if unneeded(world) else world

    def _swept(self) -> Sweep:
        recorded = {item.image for item in self.status.retained_images}
        self.sweep = replace(self.sweep, gone=self.sweep.gone & recorded)
        return self.sweep

    def _supply(self, version: str, variant: str) -> Supply:
        given = self.supplies.get((version, variant))
        if given is not None:
            return given
        return self.signed(version, variant)

    def signed(self, version: str, variant: str) -> Supply:
        """Give the supply of a version whose image is there and signed."""
        image = _image(f"{self.spec.image.repository}", f"{version}/{variant}")
        self.registry.add(image)
        return Supply(
            stage=SupplyStage.SIGNED,
            step=SupplyStep.SIGN,
            build_key=hashlib.sha256(f"{version}/{variant}".encode()).hexdigest(),
            image=image,
            platforms=self.platforms,
        )

    def run_pass(self, *, kill_after: int | None = None) -> Plan:
        """Do one pass; `kill_after` n actions the operator dies, and stores no status."""
        self._seen = self.cluster.changes
        world = self.world()
        plan = make_plan(world)
        self.plan = plan
        self.passes += 1
        before = (self.status, self.cluster.changes, self.has_finalizer)
        for action in plan.actions[:kill_after]:
            self._carry_out(action)
            self.cluster.settle()
            self._watch()
        if kill_after is not None:
            self._seen = -1  # A new operator lists everything.
            self.sweep = Sweep()
            return plan
        if plan.status is not None and plan.status != self.status:
            self.status = EdgeModelStatus.model_validate(plan.status.to_raw())
            if self.status != plan.status:
                raise AssertionError("the status changed when it was stored and read")
            self.history.append(self.status)
        self.look_again_at = plan.look_again_at
        if before != (self.status, self.cluster.changes, self.has_finalizer):
            self.last_change = self.now
        elif plan.look_again_at is not None and plan.look_again_at <= self.now:
            raise AssertionError("a pass that changed nothing asked to be repeated at once")
        self._watch()
        return plan

    def run_pass_and_die(self) -> None:
        """Do one pass; if it labels a node, the operator dies before it stores the status."""
        labels = any(isinstance(action, LabelNode) for action in make_plan(self.world()).actions)
        self.run_pass(kill_after=None if not labels else 1000)

    def _carry_out(self, action: Action) -> None:
        match action:
            case SetFinalizer(present):
                self.has_finalizer = present
                self.gone = self.deleting and not present
                self.cluster.changes += 1
            case StartSupply(variant):
                self.supplies[self.spec.model.version, variant] = Supply(SupplyStage.RUNNING)
                self.cluster.changes += 1
            case LabelNode(node, labels):
                self.cluster.label(node, labels)
            case Apply(document):
                self.cluster.apply(document)
            case Delete(kind, name):
                self.cluster.delete(kind, name)
            case RemoveImages(images):
                self._remove(images)

    def _remove(self, images: Sequence[VariantImage]) -> None:
        before = self.sweep
        if not images:
            self.sweep = Sweep(gone=self.sweep.gone)
        elif self.registry_fails is not None:
            self.sweep = replace(self.registry_fails, gone=before.gone, failures=before.failures + 1)
        else:
            gone = {item.image for item in images}
            self.registry -= gone
            self.sweep = Sweep(gone=before.gone | gone)
        if (before.gone, before.reason) != (self.sweep.gone, self.sweep.reason):
            self.cluster.changes += 1

    def _watch(self) -> None:
        for watcher in self.watchers:
            watcher(self)

    # --- time --------------------------------------------------------------------------------------------

    def is_due(self) -> bool:
        """Say whether the operator has a reason to look."""
        woken = self._seen != self.cluster.changes
        return woken or (self.look_again_at is not None and self.look_again_at <= self.now)

    def step(self) -> None:
        """Do the next thing that happens: a pass if one is due, or let time go on to the next event."""
        self.cluster.settle()
        if self.is_due():
            self.run_pass()
            return
        times = [time for time in (self.look_again_at, self.cluster.next_event()) if time is not None]
        before = self.cluster.changes
        self.cluster.now = max(self.now, min(times))
        self.cluster.settle()
        if self.cluster.changes != before:
            self.last_change = self.now
        self._watch()

    def run_for(self, seconds: float) -> None:
        """Let time go on."""
        end = self.now + timedelta(seconds=seconds)
        self.cluster.settle()
        while not self.gone:
            times = [time for time in (self.look_again_at, self.cluster.next_event()) if time is not None]
            if not self.is_due() and (not times or min(times) > end):
                break
            self.step()
        self.cluster.now = end

    def run_until(self, holds: Callable[[], bool], *, limit: int = 20_000) -> None:
        """Go on until something holds."""
        for _ in range(limit):
            if holds():
                return
            self.step()
        raise AssertionError(f"not reached after {limit} steps: {self.summary()}")

    def run_to_rest(self, quiet: timedelta = timedelta(minutes=20), *, limit: int = 20_000) -> None:
        """Go on until nothing has changed for a while."""
        self.last_change = self.now
        for _ in range(limit):
            if self.gone or (not self.is_due() and self.now - self.last_change >= quiet):
                return
            self.step()
        raise AssertionError(f"no rest after {limit} steps: {self.summary()}")

    def summary(self) -> str:
        """Say how things stand, for a failed test."""
        nodes = ", ".join(f"{name}={self.labels(name)}" for name in self.cluster.nodes)
        return f"{self.now:%H:%M:%S} rollout={self.status.rollout} nodes: {nodes}"


def start(model: ModelBuilder, nodes: Sequence[NodeBuilder], **fields: Any) -> Simulation:
    """Begin a simulation: a model just applied to a cluster with these nodes."""
    simulation = Simulation(spec=model.build(), **fields)
    simulation.join(*nodes)
    return simulation


def installed(model: ModelBuilder, nodes: Sequence[NodeBuilder], **fields: Any) -> Simulation:
    """Begin a simulation in which the model runs on every node already."""
    simulation = start(model, nodes, **fields)
    simulation.run_to_rest()
    if simulation.condition("Ready").status is not ConditionStatus.TRUE:
        raise AssertionError(f"the first install did not succeed: {simulation.condition('Ready')}")
    return simulation


def model_labels(simulation: Simulation) -> list[tuple[str, str]]:
    """Name every label of the model on any node, with the node."""
    keys = (active_label(simulation.key), next_label(simulation.key))
    return [
        (node.name, key) for node in simulation.cluster.nodes.values() for key in keys if key in node.labels
    ]


def _image(name: str, content: str) -> str:
    return f"{name}@sha256:{hashlib.sha256(content.encode()).hexdigest()}"
