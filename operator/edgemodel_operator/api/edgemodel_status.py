"""EdgeModelStatus: what the operator observed, and the intents that it must remember across restarts."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from edgemodel_operator.api.base import Observed, list_map
from edgemodel_operator.api.conditions import Condition

Text = Annotated[str, Field(max_length=512)]
Name = Annotated[str, Field(max_length=253)]


class RevisionTarget(Observed):
    """One rung of the ladder as a revision fixed it: all that its pods need of an AcceleratorClass."""

    accelerator: Name
    """The name of the AcceleratorClass."""
    image: Text
    """The image, by digest."""
    provider: Name
    """The execution provider that the pods must really use."""
    runtime_options: Annotated[tuple[Text, ...], Field(max_length=80)] = ()
    """What the server is told of its runtime, as it stands on its command line."""
    exclusive: bool = False
    """Whether a node can hold only one pod of this target at a time."""
    extended_resource: Name = ""
    """The extended resource of which each pod holds one."""
    runtime_class_name: Name = ""
    """The RuntimeClass of the pods."""
    env: dict[str, str] = {}
    """Environment variables of the pods."""
    platforms: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    """The platforms that the image holds, as `os/architecture`; none: not known, as in older records."""


class Revision(Observed):
    """Everything that decides what a pod of the model is; its hash is its name."""

    name: Name
    """The hash of all the other fields but the platforms, which the image tells: 10 hex digits."""
    model_version: Name
    """The user's name for the version of the model."""
    targets: Annotated[tuple[RevisionTarget, ...], Field(max_length=16)]
    """The ladder."""
    golden_config_map: Name = ""
    """The immutable copy of the golden sample that belongs to this revision."""
    golden_tolerance: Name = ""
    """The largest absolute difference that passes."""
    require_accelerator: bool = True
    """Whether another execution provider is refused."""
    http_port: int = 8080
    """The port of the pods for REST, health and metrics."""
    grpc_port: int = 0
    """The port of the pods for gRPC; 0: none, as in revisions of a server that had none."""
    server_options: Annotated[tuple[Text, ...], Field(max_length=32)] = ()
    """What the server is told besides, as it stands on its command line."""
    pull_secrets: Annotated[tuple[Name, ...], Field(max_length=8)] = ()
    """The names of the pull secrets of the pods."""


class NodeState(StrEnum):
    """How a matching node stands to the target revision."""

    UPDATED = "Updated"
    TRIAL = "Trial"
    PENDING = "Pending"
    DEFERRED = "Deferred"
    FAILED = "Failed"


class NodeReport(Observed):
    """A matching node that is not fine, and why."""

    name: Name
    """The node."""
    state: NodeState
    """Its state."""
    reason: Name
    """One CamelCase word."""
    message: Text = ""
    """One sentence."""


class NodeCounts(Observed):
    """How many matching nodes are in which state."""

    total: int = 0
    """Nodes that match the placement and fit a target."""
    ready: int = 0
    """Nodes on which a trusted pod of the model answers, whatever its revision."""
    updated: int = 0
    """Nodes on which the target revision passed its trial."""
    trial: int = 0
    """Nodes on which the target revision is under trial."""
    pending: int = 0
    """Nodes whose wave has not come."""
    deferred: int = 0
    """Nodes that were offline before they were touched; they are updated when they return."""
    failed: int = 0
    """Nodes on which the target revision failed."""
    summary: Name = ""
    """Ready and total, for `kubectl get`."""


class TargetCount(Observed):
    """How many matching nodes take one target of the ladder."""

    accelerator: Name
    """The AcceleratorClass."""
    nodes: int
    """How many nodes take it."""


class FailedNode(Observed):
    """A node that counts against `maxFailures`."""

    name: Name
    """The node."""
    uid: Name = ""
    """Its UID: another node of the same name has not failed. Empty: whichever has the name."""
    reason: Name
    """One CamelCase word."""
    message: Text = ""
    """One sentence: the evidence."""
    at: Name = ""
    """When (RFC 3339)."""


class SilentNode(Observed):
    """A node on which the revision passed, and that does not answer any more."""

    name: Name
    """The node."""
    since: Name
    """Since when (RFC 3339)."""


class RolloutStatus(Observed):
    """The rollout of the target revision; written before the first node is touched."""

    revision: Name
    """The revision that is rolled out."""
    wave: int = 0
    """The wave under way, from 0."""
    waves: int = 0
    """How many waves there are."""
    started_at: Name = ""
    """When the rollout began (RFC 3339)."""
    touched_at: Name = ""
    """When the last node was touched; the progress deadline counts from here where there is no pod yet."""
    wave_completed_at: Name = ""
    """When the last node of the wave passed; its soak counts from here."""
    completed_at: Name = ""
    """When the last wave passed."""
    failed: Annotated[tuple[FailedNode, ...], Field(max_length=100, json_schema_extra=list_map("name"))] = ()
    """The nodes that count against `maxFailures`."""
    silent: Annotated[tuple[SilentNode, ...], Field(max_length=100, json_schema_extra=list_map("name"))] = ()
    """Nodes that passed and do not answer now: they fail after `progressDeadlineSeconds`."""


