"""EdgeModel: what a user writes to have one model run on every edge node that should run it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, list_map, rules
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus

SHA256_RULE = (
    "self.matches('^[0-9a-f]{64}$')",
    "sha256 must be 64 lower-case hex digits: write what `sha256sum FILE` prints",
)
SHA256_PATTERN = r"^[0-9a-f]{64}$"
NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"

ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME_PATTERN)]
Sha256 = Annotated[
    str, Field(pattern=SHA256_PATTERN, min_length=1, max_length=128, json_schema_extra=rules(SHA256_RULE))
]


class ModelFormat(StrEnum):
    """The file formats that a runtime can load."""

    ONNX = "ONNX"


class HttpSource(Schema):
    """A model file behind an HTTP(S) URL."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.url.startsWith('https://') || (has(self.insecure) && self.insecure)",
                "url must start with https://; to load over plain http inside a plant, add `insecure: true`",
            ),
        )
    )

    url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=2048,
            pattern=r"^https?://[^\s/@]+(/\S*)?$",
            json_schema_extra=rules(
                (
                    r"self.matches('^https?://[^\\s/@]+(/\\S*)?$')",
                    "url must look like https://host/path and must not hold a user name or password",
                ),
            ),
        ),
    ]
    """Where the file lies."""
    sha256: Sha256
    """The SHA-256 of the file, in lower-case hex; nothing else is ever put into an image."""
    insecure: bool = False
    """Allow plain http. The file is still checked against `sha256`."""

    @model_validator(mode="after")
    def _refuse_plain_http(self) -> Self:
        if not self.insecure and not self.url.startswith("https://"):
            raise ValueError("url must start with https://; for plain http add `insecure: true`")
        return self


class OciSource(Schema):
    """A model file inside an OCI artifact or image."""

    reference: Annotated[
        str,
        Field(
            min_length=1,
            max_length=512,
            pattern="/",
            json_schema_extra=rules(
                (
                    "self.contains('/')",
                    "reference must name its registry: write host[:port]/repository@sha256:<digest> or :tag",
                ),
            ),
        ),
    ]
    """The artifact: `host[:port]/repository@sha256:…` or `:tag`."""
    path: Annotated[str, Field(max_length=512)] = ""
    """The file inside: the title of a layer, or a path in an image. Empty: its only `.onnx` file."""
    sha256: Sha256
    """The SHA-256 of the file, in lower-case hex; nothing else is ever put into an image."""


class Source(Schema):
    """Where the model file comes from: exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.http), has(self.oci)].filter(given, given).size() == 1",
                "give exactly one source: write either `http:` or `oci:`, not both and not none",
            ),
        )
    )

    http: HttpSource | None = None
    """A file behind an HTTP(S) URL."""
    oci: OciSource | None = None
    """A file in an OCI artifact or image."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        if (self.http is None) == (self.oci is None):
            raise ValueError("give exactly one source: `http` or `oci`")
        return self

    @property
    def sha256(self) -> str:
        """The SHA-256 that the file must have (64 hex digits)."""
        chosen = self.http or self.oci
        if chosen is None:
            raise ValueError("a source without http and oci cannot be constructed")
        return chosen.sha256


class ModelSpec(Schema):
    """The model itself."""

    format: ModelFormat
    """The file format."""
    source: Source
    """Where the file comes from."""
    version: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        ),
    ]
    """The user's own name for this version; clients see it in the model's metadata."""


class SecretName(Schema):
    """A Secret in the namespace of the EdgeModel."""

    name: ObjectName
    """The name of the Secret."""


class PlatformName(StrEnum):
    """The platforms that an image can hold."""

    LINUX_AMD64 = "linux/amd64"
    LINUX_ARM64 = "linux/arm64"


class ImageSpec(Schema):
    """The image that is built."""

    repository: Annotated[
        str,
        Field(
            min_length=3,
            max_length=255,
            pattern=r"^[a-zA-Z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$",
            json_schema_extra=rules(
                (
                    "self.matches('^[a-zA-Z0-9.-]+(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+$')",
                    "repository takes no tag and no digest: write host[:port]/path, the path in lower case",
                ),
            ),
        ),
    ]
    """The repository to push to: `host[:port]/path`, without tag or digest."""
    platforms: Annotated[tuple[PlatformName, ...], Field(max_length=8)] = ()
    """The platforms to build. Empty: every platform of the runtime image, so that a new node never changes
    the image of the others."""
    pull_secrets: Annotated[
        tuple[SecretName, ...], Field(max_length=8, json_schema_extra=list_map("name"))
    ] = ()
    """Secrets of type `kubernetes.io/dockerconfigjson` with which nodes pull, and the operator pushes."""
    push_secret: SecretName | None = None
    """The Secret with which the operator pushes, where it differs from the pull secrets."""


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
    """PerNode: one pod on every matching node."""
    node_selector: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)] = {}
    """The labels that a node must carry. Empty: every node."""


class ConfigMapName(Schema):
    """A ConfigMap in the namespace of the EdgeModel."""

    name: ObjectName
    """The name of the ConfigMap."""


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
    """How long (seconds) an updated node may take to get its pod ready before it counts as failed."""


class Ports(Schema):
    """The ports of the pods and of the Service."""

    http: Annotated[int, Field(ge=1024, le=65535)] = 8080
    """The Open Inference Protocol over REST, health and metrics."""


class Serving(Schema):
    """How clients reach the model."""

    ports: Ports = Ports()
    """The ports of the pods and of the Service."""


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
    """How clients reach the model."""


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
