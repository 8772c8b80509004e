"""AcceleratorClass: from a name that users write to the nodes, the runtimes and the pod wiring behind it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from edgemodel_operator.api.base import Schema, list_map, rules
from edgemodel_operator.api.model import ModelFormat


class NodeMatch(Schema):
    """Which nodes have the accelerator. All that is given must hold; nothing given matches every node."""

    node_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=16)] = {}
    """Labels that the node must carry."""
    extended_resource: Annotated[
        str,
        Field(
            max_length=253,
            pattern=r"^$|/",
            json_schema_extra=rules(
                (
                    "self == '' || self.contains('/')",
                    "extendedResource must be a full resource name such as vendor.example/npu",
                )
            ),
        ),
    ] = ""
    """The resource that a device plugin offers; each pod holds one of it."""


class RuntimeChoice(Schema):
    """The runtime that drives the accelerator for models of one format."""

    format: ModelFormat
    """The model format."""
    variant: Annotated[str, Field(min_length=1, max_length=63)]
    """The runtime image variant, a key of the operator's `runtimes` setting."""
    provider: Annotated[str, Field(min_length=1, max_length=63)]
    """The execution provider that must really be in use."""


class EnvVar(Schema):
    """An environment variable of the model pods."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """The name."""
    value: Annotated[str, Field(max_length=1024)] = ""
    """The value."""


class PodWiring(Schema):
    """What pods need besides the resource."""

    runtime_class_name: Annotated[str, Field(max_length=253)] = ""
    """The RuntimeClass of the pods."""
    env: Annotated[tuple[EnvVar, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = ()
    """Environment variables."""


class Sharing(StrEnum):
    """Whether two pods can use the accelerator of a node at the same time."""

    SHARED = "Shared"
    EXCLUSIVE = "Exclusive"


class AcceleratorClassSpec(Schema):
    """What the accelerator is and how it is used."""

    match: NodeMatch = NodeMatch()
    """Which nodes have it."""
    runtimes: Annotated[
        tuple[RuntimeChoice, ...],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra=list_map("format")
            | rules(
                (
                    "size(self) > 0",
                    (
                        "name at least one runtime, for example "
                        "[{format: ONNX, variant: onnxruntime-cpu, provider: CPUExecutionProvider}]"
                    ),
                )
            ),
        ),
    ]
    """The runtimes that drive it, one for each model format that it can run."""
    pod: PodWiring = PodWiring()
    """What pods need besides the resource."""
    sharing: Sharing
    """Shared: old and new pod run side by side during an update. Exclusive: the new pod starts when the
    old one has gone; its image is on the node before that."""

    def runtime_for(self, model_format: ModelFormat) -> RuntimeChoice | None:
        """Give the runtime for models of a format; None where the accelerator cannot run them."""
        return next((runtime for runtime in self.runtimes if runtime.format is model_format), None)


class AcceleratorClass(Schema):
    """A kind of accelerator, by the name that EdgeModels use."""

    spec: AcceleratorClassSpec
    """What the accelerator is and how it is used."""
