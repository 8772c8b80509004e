"""What a build is asked, and what it answers: the types between the operator and its build worker."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Field, SecretStr, SerializationInfo, field_serializer

from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.image import ImageSpec, Sharding
from edgemodel_operator.api.model import Conversion, ModelSpec
from edgemodel_operator.api.source import Source
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.layout import ASSEMBLER, COMPRESSORS
from edgemodel_operator.core.build_key import BuildInputs, build_key
from edgemodel_operator.core.pins import is_pinned, source_key
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.image_layout import parse_location
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.settings import BuildahSettings, DockerSettings, SourceSettings

REVEAL = "reveal"
"""Key of the serialization context under which passwords are written out: only for the worker's stdin."""


class Login(Schema):
    """A user name and a password for one registry."""

    host: str
    """`host[:port][/path]`, as in a docker configuration; the longest match wins."""
    username: str
    """The user name."""
    password: SecretStr
    """The password or token."""
    token_hosts: tuple[str, ...] = ()
    """Hosts that may be shown both for a token, besides the registry and its neighbours."""

    @classmethod
    def of(cls, host: str, credential: Credential) -> Login:
        """Write down the credential for a host."""
        return cls(
            host=host,
            username=credential.username,
            password=SecretStr(credential.password),
            token_hosts=credential.token_hosts,
        )

    @property
    def credential(self) -> Credential:
        """What a registry client takes."""
        return Credential(self.username, self.password.get_secret_value(), self.token_hosts)

    @field_serializer("password", when_used="json")
    def _write_password(self, password: SecretStr, info: SerializationInfo) -> str:
        return _reveal(password, info)


class Adoption(Schema):
    """An image that a Job pushed, and that is to be proved instead of built."""

    index_digest: str
    """`sha256:…` of its index."""
    fetched: tuple[ModelFile, ...]
    """Each file that the Job fetched, as it says."""


class BuildRequest(Schema):
    """One image to build: one model on one runtime image."""

    model_config = ConfigDict(hide_input_in_errors=True)

    model_name: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    ]
    """The name under which the model is served: its folder in the image."""
    model: ModelSpec
    """Its format, its version, where its files lie, and what it makes of pictures."""
    digests: tuple[str, ...] = ()
    """The SHA-256 of each file of the source, the main one first, where more is known than the spec says;
    an empty one: any content will do."""
    image: ImageSpec
    """Where the image goes, its platforms, and how it is made."""
    target: str = ""
    """Where the image goes instead of `image.repository`: a repository, or `oci:FOLDER` without a cluster."""
    runtime: Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$")]
    """The runtime image, by digest: `host/repository@sha256:…`, or `oci:FOLDER@sha256:…`."""
    credentials: Annotated[tuple[Login, ...], Field(repr=False)] = ()
    """For the registries of the runtime image, the source and the target."""
    source_secret: Annotated[dict[str, SecretStr], Field(repr=False, default_factory=dict)]
    """The fields of the Secret that the source names, in base64."""
    config_map: Annotated[dict[str, str], Field(repr=False, default_factory=dict)]
    """The entries of the ConfigMap that the source names, in base64."""
    context_secret: Annotated[dict[str, SecretStr], Field(repr=False, default_factory=dict)]
    """The fields of the Secret that the source of the Dockerfile's context names, in base64."""
    converter: str = ""
    """The image, by digest, that carries the exporter of the conversion, or the versions that are installed
    where no image is."""
    docker: DockerSettings = DockerSettings()
    """The engines that build Dockerfiles."""
    buildah: BuildahSettings = BuildahSettings()
    """How Jobs build Dockerfiles."""
    made_runtimes: tuple[str, ...] = ()
    """The runtime images that Jobs have made from the Dockerfile, `name@sha256:…`, one for each platform."""
    volume: str = ""
    """The folder where the volume of a `pvc` source is mounted; empty: none is."""
    plain_http: tuple[str, ...] = ()
    """Registries (`host[:port]`) that are spoken to without TLS."""
    upload_hosts: tuple[str, ...] = ()
    """Hosts (`host[:port]`) to which registries may send uploads besides themselves."""
    authorities: str = ""
    """Certificates (PEM) that are trusted for registries besides those of the system."""
    source_limits: SourceSettings = SourceSettings()
    """What the source may do."""
    adoption: Adoption | None = None
    """Given where the image was built by a Job."""

    @field_serializer("source_secret", "context_secret", when_used="json")
    def _write_secret(self, fields: dict[str, SecretStr], info: SerializationInfo) -> dict[str, str]:
        return {name: _reveal(value, info) for name, value in fields.items()}

    def inputs(self, digests: Sequence[str]) -> BuildInputs:
        """Give everything that decides the bytes of the image, for files of these SHA-256."""
        model, pictures = self.model, self.model.preprocessing
        return BuildInputs(
            model_name=self.model_name,
            model_version=model.version,
            model_format=model.format.value,
            source_sha256=digests[0],
            runtime_digest=self.runtime.rpartition("@")[2],
            platforms=tuple(platform.value for platform in self.image.platforms),
            assembler=ASSEMBLER,
            compressor=COMPRESSORS[self.image.compression].id,
            weights_sha256="".join(digests[1:]),
            archive=(model.source.archive.path or "/") if model.source.archive else "",
            preprocessing=canonical_json(pictures.to_raw()).decode() if pictures else "",
            sharding="" if self.image.sharding is Sharding.AUTO else self.image.sharding.value,
            conversion=_conversion(model.convert, self.converter),
            dockerfile=_dockerfile(self.image),
        )

    @property
    def build_key(self) -> str:
        """The build key (64 hex digits), or what stands for it as long as the source is not pinned."""
        digests = self.source.digests
        if is_pinned(digests):
            return build_key(self.inputs(digests))
        return build_key(self.inputs((f"unpinned:{source_key(self.model)}", *digests)))

    @property
    def source(self) -> Source:
        """The source, with every SHA-256 that is known."""
        source = self.model.source
        return source.pinned_to(self.digests) if self.digests else source

    @property
    def runtime_reference(self) -> Reference:
        """The runtime image; raises InvalidReference."""
        return parse_location(self.runtime)

    @property
    def target_reference(self) -> Reference:
        """The repository to push to; raises InvalidReference."""
        return parse_location(self.target or self.image.repository)

    def logins(self) -> dict[str, Credential]:
        """Give the credentials as the registry client takes them."""
        return {login.host: login.credential for login in self.credentials}

    def source_fields(self) -> dict[str, bytes]:
        """Give the fields of the source's Secret."""
        return {name: b64decode(value.get_secret_value()) for name, value in self.source_secret.items()}

    def context_fields(self) -> dict[str, bytes]:
        """Give the fields of the Secret of the Dockerfile's context."""
        return {name: b64decode(value.get_secret_value()) for name, value in self.context_secret.items()}

    def config_entries(self) -> dict[str, bytes]:
        """Give the entries of the source's ConfigMap."""
        return {name: b64decode(value) for name, value in self.config_map.items()}


