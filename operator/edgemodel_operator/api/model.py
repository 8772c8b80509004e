"""The model in an EdgeModel: its format, where its files come from, and what it makes of pictures."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, rules
from edgemodel_operator.api.preprocessing import Preprocessing

SHA256_RULE = (
    "self.matches('^[0-9a-f]{64}$')",
    "sha256 must be 64 lower-case hex digits: write what `sha256sum FILE` prints",
)
SHA256_PATTERN = r"^[0-9a-f]{64}$"

Sha256 = Annotated[
    str, Field(pattern=SHA256_PATTERN, min_length=1, max_length=128, json_schema_extra=rules(SHA256_RULE))
]
Url = Annotated[
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


class ModelFormat(StrEnum):
    """The file formats that a runtime can load."""

    ONNX = "ONNX"
    TFLITE = "TFLite"
    OPENVINO = "OpenVINO"

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of its files end: the one that the runtime is given, then its weights."""
        return {
            ModelFormat.ONNX: (".onnx",),
            ModelFormat.TFLITE: (".tflite",),
            ModelFormat.OPENVINO: (".xml", ".bin"),
        }[self]


class HttpFile(Schema):
    """A file behind an HTTP(S) URL."""

    url: Url
    """Where the file lies."""
    sha256: Sha256
    """The SHA-256 of the file, in lower-case hex; nothing else is ever put into an image."""


class HttpSource(HttpFile):
    """A model file behind an HTTP(S) URL."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "(has(self.insecure) && self.insecure) || (self.url.startsWith('https://') && "
                    "(!has(self.weights) || self.weights.url.startsWith('https://')))"
                ),
                "url must start with https://; to load over plain http inside a plant, add `insecure: true`",
            ),
        )
    )

    insecure: bool = False
    """Allow plain http. The file is still checked against `sha256`."""
    weights: HttpFile | None = None
    """The weights, where the format keeps them in a file of their own: the `.bin` of an OpenVINO IR."""

    @model_validator(mode="after")
    def _refuse_plain_http(self) -> Self:
        urls = [self.url, *([self.weights.url] if self.weights else ())]
        if not self.insecure and not all(url.startswith("https://") for url in urls):
            raise ValueError("url must start with https://; for plain http add `insecure: true`")
        return self


class OciFile(Schema):
    """A file inside an OCI artifact or image."""

    path: Annotated[str, Field(max_length=512)] = ""
    """The file inside: the title of a layer, or a path in an image. Empty: the only file whose name ends as
    the format asks (`.onnx`, `.tflite`, `.xml`; weights: `.bin`)."""
    sha256: Sha256
    """The SHA-256 of the file, in lower-case hex; nothing else is ever put into an image."""


class OciSource(OciFile):
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
    weights: OciFile | None = None
    """The weights, where the format keeps them in a file of their own: the `.bin` of an OpenVINO IR."""


class Source(Schema):
    """Where the model comes from: exactly one of the fields."""

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
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 (64 hex digits) of each file: the model, then its weights where they are apart."""
        chosen = self.http or self.oci
        if chosen is None:
            raise ValueError("a source without http and oci cannot be constructed")
        return (chosen.sha256, *([chosen.weights.sha256] if chosen.weights else ()))


_WEIGHTS = "(has(self.source.http) ? has(self.source.http.weights) : has(self.source.oci.weights))"


class ModelSpec(Schema):
    """The model itself."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "!(has(self.source.http) || has(self.source.oci)) || "
                    f"{_WEIGHTS} == (self.format == 'OpenVINO')"
                ),
                (
                    "an OpenVINO IR is two files, so give its .bin as `weights` of the source; "
                    "ONNX and TFLite models are one file, so leave `weights` out"
                ),
            ),
        )
    )

    format: ModelFormat
    """The file format. TFLite files are also called LiteRT models; OpenVINO means its IR, a `.xml` with a
    `.bin`."""
    source: Source
    """Where the files come from."""
    version: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        ),
    ]
    """The user's own name for this version; clients see it in the model's metadata."""
    preprocessing: Preprocessing | None = None
    """How a picture becomes the model's input. With it, clients may send JPEG and PNG files as requests."""

    @model_validator(mode="after")
    def _require_all_files(self) -> Self:
        if len(self.source.digests) != len(self.format.suffixes):
            raise ValueError(
                "an OpenVINO IR is two files, the other formats are one: give `weights` for OpenVINO only"
            )
        return self
