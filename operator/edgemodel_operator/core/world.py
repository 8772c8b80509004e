"""The world: everything that one pass has read, frozen, with the time at which it was read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, ModelReport
from edgemodel_operator.api.names import active_label, model_key, next_label


@dataclass(frozen=True)
class Model:
    """One EdgeModel object, validated."""

    namespace: str
    name: str
    uid: str
    generation: int
    spec: EdgeModelSpec
    status: EdgeModelStatus = field(default_factory=EdgeModelStatus)
    deleting: bool = False
    has_finalizer: bool = True

    @property
    def key(self) -> str:
        """The short key that stands for the model in labels."""
        return model_key(self.namespace, self.name)


@dataclass(frozen=True)
class Taint:
    """A taint of a node."""

    key: str
    effect: str


@dataclass(frozen=True)
class Node:
    """What matters of a node."""

    name: str
    uid: str
    ready: bool
    architecture: str
    labels: Mapping[str, str] = field(default_factory=dict)
    capacity: Mapping[str, int] = field(default_factory=dict)
    """Extended resources only: name → how many the device plugin offers."""
    taints: tuple[Taint, ...] = ()

    def active(self, key: str) -> str:
        """The assignment that serves here; empty if there is none."""
        return self.labels.get(active_label(key), "")

    def next(self, key: str) -> str:
        """The assignment under trial here; empty if there is none."""
        return self.labels.get(next_label(key), "")


@dataclass(frozen=True)
class Pod:
    """What matters of a pod of the model."""

    name: str
    uid: str
    node: str
    revision: str
    target: str
    role: str
    created: datetime
    ip: str = ""
    acknowledged: bool = False
    """Whether the kubelet has ever reported about it: only then can the pod have done harm to the node."""
    running: bool = False
    ready: bool = False
    ready_since: datetime | None = None
    restarts: int = 0
    terminating: bool = False
    waiting: str = ""
    """Why its container waits, for example ImagePullBackOff."""
    image: str = ""
    """The image of its container."""


@dataclass(frozen=True)
class Answer:
    """What a pod under trial answered when it was asked by the operator."""

    reachable: bool
    ready: bool = False
    provider: str = ""
    reason: str = ""
    """Why it is not ready, or why its answer is wrong: one CamelCase word."""
    message: str = ""


@dataclass(frozen=True)
class Workload:
    """A DaemonSet of the model."""

    name: str
    revision: str
    target: str
    role: str
    image: str = ""
    """The image of its pods."""


class SupplyStage(StrEnum):
    """How far the image of a variant is."""

    MISSING = "Missing"
    RUNNING = "Running"
    SIGNED = "Signed"
    FAILED = "Failed"


class SupplyStep(StrEnum):
    """The steps from a source to a signed image; a failure names the one in which it happened."""

    PREPARE = "Prepare"
    """Nothing of the source is known yet: the runtime image is read, the repository is asked."""
    SOURCE = "Source"
    BUILD = "Build"
    SIGN = "Sign"


@dataclass(frozen=True)
class Supply:
    """The state of the image of one runtime variant under one build key."""

    stage: SupplyStage
    step: SupplyStep = SupplyStep.SOURCE
    build_key: str = ""
    image: str = ""
    """`name@sha256:…`, once the image is signed."""
    platforms: tuple[str, ...] = ()
    report: ModelReport | None = None
    """What is known of the model, once it was fetched."""
    progress: str = ""
    reason: str = ""
    message: str = ""
    retry_at: datetime | None = None
    """When another try is worth it: of one that failed, or of a signed image that turns out to be lost."""
    needs_person: bool = False
    """Whether the failure lasts until somebody mends something."""
    earlier: Supply | None = None
    """While it is tried again: the failure of the last try, which holds until this one has an end."""


class Trust(StrEnum):
    """What verification said."""

    TRUSTED = "Trusted"
    UNTRUSTED = "Untrusted"
    UNKNOWN = "Unknown"


@dataclass(frozen=True)
class Verdict:
    """What verification said about one image, and why."""

    trust: Trust
    reason: str = ""
    message: str = ""
    needs_person: bool = False
    """Whether an image of which nothing is known stays so until somebody mends something."""


@dataclass(frozen=True)
class Sweep:
    """How it goes to remove the images of a model that nothing needs any more."""

    gone: frozenset[str] = frozenset()
    """Images of which nothing is left, or that turned out not to be ours."""
    reason: str = ""
    """Why the last try failed: one CamelCase word; empty if it did not."""
    message: str = ""
    """The same as a sentence."""
    failures: int = 0
    """How many tries have failed since one worked."""
    is_final: bool = False
    """Whether trying again is in vain until somebody mends something."""


@dataclass(frozen=True)
class GoldenSample:
    """The golden sample as the user's ConfigMap holds it now."""

    text: str = ""
    problem: str = ""
    """Why there is none though the spec names one: a sentence."""
    reason: str = "GoldenSampleNotFound"
    """The same as one CamelCase word."""


@dataclass(frozen=True)
class World:
    """Everything that a pass has read."""

    now: datetime
    model: Model
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """By the UID of the pod."""
    workloads: tuple[Workload, ...] = ()
    golden_copies: tuple[str, ...] = ()
    """The names of the immutable copies of golden samples."""
    classes: Mapping[str, AcceleratorClassSpec] = field(default_factory=dict)
    runtimes: Mapping[str, str] = field(default_factory=dict)
    """Runtime variant → image by digest."""
    supplies: Mapping[str, Supply] = field(default_factory=dict)
    """By runtime variant."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """By image."""
    golden: GoldenSample = GoldenSample()
    name_is_taken: bool = False
    """Whether a Service of the model's name exists that is not ours."""
    claimed: frozenset[str] | None = None
    """The images that other models have recorded; None: they were not asked, as long as nothing is to be
    removed."""
    sweep: Sweep = Sweep()
    """How it goes to remove images."""

    def assigned_revisions(self) -> frozenset[str]:
        """Name the revisions that any node has, matching or not, online or not."""
        key = self.model.key
        values = (value for node in self.nodes for value in (node.active(key), node.next(key)) if value)
        return frozenset(value.partition(".")[0] for value in values)
