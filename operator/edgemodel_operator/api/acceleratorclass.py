"""AcceleratorClass: from a name that users write to the nodes, the runtimes and the pod wiring behind it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

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

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.delegate) || self.format == 'TFLite'",
                "only TFLite models are computed by a delegate: leave it out for other formats",
            ),
            (
                (
                    "!has(self.providerOptions) || "
                    "self.providerOptions.all(key, key.size() <= 128 && !key.contains('='))"
                ),
                "the name of a provider option has at most 128 characters and must not hold a `=`",
            ),
        )
    )

    format: ModelFormat
    """The model format."""
    variant: Annotated[str, Field(min_length=1, max_length=63)]
    """The runtime image variant, a key of the operator's `runtimes` setting."""
    provider: Annotated[str, Field(min_length=1, max_length=63)]
    """The execution provider that must really be in use, as the runtime names it: for LiteRT and OpenVINO on
    the CPU `CPU`, for a delegate the name of its library (`edgetpu` for `libedgetpu.so.1`)."""
    provider_options: Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=32)] = {}
    """Options of the provider, device or delegate, in its own words."""
    delegate: (
        Annotated[
            str,
            Field(
                min_length=2,
                max_length=256,
                pattern="^/",
                json_schema_extra=rules(
                    (
                        "self.startsWith('/')",
                        "delegate must be the path of a library in the pod, beginning with /",
                    )
                ),
            ),
        ]
        | None
    ) = None
    """The library of a LiteRT delegate, by its path in the pod."""
    allow_cpu_fallback: bool = Field(default=False, alias="allowCPUFallback")
    """Let the CPU compute those operations of a model that the provider lacks."""

    @model_validator(mode="after")
    def _require_options_that_fit(self) -> Self:
        if self.delegate is not None and self.format is not ModelFormat.TFLITE:
            raise ValueError("only TFLite models are computed by a delegate")
        if any("=" in key or len(key) > 128 for key in self.provider_options):
            raise ValueError("the name of a provider option has at most 128 characters and no `=`")
        return self


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
