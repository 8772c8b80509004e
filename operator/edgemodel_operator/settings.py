"""The settings of the programs: the only reader of the environment and of the configuration file.

The chart renders the file from `values.yaml`; unknown keys are refused, so that a typing error is seen at
start and not in an incident.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.image import PlatformName
from edgemodel_operator.api.model import Origin

_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_UNITS |= {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_SHARED_PART = 15 / 16
"""Of the room for temporary files; the rest is for what is written between two measurements."""
DEFAULT_CONFIG = Path("/etc/edgemodel/config.yaml")


class InvalidSettings(Exception):  # noqa: N818 - reads as the fact it states
    """The configuration cannot be used; the message says which key and what to write."""


class RegistrySettings(Schema):
    """How registries are reached."""

    plain_http: tuple[str, ...] = ()
    """Hosts (`host[:port]`) that are spoken to without TLS."""
    allowed_upload_hosts: tuple[str, ...] = ()
    """Hosts (`host[:port]`) to which a registry may send uploads besides itself. They get no credentials."""
    certificate_authorities: str = ""
    """Certificates (PEM) of authorities that are trusted for registries, besides those of the system."""
    credentials_secret: str = ""
    """A Secret of type kubernetes.io/dockerconfigjson in the operator's namespace, with which the admission
    webhook, the audit and the agents on the nodes read signatures. Empty: none."""

    @field_validator("certificate_authorities")
    @classmethod
    def _read_certificates(cls, text: str) -> str:
        if text:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
            except (ssl.SSLError, TypeError, ValueError) as error:
                raise ValueError("write certificates in PEM, each from BEGIN to END CERTIFICATE") from error
        return text


class SourceSettings(Schema):
    """What model sources may do."""

    max_bytes: Annotated[int, Field(ge=1)] = 2 * 1024**3
    """The largest model file (bytes)."""
    timeout_seconds: Annotated[int, Field(ge=1)] = 1800
    """How long one download may take."""
    denied_networks: tuple[str, ...] = ()
    """CIDRs that no source may lie in, besides loopback, link-local and the like, which are always refused,
    and the Service and pod ranges that the cluster's own API tells."""
    allowed_networks: tuple[str, ...] = ()
    """CIDRs that sources may lie in although they would be refused, for example a loopback address in a test
    or one file server inside a denied range."""

    @field_validator("denied_networks", "allowed_networks")
    @classmethod
    def _read_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for text in networks:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(f"write networks as 10.43.0.0/16 or fd00::/8: {error}") from error
        return networks


PinnedImage = Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$")]
"""An image by digest: what a tag means can change between two builds."""


class BuildMode(StrEnum):
    """Where images are built that can be built anywhere."""

    PROCESS = "Process"
    """In a process of the operator."""
    JOB = "Job"
    """In a Kubernetes Job in the namespace of the EdgeModel."""


class Resources(Schema):
    """What the container of a build Job asks for and may use, as Kubernetes quantities."""

    requests: dict[str, str] = {"cpu": "100m", "memory": "256Mi"}
    """What the scheduler sets aside."""
    limits: dict[str, str] = {"memory": "4Gi"}
    """What the kernel allows."""


class NetworkMode(StrEnum):
    """What the commands of a Dockerfile reach."""

    NONE = "None"
    """Nothing: a Dockerfile has all that it needs in its context."""
    DEFAULT = "Default"
    """What the engine, or the network of the pod, gives every container."""


EngineUrl = Annotated[str, Field(pattern=r"^(unix:///|tcp://)\S+$")]
"""Where a Docker Engine listens: `unix:///path` or `tcp://host:port`."""


