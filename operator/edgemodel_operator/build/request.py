"""What a build is asked, and what it answers: the types between the operator and its build worker."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, SecretStr, SerializationInfo, field_serializer

from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.image import PlatformName
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.layout import ASSEMBLER
from edgemodel_operator.core.build_key import BuildInputs, build_key
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.layer import COMPRESSOR
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.settings import SourceSettings

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

    @field_serializer("password", when_used="json")
    def _write_password(self, password: SecretStr, info: SerializationInfo) -> str:
        revealed = isinstance(info.context, dict) and info.context.get(REVEAL) is True
        return password.get_secret_value() if revealed else str(password)


class BuildRequest(Schema):
    """One image to build: one model on one runtime image."""

    model_config = ConfigDict(hide_input_in_errors=True)

    model_name: Annotated[
        str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    ]
    """The name under which the model is served: its folder in the image."""
    model: ModelSpec
    """Its format, its version, where its files lie and their SHA-256, and what it makes of pictures."""
    runtime: Annotated[str, Field(pattern=r"@sha256:[0-9a-f]{64}$")]
    """The runtime image, by digest: `host/repository@sha256:…`."""
    repository: str
    """The repository to push to: `host[:port]/path`."""
    platforms: tuple[PlatformName, ...] = ()
    """The platforms to build; empty: every platform of the runtime image."""
    credentials: Annotated[tuple[Login, ...], Field(repr=False)] = ()
    """For the registries of the runtime image, the source and the target."""
    push_secret: str = ""
    """The name of the Secret that the push credentials come from: for messages alone."""
    plain_http: tuple[str, ...] = ()
    """Registries (`host[:port]`) that are spoken to without TLS."""
    source_limits: SourceSettings = SourceSettings()
    """What the source may do."""

    @property
    def inputs(self) -> BuildInputs:
        """Everything that decides the bytes of the image."""
        model, pictures = self.model, self.model.preprocessing
        return BuildInputs(
            model_name=self.model_name,
            model_version=model.version,
            model_format=model.format.value,
            source_sha256=model.source.digests[0],
            runtime_digest=self.runtime.rpartition("@")[2],
            platforms=tuple(platform.value for platform in self.platforms),
            assembler=ASSEMBLER,
            compressor=COMPRESSOR,
            weights_sha256="".join(model.source.digests[1:]),
            preprocessing=canonical_json(pictures.to_raw()).decode() if pictures else "",
        )

    @property
    def build_key(self) -> str:
        """The key of the image (64 hex digits)."""
        return build_key(self.inputs)

    @property
    def runtime_reference(self) -> Reference:
        """The runtime image; raises InvalidReference."""
        return parse_reference(self.runtime)

    @property
    def target_reference(self) -> Reference:
        """The repository to push to; raises InvalidReference."""
        return parse_reference(self.repository)

    def logins(self) -> dict[str, Credential]:
        """Give the credentials as the registry client takes them."""
        return {
            login.host: Credential(login.username, login.password.get_secret_value())
            for login in self.credentials
        }


class BuildResult(Schema):
    """A finished build: everything that the digest names is in the repository."""

    index_digest: str
    """`sha256:…` of the index."""
    image: str
    """`host/repository@sha256:…`."""
    platforms: tuple[str, ...]
    """The platforms of the index, sorted."""
    model_sha256: str
    """SHA-256 of the model file (hex)."""
    model_size: int
    """Size of all files of the model (bytes)."""
    build_key: str
    """The key under which the image can be found again."""
    reused: bool
    """Whether a complete image existed under the key."""
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