def _conversion(conversion: Conversion | None, converter: str) -> str:
    """Give what decides the bytes of a conversion: what it is told, and the image with the exporter."""
    if conversion is None:
        return ""
    return canonical_json({**conversion.to_raw(), "converter": converter.rpartition("@")[2]}).decode()


def _dockerfile(image: ImageSpec) -> str:
    """Give what decides the runtime that a Dockerfile makes; where its context lies does not."""
    if image.dockerfile is None:
        return ""
    context = image.dockerfile.context
    said = {
        "args": dict(image.dockerfile.args),
        "builder": image.builder.value,
        "context": context.digests[0],
        "folder": context.archive.path if context.archive else "",
        "path": image.dockerfile.path,
    }
    return canonical_json(said).decode()


def _reveal(secret: SecretStr, info: SerializationInfo) -> str:
    revealed = isinstance(info.context, dict) and info.context.get(REVEAL) is True
    return secret.get_secret_value() if revealed else str(secret)


class BuildResult(Schema):
    """A finished build: everything that the digest names is in the repository."""

    index_digest: str
    """`sha256:…` of the index."""
    image: str
    """`host/repository@sha256:…`."""
    platforms: tuple[str, ...]
    """The platforms of the index, sorted."""
    report: ModelReport
    """What is known of the model: the digests of its files, and what is inside."""
    build_key: str
    """The key under which the image can be found again."""
    documents: Annotated[tuple[str, ...], Field(max_length=128)] = ()
    """The manifests (`sha256:…`) of the documents about the image, which somebody who signs can attest."""
    bytes_pushed: int
    """Blob bytes sent to the registry; mounted and existing blobs cost none."""
    seconds: dict[str, float]
    """How long each step took (seconds)."""


class Progress(Schema):
    """How far a step is."""

    step: Step
    """The step."""
    done: int = 0
    """Bytes done."""
    total: int | None = None
    """Bytes to do; None while unknown."""