class DockerSettings(Schema):
    """The Docker Engines that build Dockerfiles."""

    engines: dict[PlatformName, EngineUrl] = {}
    """Platform → the engine that builds for it, on a machine of that architecture."""
    tls_secret_dir: str = ""
    """A folder with `ca.pem`, `cert.pem` and `key.pem` for engines at `tcp://`; a Secret is mounted there.
    Empty: engines at `tcp://` are refused, but for a loopback address, as of a sidecar."""
    emulation: bool = False
    """Let an engine of another architecture build, with the emulator that its machine has set up."""
    network: NetworkMode = NetworkMode.NONE
    """What the commands of a Dockerfile reach."""
    memory_bytes: Annotated[int, Field(ge=64 * 1024**2)] = 2 * 1024**3
    """Memory of each command of a Dockerfile (bytes); there is no swap."""
    timeout_seconds: Annotated[int, Field(ge=1)] = 1800
    """How long a Dockerfile may take on one engine."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 16 * 1024**3
    """The largest image that is taken from an engine, unpacked (bytes)."""


class BuildahSettings(Schema):
    """The Jobs that build Dockerfiles with Buildah."""

    image: Annotated[str, Field(pattern=r"^$|@sha256:[0-9a-f]{64}$")] = ""
    """The image `buildah` by digest. Empty: `builder: Buildah` is refused."""
    user_namespaces: bool = False
    """Whether pods get a user namespace of their own (`hostUsers: false`): with it a Dockerfile may use every
    user, without it root alone. Needs a cluster whose nodes can do that."""
    network: NetworkMode = NetworkMode.NONE
    """What the commands of a Dockerfile reach; `Default` is what the pod reaches."""
    max_image_bytes: Annotated[int, Field(ge=1)] = 16 * 1024**3
    """The largest layer that a Dockerfile may add, unpacked (bytes)."""


class BuildSettings(Schema):
    """How and where images are built."""

    docker: DockerSettings = DockerSettings()
    """The Docker Engines that build Dockerfiles."""
    buildah: BuildahSettings = BuildahSettings()
    """The Jobs that build Dockerfiles with Buildah."""
    mode: BuildMode = BuildMode.PROCESS
    """Where; what needs a Job (a `pvc` source, a conversion) runs in one in any case."""
    image: Annotated[str, Field(pattern=r"^$|@sha256:[0-9a-f]{64}$")] = ""
    """The operator's own image by digest, for Jobs. Empty: no digest is known, and Jobs are refused."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets, in the namespace of each EdgeModel, with which nodes pull the images of Jobs; the
    pull secrets of the EdgeModel are used as well."""
    converters: dict[Origin, PinnedImage] = {}
    """Origin → image, by digest, that carries its exporter beside the operator."""
    resources: Resources = Resources()
    """Of the container of a Job."""
    node_selector: dict[str, str] = {}
    """Labels that the node of a Job must have; the architecture that a Dockerfile is built for goes first."""
    work_size_limit: str = "8Gi"
    """Room on the node's disk for the files of one Job, as a Kubernetes quantity."""
    timeout_seconds: Annotated[int, Field(ge=60)] = 3600
    """How long a build may take, waiting for a node included."""
    max_concurrent_jobs: Annotated[int, Field(ge=1, le=64)] = 4
    """How many builds in Jobs run at once; they take no place of those in the operator."""
    finished_seconds: Annotated[int, Field(ge=60)] = 3600
    """How long a finished Job is kept, for reading its log."""


class SigningCommand(Schema):
    """A program of the site's own that signs: with a key of a hardware module or of a key service."""

    argv: tuple[str, ...] = ()
    """The program and its arguments. It gets the SHA-256 of what is to be signed as 32 bytes on standard
    input, and writes the signature as base64 to standard output. Empty: there is none."""
    public_key: str = ""
    """The other half of its key (PEM)."""

    @model_validator(mode="after")
    def _give_both(self) -> SigningCommand:
        if bool(self.argv) != bool(self.public_key):
            raise ValueError("give signing.command.argv and signing.command.publicKey, or none of them")
        return self


class SigningSettings(Schema):
    """Who signs what the operator builds, and what may be signed. The program `edgemodel-signer` does it."""

    secret_names: tuple[str, ...] = ("edgemodel-signing-key",)
    """Secrets in the operator's namespace, laid out as `cosign generate-key-pair k8s://` does. Each of them
    signs everything, so that a new key can be added before the old one is taken away."""
    command: SigningCommand = SigningCommand()
    """A program that signs with a key which it keeps, besides the Secrets."""
    repositories: tuple[str, ...] = ("**",)
    """Repositories (`host[:port]/path`) about which something may be signed; `*` stays within one segment,
    `**` crosses them."""

    @model_validator(mode="after")
    def _name_a_key(self) -> SigningSettings:
        if not self.secret_names and not self.command.argv:
            raise ValueError("name a Secret in signing.secretNames, or give signing.command")
        return self


class SignerSettings(Schema):
    """The program that holds the signing keys, and how the operator reaches it."""

    service_name: str = "edgemodel-signer"
    """The Service in front of it."""
    secret_name: str = "edgemodel-signer-tls"  # noqa: S105 - the name of a Secret, not a secret
    """The Secret in which it keeps its CA and certificate."""
    config_map_name: str = "edgemodel-signer-ca"
    """The ConfigMap in which it says which CA to accept."""
    operator_account: str = "edgemodel-operator"
    """The service account, in the operator's namespace, that may have something signed."""
    token_file: str = "/var/run/secrets/edgemodel-signer/token"  # noqa: S105 - a path
    """Where the operator finds its token for the signer."""
    port: int = 8443
    """The HTTPS port."""


class AdmissionSettings(Schema):
    """The admission webhook."""

    service_name: str = "edgemodel-admission"
    """The Service in front of it."""
    secret_name: str = "edgemodel-admission-tls"  # noqa: S105 - the name of a Secret, not a secret
    """The Secret in which it keeps its CA and certificate."""
    webhook_name: str = "edgemodel-admission"
    """The ValidatingWebhookConfiguration whose `caBundle` it maintains."""
    port: int = 8443
    """The HTTPS port."""


