"""Placement: which nodes run the model, and on which target of the ladder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec, RuntimeChoice, Sharing
from edgemodel_operator.api.edgemodel import Placement as PlacementSpec
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.core.world import Node

CPU = "cpu"
CPU_CLASS = AcceleratorClassSpec(
    runtimes=(
        RuntimeChoice(format=ModelFormat.ONNX, variant="onnxruntime-cpu", provider="CPUExecutionProvider"),
        RuntimeChoice(format=ModelFormat.TFLITE, variant="litert-cpu", provider="CPU"),
        RuntimeChoice(format=ModelFormat.OPENVINO, variant="openvino", provider="CPU"),
    ),
    sharing=Sharing.SHARED,
)
"""The class that always exists: every node has a CPU, and a runtime runs on it for every format."""

SYSTEM_TAINTS = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
"""Taints that tell the state of a node; a DaemonSet tolerates them."""
BLOCKING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})


@dataclass(frozen=True)
class Placed:
    """One node and the target that it takes."""

    node: Node
    target: str


@dataclass(frozen=True)
class Rejected:
    """One node that matches the selector but cannot run the model."""

    node: str
    reason: str
    message: str


@dataclass(frozen=True)
class Placement:
    """The answer, nodes in the order of their names."""

    placed: tuple[Placed, ...]
    rejected: tuple[Rejected, ...]


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder as placement needs it."""

    target: str
    node_labels: Mapping[str, str]
    extended_resource: str
    architectures: frozenset[str] | None = None
    """The architectures that its image holds; None: not known yet, any."""
    only_held: bool = False
    """Its AcceleratorClass is gone: nodes that have it keep it, no other gets it."""


def rung_of(target: str, spec: AcceleratorClassSpec, architectures: frozenset[str] | None = None) -> Rung:
    """Give the rung for an AcceleratorClass."""
    return Rung(
        target=target,
        node_labels=spec.match.node_labels,
        extended_resource=spec.match.extended_resource,
        architectures=architectures,
    )


def place(
    placement: PlacementSpec, ladder: Sequence[Rung], nodes: Sequence[Node], held: Mapping[str, str]
) -> Placement:
    """Choose for each node that matches the selector the first rung that it fits.

    `held` maps a node to the target that it has now: a node keeps an extended resource whose plugin is
    silent for a moment (capacity 0, but still listed), since a restarting kubelet must not move the model.
    """
    placed: list[Placed] = []
    rejected: list[Rejected] = []
    for node in sorted(nodes, key=lambda item: item.name):
        if not _carries(node, placement.node_selector):
            continue
        taint = _blocking_taint(node)
        if taint:
            rejected.append(Rejected(node.name, "Tainted", f"{node.name} has the taint {taint}"))
            continue
        target = next((rung.target for rung in ladder if _fits(rung, node, held.get(node.name, ""))), None)
        if target is None:
            names = ", ".join(rung.target for rung in ladder)
            rejected.append(
                Rejected(
                    node.name, "NoTargetFits", f"{node.name} ({node.architecture}) fits none of: {names}"
                )
            )
        else:
            placed.append(Placed(node, target))
    return Placement(tuple(placed), tuple(rejected))


def _carries(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in labels.items())


def _blocking_taint(node: Node) -> str:
    for taint in node.taints:
        if taint.effect in BLOCKING_EFFECTS and not taint.key.startswith(SYSTEM_TAINTS):
            return taint.key
    return ""


def _fits(rung: Rung, node: Node, held: str) -> bool:
    if rung.only_held:
        return held == rung.target
    if not _carries(node, rung.node_labels):
        return False
    if rung.architectures is not None and node.architecture not in rung.architectures:
        return False
    if not rung.extended_resource:
        return True
    if held == rung.target:
        return rung.extended_resource in node.capacity
    return node.capacity.get(rung.extended_resource, 0) >= 1
