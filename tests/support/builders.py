"""Builders of models, classes and nodes: what a user would write, read by the parser of production."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Self

from edgemodel_operator.api.acceleratorclass import AcceleratorClass, AcceleratorClassSpec
from edgemodel_operator.api.edgemodel import EdgeModel, EdgeModelSpec
from edgemodel_operator.core.world import Node, Taint

Json = dict[str, Any]

SHA256 = "0" * 64


@dataclass(frozen=True)
class ModelBuilder:
    """An EdgeModel under construction; every method gives a changed copy."""

    raw: Json

    def with_(self, path: str, value: Any) -> Self:
        """Set one field of the spec by its dotted path."""
        return replace(self, raw=_set(self.raw, path.split("."), value))

    def version(self, version: str) -> Self:
        return self.with_("model.version", version)

    def with_sha256(self, sha256: str) -> Self:
        return self.with_("model.source.http.sha256", sha256)

    def on(self, *accelerators: str) -> Self:
        return self.with_("targets", [{"accelerator": name} for name in accelerators])

    def with_waves(self, *waves: int | str, soak: int = 0) -> Self:
        """Set the waves: a number is a count of nodes, a text like "25%" a share."""
        return self.with_("rollout.waves", [_wave(wave, soak) for wave in waves])

    def with_golden(self, config_map: str = "golden", tolerance: str = "1e-3") -> Self:
        return self.with_("health.golden", {"configMap": {"name": config_map}, "tolerance": tolerance})

    def probation(self, seconds: int) -> Self:
        return self.with_("health.probationSeconds", seconds)

    def deadline(self, seconds: int) -> Self:
        return self.with_("rollout.progressDeadlineSeconds", seconds)

    def max_failures(self, count: int) -> Self:
        return self.with_("rollout.maxFailures", count)

    def pausing_on_failure(self) -> Self:
        return self.with_("rollout.onFailure", "Pause")

    def paused(self, paused: bool = True) -> Self:
        return self.with_("rollout.paused", paused)

    def selecting(self, **labels: str) -> Self:
        return self.with_("placement.nodeSelector", labels)

    def build(self) -> EdgeModelSpec:
        return EdgeModel.model_validate({"spec": self.raw}).spec


def make_model(version: str = "v1") -> ModelBuilder:
    """Begin a model with one HTTP source, for every node's CPU."""
    return ModelBuilder(
        {
            "model": {
                "format": "ONNX",
                "source": {"http": {"url": "https://files.example.com/line.onnx", "sha256": SHA256}},
                "version": version,
            },
            "image": {"repository": "registry.example.com:5000/models/line"},
            "targets": [{"accelerator": "cpu"}],
        }
    )


def _wave(wave: int | str, soak: int) -> Json:
    size: Json = {"percent": int(wave.rstrip("%"))} if isinstance(wave, str) else {"nodes": wave}
    return size | ({"soakSeconds": soak} if soak else {})


def _set(raw: Json, path: list[str], value: Any) -> Json:
    if len(path) == 1:
        return {**raw, path[0]: value}
    return {**raw, path[0]: _set(raw.get(path[0], {}), path[1:], value)}


@dataclass(frozen=True)
class NodeBuilder:
    """A node under construction."""

    name: str
    architecture: str = "amd64"
    ready: bool = True
    labels: dict[str, str] = field(default_factory=dict)
    capacity: dict[str, int] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()

    def arm64(self) -> Self:
        return replace(self, architecture="arm64")

    def offline(self) -> Self:
        return replace(self, ready=False)

    def labelled(self, **labels: str) -> Self:
        return replace(self, labels={**self.labels, **labels})

    def with_label(self, key: str, value: str) -> Self:
        return replace(self, labels={**self.labels, key: value})

    def offering(self, resource: str, count: int = 1) -> Self:
        return replace(self, capacity={**self.capacity, resource: count})

    def tainted(self, key: str, effect: str = "NoSchedule") -> Self:
        return replace(self, taints=(*self.taints, Taint(key, effect)))

    def build(self) -> Node:
        return Node(
            name=self.name,
            uid=f"uid-of-{self.name}",
            ready=self.ready,
            architecture=self.architecture,
            labels=dict(self.labels),
            capacity=dict(self.capacity),
            taints=self.taints,
        )


def make_node(name: str) -> NodeBuilder:
    """Begin a node: online, amd64, nothing special."""
    return NodeBuilder(name)


def fleet(count: int) -> list[NodeBuilder]:
    """Make nodes `edge-1` … `edge-<count>`."""
    return [make_node(f"edge-{number}") for number in range(1, count + 1)]


NPU_RESOURCE = "vendor.example/npu"


def make_class(
    *, resource: str = NPU_RESOURCE, sharing: str = "Exclusive", env: dict[str, str] | None = None
) -> AcceleratorClassSpec:
    """Make an AcceleratorClass that nodes have by an extended resource."""
    raw: Json = {
        "match": {"extendedResource": resource},
        "runtimes": [{"format": "ONNX", "variant": "onnxruntime-npu", "provider": "NpuExecutionProvider"}],
        "pod": {"env": [{"name": name, "value": value} for name, value in (env or {}).items()]},
        "sharing": sharing,
    }
    return AcceleratorClass.model_validate({"spec": raw}).spec