class LabelRequirement(Schema):
    """One term of a label selector."""

    key: str
    """The label."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How it is compared."""
    values: tuple[str, ...] = ()
    """With what; empty for the last two operators."""


class LabelSelector(Schema):
    """A label selector as Kubernetes writes it; empty selects everything."""

    match_labels: dict[str, str] = {}
    """Labels and their values: all of them."""
    match_expressions: tuple[LabelRequirement, ...] = ()
    """Further terms: all of them."""


class Unmatched(StrEnum):
    """What a node does with images that no TrustPolicy covers."""

    ALLOW = "Allow"
    DENY = "Deny"


class NodeSettings(Schema):
    """The agent that verifies images on each node when containerd pulls them."""

    daemon_set: str = "edgemodel-node"
    """The agent's DaemonSet in the operator's namespace; when it is deleted, the agent leaves the node."""
    image: str = ""
    """The agent's own image by digest, which its node may always pull."""
    state_dir: str = "/var/lib/edgemodel-node"
    """A folder of the node for what the agent remembers, and its client."""
    bin_dir: str = "/opt/containerd/image-verifier/bin"
    """The folder in which containerd looks for programs to ask; its parent is the agent's as well."""
    kubelet_dir: str = "/var/lib/kubelet"
    """The kubelet's folder on the node."""
    unmatched: Unmatched = Unmatched.ALLOW
    """What to do with images that no TrustPolicy covers."""
    exempt: tuple[str, ...] = ()
    """Globs over `host[:port]/repository` of images that are pulled unverified."""


class AuditSettings(Schema):
    """The background audit of what runs."""

    interval_seconds: Annotated[int, Field(ge=10)] = 300
    """How often everything is looked at again; changes are looked at within seconds."""
    namespace_selector: LabelSelector = LabelSelector()
    """The namespaces that the admission webhook judges: there an image needs a policy."""


class NamedClass(Schema):
    """An AcceleratorClass that the chart ships as data."""

    name: str
    """Its name."""
    spec: AcceleratorClassSpec
    """What it is."""


class Settings(Schema):
    """Everything that is configured."""

    runtimes: dict[str, str] = {}
    """Runtime variant → image by digest."""
    registries: RegistrySettings = RegistrySettings()
    """How registries are reached."""
    sources: SourceSettings = SourceSettings()
    """What model sources may do."""
    builds: BuildSettings = BuildSettings()
    """How and where images are built."""
    signing: SigningSettings = SigningSettings()
    """Who signs what the operator builds."""
    signer: SignerSettings = SignerSettings()
    """The program that holds the signing keys."""
    admission: AdmissionSettings = AdmissionSettings()
    """The admission webhook."""
    node: NodeSettings = NodeSettings()
    """The agent on each node."""
    audit: AuditSettings = AuditSettings()
    """The background audit of what runs."""
    accelerator_classes: tuple[NamedClass, ...] = ()
    """Classes that the operator applies at start; users add their own as objects."""
    namespace: str = "edgemodel-system"
    """The namespace of the operator (environment: POD_NAMESPACE)."""
    pod_name: str = ""
    """The name of this pod (environment: POD_NAME)."""
    pod_uid: str = ""
    """The identity of this pod (environment: POD_UID)."""
    log_level: str = "INFO"
    """The lowest level that is logged."""
    max_concurrent_builds: Annotated[int, Field(ge=1, le=16)] = 2
    """How many images are built at once."""
    tmp_size_limit: Annotated[str, Field(pattern=r"^([0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?)?$")] = ""
    """Room on disk for the temporary files of all builds, as a Kubernetes quantity. Empty: the whole disk."""
    metrics_port: int = 8080
    """The port of metrics and probes."""

    @property
    def build_disk_bytes(self) -> int | None:
        """What one build may have of the room for temporary files (bytes); None: whatever the disk holds."""
        if not self.tmp_size_limit:
            return None
        return int(_count_bytes(self.tmp_size_limit) * _SHARED_PART) // self.max_concurrent_builds


def _count_bytes(quantity: str) -> float:
    number = quantity.rstrip("KMGTki")
    return float(number) * _UNITS[quantity.removeprefix(number)]


def load_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read the configuration file and the environment.

    EDGEMODEL_CONFIG names the file (default /etc/edgemodel/config.yaml; a missing file means all defaults).
    Raises InvalidSettings with a sentence.
    """
    environment = os.environ if environment is None else environment
    path = Path(environment.get("EDGEMODEL_CONFIG", str(DEFAULT_CONFIG)))
    values = _read(path) if path.exists() else {}
    for key, variable in (("namespace", "POD_NAMESPACE"), ("podName", "POD_NAME"), ("podUid", "POD_UID")):
        if environment.get(variable):
            values[key] = environment[variable]
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidSettings(f"{path}: {where}: {first['msg']}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise InvalidSettings(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise InvalidSettings(f"{path} must hold a YAML mapping")
    return values
