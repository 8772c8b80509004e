"""A small Kubernetes in memory, in its own time: nodes, DaemonSets, scheduler and kubelets.

It does what the plan depends on and no more, and obeys the applied documents: their node affinity, resource
limits and volumes. What must not change under its name is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from edgemodel_operator.api.names import LABEL_REVISION, LABEL_ROLE, LABEL_TARGET, ROLE_SERVE
from edgemodel_operator.core.world import Answer, Node, Pod, Workload

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


FIXED_PARTS = {"DaemonSet": ("spec",), "ConfigMap": ("data", "immutable")}
"""What of an object never changes under its name."""


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
                version=version_of(document),
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
        if before is not None and any(
            before.get(part) != document.get(part) for part in FIXED_PARTS.get(document["kind"], ())
        ):
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

    def observed(self, pod: SimulatedPod) -> Pod:
        """Give a pod as the API server shows it."""
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
            ready=self.is_reported_ready(pod),
            ready_since=pod.ready_since if self.is_reported_ready(pod) else None,
            restarts=pod.restarts,
            terminating=pod.terminating,
            waiting=PULL_FAILS if self.behavior_of(pod) == PULL_FAILS else "",
            image=pod.spec["containers"][0]["image"],
        )

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


def version_of(document: Json) -> str:
    return str(document["spec"]["template"]["metadata"]["annotations"]["edgemodel.dev/model-version"])


def _holds(expression: Json, node: Node) -> bool:
    within = node.labels.get(expression["key"]) in expression["values"]
    return within if expression["operator"] == "In" else not within


def _limits(pod: SimulatedPod) -> Json:
    limits: Json = pod.spec["containers"][0]["resources"].get("limits", {})
    return limits


def workload_of(document: Json) -> Workload:
    """Give a DaemonSet as the operator sees it."""
    labels = document["metadata"]["labels"]
    return Workload(
        name=document["metadata"]["name"],
        revision=labels[LABEL_REVISION],
        target=labels[LABEL_TARGET],
        role=labels[LABEL_ROLE],
        image=document["spec"]["template"]["spec"]["containers"][0]["image"],
    )
