"""EdgeModel: what a user writes to have one model run on every edge node that should run it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, list_map, rules
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.api.references import ConfigMapName, ObjectName
from edgemodel_operator.api.serving import Serving


class Target(Schema):
    """One rung of the ladder."""

    accelerator: ObjectName
    """The name of an AcceleratorClass."""


class PlacementMode(StrEnum):
    """How many pods of the model run."""

    PER_NODE = "PerNode"


class Placement(Schema):
    """On which nodes the model runs."""

    mode: PlacementMode = PlacementMode.PER_NODE
    """PerNode: one pod on every matching node that fits a target and has no taint that keeps pods away."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    """The labels that a node must carry. Empty: every node. A node with a taint `NoSchedule` or `NoExecute`
    that is not one of Kubernetes' own about its state is never used: nothing can tolerate one yet."""


class Golden(Schema):
    """Requests with known answers. A pod that answers differently never gets traffic."""

    config_map: ConfigMapName
    """The ConfigMap; its key `golden.json` holds `{"inputs": […], "outputs": […]}`, tensors as in the
    Open Inference Protocol."""
    tolerance: Annotated[
        str,
        Field(
            min_length=1,
            max_length=32,
            pattern=r"^[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?$",
            json_schema_extra=rules(
                (
                    r"self.matches('^[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?$')",
                    'tolerance must be a decimal number that is not negative, in quotes: for example "1e-2"',
                ),
            ),
        ),
    ] = "1e-3"
    """The largest absolute difference to an expected value that still passes."""


class Health(Schema):
    """What a pod must prove before a node counts as updated."""

    golden: Golden | None = None
    """The golden sample. Without one a pod is only checked for loading and staying up."""
    require_accelerator: bool = True
    """Refuse a pod whose runtime fell back to another execution provider than its AcceleratorClass names."""
    probation_seconds: Annotated[int, Field(ge=0, le=86400)] = 30
    """How long (seconds) a new pod must stay ready without a restart before its node counts as updated."""


class Wave(Schema):
    """One step of a rollout: how many nodes may run the new revision, counted from the beginning."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.nodes) != has(self.percent)",
                "give each wave exactly one size: `nodes: 1` or `percent: 25`",
            ),
            (
                "!has(self.percent) || (self.percent >= 1 && self.percent <= 100)",
                "a wave needs a percent from 1 to 100: one of 0 % would update nothing, leave it out instead",
            ),
            (
                "!has(self.nodes) || self.nodes >= 1",
                "a wave needs at least one node: write `nodes: 1` or leave it out",
            ),
        )
    )

    nodes: int | None = None
    """How many nodes, from 1."""
    percent: int | None = None
    """How many of all matching nodes, from 1 to 100, rounded up."""
    soak_seconds: Annotated[int, Field(ge=0, le=604800)] = 0
    """How long (seconds) to watch the finished wave before the next one starts."""

    @model_validator(mode="after")
    def _require_a_size(self) -> Self:
        if (self.nodes is None) == (self.percent is None):
            raise ValueError("give each wave exactly one size: `nodes` or `percent`")
        if self.nodes is not None and self.nodes < 1:
            raise ValueError("a wave needs at least one node")
        if self.percent is not None and not 1 <= self.percent <= 100:
            raise ValueError("a wave needs a percent from 1 to 100")
        return self


class OnFailure(StrEnum):
    """What happens when too many nodes failed."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class Rollout(Schema):
    """How a new revision reaches the nodes."""

    waves: Annotated[
        tuple[Wave, ...],
        Field(
            max_length=32,
            min_length=1,
            json_schema_extra=rules(
                (
                    "size(self) > 0",
                    "name at least one wave, for example [{percent: 100}], or leave `waves` out",
                )
            ),
        ),
    ] = (Wave(nodes=1), Wave(percent=25), Wave(percent=100))
    """The waves, in order. After the last one every matching node is updated, whatever its size."""
    max_failures: Annotated[int, Field(ge=1, le=100)] = 1
    """The rollout stops when this many nodes have failed. Nodes that were offline before they were
    touched are deferred and never counted."""
    on_failure: OnFailure = OnFailure.ROLLBACK
    """Rollback: every node goes back to the last revision that passed. Pause: all stays as it is."""
    paused: bool = False
    """Touch no further node; nodes under trial still finish it."""
    progress_deadline_seconds: Annotated[int, Field(ge=30, le=86400)] = 600
    """How long (seconds) an updated node may take to get its pod ready before it counts as failed; as long
    may one that passed be without an answer while the rollout goes on."""


class EdgeModelSpec(Schema):
    """What the user asks for. The operator never writes here."""

    model: ModelSpec
    """The model itself."""
    image: ImageSpec
    """The image that is built."""
    targets: Annotated[
        tuple[Target, ...],
        Field(
            min_length=1,
            max_length=16,
            json_schema_extra=list_map("accelerator")
            | rules(("size(self) > 0", "name at least one target, for example [{accelerator: cpu}]")),
        ),
    ]
    """The ladder: a node takes the first AcceleratorClass that it fits."""
    placement: Placement = Placement()
    """On which nodes the model runs."""
    health: Health = Health()
    """What a pod must prove before a node counts as updated."""
    rollout: Rollout = Rollout()
    """How a new revision reaches the nodes."""
    serving: Serving = Serving()
    """How clients reach the model, and what its server may use for them."""


class EdgeModel(Schema):
    """One model, and the nodes that shall run it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.metadata.name.matches('^[a-z]([-a-z0-9]{0,50}[a-z0-9])?$')",
                "the name becomes that of a Service: at most 52 of a-z, 0-9 and `-`, a letter first",
            ),
        )
    )

    spec: EdgeModelSpec
    """What the user asks for."""
    status: EdgeModelStatus | None = None
    """What the operator observed."""
