"""A small cluster for one model, in memory and in its own time: what Kubernetes does with our objects.

`Cluster` is Kubernetes: nodes, the DaemonSet controller, the scheduler and the kubelets, reduced to what the
plan depends on. It obeys the applied documents: their node affinity, resource limits and volumes.
`Simulation` adds the operator: every pass builds a `World` from the cluster, asks `make_plan`, carries out
the actions and stores the status; it can be killed after any action. It wakes as the real one does: because
something that is watched changed, or because the time came that the last plan named. Time jumps from one
event to the next, so that an hour costs nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.conditions import Condition, ConditionStatus, ConditionType
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.names import (
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_TARGET,
    ROLE_SERVE,
    active_label,
    model_key,
    next_label,
)
from edgemodel_operator.core.chain import needed_variants
from edgemodel_operator.core.plan import (
    Action,
    Apply,
    Delete,
    LabelNode,
    Plan,
    SetFinalizer,
    StartSupply,
    make_plan,
)
from edgemodel_operator.core.world import (
    Answer,
    GoldenSample,
    Model,
    Node,
    Pod,
    Supply,
    SupplyStage,
    SupplyStep,
    Trust,
    Verdict,
    Workload,
    World,
)
from support.builders import ModelBuilder, NodeBuilder, make_node

Json = dict[str, Any]

START = datetime(2026, 1, 1, tzinfo=UTC)
ACKNOWLEDGE = timedelta(seconds=1)
START_UP = timedelta(seconds=5)
DRAIN = timedelta(seconds=3)
REPORT = timedelta(seconds=2)
GOOD = "Good"
NEVER_READY = "NeverReady"
SILENT = "Silent"
RESTARTS = "Restarts"
KILLS_NODE = "KillsNode"
PULL_FAILS = "ImagePullBackOff"
"""How the pods of a version behave, besides the fatal answers of `core.trial`, which stand for themselves."""


@dataclass
class SimulatedPod:
    """A pod; `due` is when the kubelet takes its next step with it."""

    name: str
    node: str
    owner: str
    labels: Json
    spec: Json
    version: str
    created: datetime
    due: datetime | None = None
    bound: bool = False
    acknowledged: bool = False
    running: bool = False
    ready_since: datetime | None = None
    restarts: int = 0
    terminating: bool = False
    told: bool = False
    """Whether its kubelet knows that it shall stop."""

    @property
    def serves(self) -> bool:
        return bool(self.labels[LABEL_ROLE] == ROLE_SERVE)

    @property
    def answers(self) -> bool:
        return self.serves and self.ready_since is not None and not self.terminating


@dataclass(frozen=True)
class Gap:
    """A node that lost its last answering pod because of a write of the operator."""

    at: datetime
    node: str
    version: str


@dataclass
class Cluster:
    """Nodes, applied objects and pods."""

    now: datetime = START
    nodes: dict[str, Node] = field(default_factory=dict)
    objects: dict[tuple[str, str], Json] = field(default_factory=dict)
    pods: list[SimulatedPod] = field(default_factory=list)
    behavior: dict[str, str] = field(default_factory=dict)
    """Version, or `version@node` → how its pods behave; Good if not given."""
    gaps: list[Gap] = field(default_factory=list)
    unreported: dict[str, datetime] = field(default_factory=dict)
    """Node that came back → when its kubelet reports again that its pods are ready."""
    controller_runs: bool = True
    """Whether the DaemonSet controller is alive."""
    changes: int = 0
    """Counts what a watch would have told."""
    created: int = 0

    def settle(self) -> None:
        """Let controllers, scheduler and kubelets do everything that is due now."""
        while self._controllers() or self._scheduler() or self._kubelets():
            self.changes += 1

    def next_event(self) -> datetime | None:
        """Say when the next thing happens by itself."""
        dues = [pod.due for pod in self.pods if pod.due and self._is_online(pod)]
        return min([*dues, *self.unreported.values()], default=None)

    def restore(self, name: str) -> None:
        """Bring a node back; its pods never stopped, but the API server learns it a little later."""
        if not self.nodes[name].ready:
            self.nodes[name] = replace(self.nodes[name], ready=True)
            self.unreported[name] = self.now + REPORT
            self.changes += 1
            for pod in self.pods:
                if pod.node == name and pod.terminating and not pod.told:
                    pod.told = True
                    self._note_gap(pod)

    def is_reported_ready(self, pod: SimulatedPod) -> bool:
        """Say whether the API server knows that a pod is ready; of an offline node it knows nothing."""
        return pod.ready_since is not None and self._is_online(pod) and pod.node not in self.unreported

    def _is_online(self, pod: SimulatedPod) -> bool:
        node = self.nodes.get(pod.node)
        return node is not None and node.ready

    # --- the DaemonSet controller ------------------------------------------------------------------------

    def _controllers(self) -> bool:
        changed = False
        if not self.controller_runs:
            return changed
        daemon_sets = self.daemon_sets()
        for name, document in sorted(daemon_sets.items()):
            for node in self.nodes.values():
                if _selects(document, node) and not any(
                    pod.owner == name and pod.node == node.name for pod in self.pods
                ):
                    self._create(name, document, node)
                    changed = True
        for pod in list(self.pods):
            changed |= self._is_unwanted(pod, daemon_sets)
        return changed

    def _is_unwanted(self, pod: SimulatedPod, daemon_sets: dict[str, Json]) -> bool:
        """Let go of a pod whose node or assignment has gone; say whether that was so."""
        if pod.node not in self.nodes:
            self.pods.remove(pod)
            return True
        if pod.terminating or (
            pod.owner in daemon_sets and _selects(daemon_sets[pod.owner], self.nodes[pod.node])
        ):
            return False
        self._terminate(pod)
        return True

    def daemon_sets(self) -> dict[str, Json]:
        return {name: document for (kind, name), document in self.objects.items() if kind == "DaemonSet"}

    def _create(self, owner: str, document: Json, node: Node) -> None:
        template = document["spec"]["template"]
        self.created += 1
        self.pods.append(
            SimulatedPod(
                name=f"{owner}-{self.created}",
                node=node.name,
                owner=owner,
                labels=template["metadata"]["labels"],
                spec=template["spec"],
                version=_version(document),
                created=self.now,
            )
        )

    def _terminate(self, pod: SimulatedPod) -> None:
        pod.terminating = True
        pod.due = self.now + DRAIN
        pod.told = self.nodes[pod.node].ready
        if pod.told:
            self._note_gap(pod)

    def _note_gap(self, pod: SimulatedPod) -> None:
        """Note that a kubelet stops a pod that answered, if nobody else answers on the node."""
        answered = pod.serves and pod.ready_since is not None
        if answered and not any(other.answers and other.node == pod.node for other in self.pods):
            self.gaps.append(Gap(self.now, pod.node, pod.version))

    # --- the scheduler -----------------------------------------------------------------------------------

    def _scheduler(self) -> bool:
        changed = False
        for pod in self.pods:
            if pod.bound or not self._has_room(pod):
                continue
            pod.bound = True
            pod.due = self.now + (DRAIN if pod.terminating else ACKNOWLEDGE)
            changed = True
        return changed

    def _has_room(self, pod: SimulatedPod) -> bool:
        node = self.nodes[pod.node]
        for resource, wanted in _limits(pod).items():
            used = sum(
                int(_limits(other).get(resource, 0))
                for other in self.pods
                if other.bound and other.node == pod.node
            )
            if used + int(wanted) > node.capacity.get(resource, 0):
                return False
        return True

    # --- the kubelets ------------------------------------------------------------------------------------

    def _kubelets(self) -> bool:
        changed = False
        for name in [name for name, due in self.unreported.items() if due <= self.now]:
            del self.unreported[name]
            changed = True
            for pod in self.pods:
                if pod.node == name and pod.ready_since is not None:
                    pod.ready_since = self.now
        for pod in list(self.pods):
            if pod.terminating and not pod.bound:
                self.pods.remove(pod)
                changed = True
            elif pod.due is not None and pod.due <= self.now and self._is_online(pod):
                self._next_stage(pod)
                changed = True
        return changed

    def _next_stage(self, pod: SimulatedPod) -> None:
        pod.due = None
        if pod.terminating:
            self.pods.remove(pod)
        elif not pod.acknowledged:
            pod.acknowledged = True
            pod.due = self.now + START_UP
            if self.behavior_of(pod) == KILLS_NODE and pod.serves:
                self.nodes[pod.node] = replace(self.nodes[pod.node], ready=False)
        elif not self._has_volumes(pod) or self.behavior_of(pod) == PULL_FAILS:
            pod.due = self.now + START_UP
        else:
            self._run(pod)

    def _run(self, pod: SimulatedPod) -> None:
        behavior = self.behavior_of(pod) if pod.serves else GOOD
        if pod.running:
            pod.restarts += 1
        elif behavior == RESTARTS:
            pod.due = self.now + timedelta(seconds=2)
        pod.running = True
        if behavior in (GOOD, SILENT, RESTARTS):
            pod.ready_since = self.now

    def _has_volumes(self, pod: SimulatedPod) -> bool:
        names = [item["configMap"]["name"] for item in pod.spec["volumes"] if "configMap" in item]
        return all(("ConfigMap", name) in self.objects for name in names)

    def behavior_of(self, pod: SimulatedPod) -> str:
        return self.behavior_on(pod.version, pod.node)

    def behavior_on(self, version: str, node: str) -> str:
        """Say how pods of a version behave on a node."""
        return self.behavior.get(f"{version}@{node}", self.behavior.get(version, GOOD))

    # --- writes ------------------------------------------------------------------------------------------

    def apply(self, document: Json) -> None:
        """Store a document; what must not change under its name is refused, as the API server would."""
        key = (document["kind"], document["metadata"]["name"])
        before = self.objects.get(key)
        if before == document:
            return
        if before is not None and document["kind"] in ("DaemonSet", "ConfigMap"):
            raise AssertionError(f"{key} was changed in place")
        self.objects[key] = document
        self.changes += 1

    def delete(self, kind: str, name: str) -> None:
        del self.objects[kind, name]
        self.changes += 1

    def label(self, name: str, labels: dict[str, str | None]) -> None:
        """Patch the labels of a node; None removes one."""
        node = self.nodes[name]
        merged = {**node.labels, **labels}
        self.nodes[name] = replace(
            node, labels={key: value for key, value in merged.items() if value is not None}
        )
        self.changes += 1

    def answer(self, pod: SimulatedPod) -> Answer:
        """Ask a pod whether it is ready."""
        behavior = self.behavior_of(pod)
        if not self._is_online(pod) or not pod.running or behavior == SILENT:
            return Answer(reachable=False, message="no connection")
        if pod.ready_since is not None:
            return Answer(reachable=True, ready=True)
        return Answer(reachable=True, reason=behavior, message=f"{pod.version} says {behavior}")


def _selects(document: Json, node: Node) -> bool:
    affinity = document["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    terms = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return any(all(_holds(item, node) for item in term["matchExpressions"]) for term in terms)


def _version(document: Json) -> str:
    return str(document["spec"]["template"]["metadata"]["annotations"]["edgemodel.dev/model-version"])


def _holds(expression: Json, node: Node) -> bool:
    within = node.labels.get(expression["key"]) in expression["values"]
    return within if expression["operator"] == "In" else not within


def _limits(pod: SimulatedPod) -> Json:
    limits: Json = pod.spec["containers"][0]["resources"].get("limits", {})
    return limits


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
    supplies: dict[tuple[str, str], Supply] = field(default_factory=dict)
    """(version, variant) → its supply, where the image is not simply there."""
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    """Version → what verification says, where it is not trusted."""
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
            history=list(self.history),
            watchers=[],
        )

    # --- reading -----------------------------------------------------------------------------------------

    def labels(self, name: str) -> tuple[str, str]:
        """Give the versions that the labels of a node name: active and next."""
        node = self.cluster.nodes[name]
        return self._version(node.active(self.key)), self._version(node.next(self.key))

    def _version(self, value: str) -> str:
        if not value:
            return ""
        revision = value.partition(".")[0]
        known = {item.name: item.model_version for item in (*self.status.revisions,)}
        for document in self.cluster.daemon_sets().values():
            known[document["metadata"]["labels"][LABEL_REVISION]] = _version(document)
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
        supplies = {variant: self._supply(version, variant) for variant in variants}
        return World(
            now=cluster.now,
            model=model,
            nodes=tuple(cluster.nodes.values()),
            pods=tuple(self._pod(pod) for pod in cluster.pods),
            answers={pod.name: cluster.answer(pod) for pod in cluster.pods if pod.serves},
            workloads=tuple(map(_workload, cluster.daemon_sets().values())),
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
        )

    def _supply(self, version: str, variant: str) -> Supply:
        given = self.supplies.get((version, variant))
        if given is not None:
            return given
        return self.signed(version, variant)

    def signed(self, version: str, variant: str) -> Supply:
        """Give the supply of a version whose image is there and signed."""
        return Supply(
            stage=SupplyStage.SIGNED,
            step=SupplyStep.SIGN,
            build_key=hashlib.sha256(f"{version}/{variant}".encode()).hexdigest(),
            image=_image(f"{self.spec.image.repository}", f"{version}/{variant}"),
            platforms=self.platforms,
        )

    def _pod(self, pod: SimulatedPod) -> Pod:
        return Pod(
            name=pod.name,
            uid=pod.name,
            node=pod.node,
            revision=pod.labels[LABEL_REVISION],
            target=pod.labels[LABEL_TARGET],
            role=pod.labels[LABEL_ROLE],
            created=pod.created,
            ip="10.0.0.1" if pod.running else "",
            acknowledged=pod.acknowledged,
            running=pod.running,
            ready=self.cluster.is_reported_ready(pod),
            ready_since=pod.ready_since if self.cluster.is_reported_ready(pod) else None,
            restarts=pod.restarts,
            terminating=pod.terminating,
            waiting=PULL_FAILS if self.cluster.behavior_of(pod) == PULL_FAILS else "",
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


def fleet(count: int) -> list[NodeBuilder]:
    """Make nodes `edge-1` … `edge-<count>`."""
    return [make_node(f"edge-{number}") for number in range(1, count + 1)]


def installed(model: ModelBuilder, nodes: Sequence[NodeBuilder], **fields: Any) -> Simulation:
    """Begin a simulation in which the model runs on every node already."""
    simulation = start(model, nodes, **fields)
    simulation.run_to_rest()
    if simulation.condition("Ready").status is not ConditionStatus.TRUE:
        raise AssertionError(f"the first install did not succeed: {simulation.condition('Ready')}")
    return simulation


def labels_of(simulation: Simulation, key_of: Callable[[str], str] = active_label) -> dict[str, str]:
    """Give one of the two labels of the model by node, where it is set."""
    label = key_of(simulation.key)
    return {
        name: node.labels[label] for name, node in simulation.cluster.nodes.items() if label in node.labels
    }


def model_labels(simulation: Simulation) -> dict[str, str]:
    """Give every label of the model on any node."""
    return labels_of(simulation) | {
        f"{name} next": value for name, value in labels_of(simulation, next_label).items()
    }


def _workload(document: Json) -> Workload:
    labels = document["metadata"]["labels"]
    return Workload(
        name=document["metadata"]["name"],
        revision=labels[LABEL_REVISION],
        target=labels[LABEL_TARGET],
        role=labels[LABEL_ROLE],
    )


def _image(name: str, content: str) -> str:
    return f"{name}@sha256:{hashlib.sha256(content.encode()).hexdigest()}"