class Quarantine(Observed):
    """A revision that failed: it is never rolled out again."""

    revision: Name
    """The revision."""
    digests: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Its image digests."""
    reason: Name
    """One CamelCase word."""
    message: Text = ""
    """The evidence."""
    at: Name = ""
    """When (RFC 3339)."""


class VariantImage(Observed):
    """The image index built for one runtime variant."""

    variant: Name
    """The runtime variant."""
    build_key: Name
    """The hash of everything that went into it."""
    image: Text
    """The index, by digest."""
    platforms: Annotated[tuple[Name, ...], Field(max_length=16)] = ()
    """The platforms that it holds."""


class ModelFile(Observed):
    """A file as it came from its source."""

    name: Text
    """How the source calls it."""
    sha256: Name
    """Its SHA-256, in lower-case hex."""
    size: int = 0
    """Its size (bytes)."""


class ModelTensor(Observed):
    """An input or output of the model."""

    name: Text
    """Its name."""
    datatype: Name
    """Its type, as in the Open Inference Protocol."""
    shape: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Its dimensions: numbers, names of dimensions that vary, or `-1`."""


class OperatorSet(Observed):
    """A set of operators that the model is written in."""

    domain: Name
    """Its domain; `ai.onnx` for the standard one."""
    version: int
    """Its version."""


class ModelReport(Observed):
    """What the operator knows of the model's files."""

    source_key: Name = ""
    """A hash of source and version: a change of either resolves the source again."""
    files: Annotated[tuple[ModelFile, ...], Field(max_length=2)] = ()
    """What was fetched, the model (or archive) first: where the spec gives no SHA-256, this one holds."""
    inputs: Annotated[tuple[ModelTensor, ...], Field(max_length=64)] = ()
    """What goes in."""
    outputs: Annotated[tuple[ModelTensor, ...], Field(max_length=64)] = ()
    """What comes out."""
    operator_sets: Annotated[
        tuple[OperatorSet, ...], Field(max_length=32, json_schema_extra=list_map("domain"))
    ] = ()
    """The sets of operators that it is written in."""
    operators: Annotated[tuple[Name, ...], Field(max_length=256)] = ()
    """The operators that it uses, sorted: `Name`, `domain:Name` outside the standard domain, and
    `Name@version` in formats whose operators have versions of their own."""
    parameters: int = 0
    """How many numbers it stores."""
    size_bytes: int = 0
    """The size of its files."""
    estimated_memory_bytes: int = 0
    """What one copy needs in memory: what it stores, and the most that lies between its operators at a batch
    of one, where the shapes tell."""


class EdgeModelStatus(Observed):
    """What the operator observed."""

    observed_generation: int = 0
    """The generation of the spec that this status speaks of."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=16, json_schema_extra=list_map("type"))
    ] = ()
    """SourceResolved, Built, Signed, Trusted, Placed, Progressing, Available, Ready, Stalled; RegistryClean
    once images could not be removed."""
    model: ModelReport | None = None
    """What is known of the model's files."""
    images: Annotated[
        tuple[VariantImage, ...], Field(max_length=16, json_schema_extra=list_map("variant"))
    ] = ()
    """The images of the spec as it is now."""
    retained_images: Annotated[
        tuple[VariantImage, ...], Field(max_length=128, json_schema_extra=list_map("image"))
    ] = ()
    """Every image that was made for this model and is still in its repository, the last used first. Nothing
    else is ever removed from there; what falls off the end of the list stays there for good."""
    current_revision: Name = ""
    """The revision that the fleet runs or is moved to; it differs from the target after a rollback."""
    target_revision: Name = ""
    """The revision that the spec asks for."""
    last_known_good: Name = ""
    """The last revision that completed its rollout."""
    previous_good: Name = ""
    """The one that did before it, as long as nodes that come late may have to go back to it."""
    version: Name = ""
    """The model version of the current revision."""
    revisions: Annotated[tuple[Revision, ...], Field(max_length=8, json_schema_extra=list_map("name"))] = ()
    """The revisions that nodes run or may go back to, newest first."""
    rollout: RolloutStatus | None = None
    """The rollout of the target revision."""
    nodes: NodeCounts = NodeCounts()
    """How many nodes are in which state."""
    targets: Annotated[
        tuple[TargetCount, ...], Field(max_length=16, json_schema_extra=list_map("accelerator"))
    ] = ()
    """How many nodes take which target."""
    node_reports: Annotated[
        tuple[NodeReport, ...], Field(max_length=20, json_schema_extra=list_map("name"))
    ] = ()
    """The first 20 nodes that are not fine, by name."""
    quarantined: Annotated[
        tuple[Quarantine, ...], Field(max_length=8, json_schema_extra=list_map("revision"))
    ] = ()
    """Revisions that failed, newest first."""
