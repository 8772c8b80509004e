"""Where files come from: one of several kinds of source, each with its own names and ways to log in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, rules
from edgemodel_operator.api.references import ConfigMapName, ObjectName, SecretName

SHA256_PATTERN = r"^[0-9a-f]{64}$"
KINDS = ("http", "s3", "oci", "pvc", "configMap")
_FIELDS = ("http", "s3", "oci", "pvc", "config_map")

Sha256 = Annotated[
    str,
    Field(
        pattern=SHA256_PATTERN,
        min_length=1,
        max_length=128,
        json_schema_extra=rules(
            (
                "self.matches('^[0-9a-f]{64}$')",
                "sha256 must be 64 lower-case hex digits: write what `sha256sum FILE` prints",
            )
        ),
    ),
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


def _plain(path: str) -> str:
    if any(part in {"", ".", ".."} for part in path.split("/")):
        raise ValueError("a path is relative and plain: without a leading / and without `..`")
    return path


RelativePath = Annotated[
    str,
    Field(
        min_length=1,
        max_length=512,
        json_schema_extra=rules(
            (
                (
                    "!self.startsWith('/') && !self.endsWith('/') && "
                    "!self.split('/').exists(part, part == '' || part == '.' || part == '..')"
                ),
                "a path is relative and plain: write folder/model.onnx, without a leading / and without `..`",
            ),
        ),
    ),
    AfterValidator(_plain),
]
_HTTPS = "must start with https://; to load over plain http inside a plant, add `insecure: true`"


class Hashed(Schema):
    """A file that is known by its content."""

    sha256: Sha256 | None = None
    """The SHA-256 of the file, in lower-case hex; nothing else is ever put into an image. Left out: the first
    one that is seen is recorded in `status.model` and holds until `version` or the source changes."""


class HttpFile(Hashed):
    """A file behind an HTTP(S) URL."""

    url: Url
    """Where the file lies."""


class HttpSource(HttpFile):
    """A file behind an HTTP(S) URL."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "(has(self.insecure) && self.insecure) || (self.url.startsWith('https://') && "
                    "(!has(self.weights) || self.weights.url.startsWith('https://')))"
                ),
                f"url {_HTTPS}",
            ),
        )
    )

    insecure: bool = False
    """Allow plain http."""
    credentials_secret: SecretName | None = None
    """A Secret to log in with: `username` and `password` (type kubernetes.io/basic-auth), or `token` for a
    bearer token; `ca.crt` adds certificates to trust. Sent to the host of the URL alone, never to the
    target of a redirect."""
    weights: HttpFile | None = None
    """The weights, where they are in a file of their own: the `.bin` of an OpenVINO IR, the external data of
    an ONNX model."""

    @model_validator(mode="after")
    def _refuse_plain_http(self) -> Self:
        urls = [self.url, *([self.weights.url] if self.weights else ())]
        if not self.insecure and not all(url.startswith("https://") for url in urls):
            raise ValueError("url must start with https://; for plain http add `insecure: true`")
        return self


class S3File(Hashed):
    """An object of a bucket."""

    key: Annotated[str, Field(min_length=1, max_length=1024)]
    """The key of the object."""


class S3Source(S3File):
    """An object of an S3-compatible store."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "(has(self.insecure) && self.insecure) || !has(self.endpoint) || "
                    "self.endpoint.startsWith('https://')"
                ),
                f"endpoint {_HTTPS}",
            ),
        )
    )

    endpoint: Url = "https://s3.amazonaws.com"
    """Where the store answers: `https://host[:port]`."""
    bucket: Annotated[
        str,
        Field(
            min_length=3,
            max_length=63,
            pattern=r"^[a-z0-9][a-z0-9.-]+[a-z0-9]$",
            json_schema_extra=rules(
                (
                    "self.matches('^[a-z0-9][a-z0-9.-]+[a-z0-9]$')",
                    "bucket must be 3 to 63 lower-case letters, digits, dots and hyphens, without s3://",
                ),
            ),
        ),
    ]
    """The bucket."""
    region: Annotated[str, Field(min_length=1, max_length=63)] = "us-east-1"
    """The region that requests are signed for; most stores outside AWS take any."""
    insecure: bool = False
    """Allow plain http."""
    virtual_host_style: bool = False
    """Ask `bucket.host` instead of `host/bucket`."""
    credentials_secret: SecretName | None = None
    """A Secret with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, optionally `AWS_SESSION_TOKEN` and
    `ca.crt`. None: requests are not signed, for public buckets."""
    weights: S3File | None = None
    """The weights, where they are in an object of their own."""

    @model_validator(mode="after")
    def _refuse_plain_http(self) -> Self:
        if not self.insecure and not self.endpoint.startswith("https://"):
            raise ValueError("endpoint must start with https://; for plain http add `insecure: true`")
        return self


class OciFile(Hashed):
    """A file inside an OCI artifact or image."""

    path: Annotated[str, Field(max_length=512)] = ""
    """The file inside: the title of a layer, or a path in an image. Empty: the only file whose name ends as
    the format asks (`.onnx`, `.tflite`, `.xml`; weights: `.bin`)."""


class OciSource(OciFile):
    """A file inside an OCI artifact, a ModelPack or KitOps model, or an image."""

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
    credentials_secret: SecretName | None = None
    """A Secret of type kubernetes.io/dockerconfigjson, where the pull secrets of the image do not serve."""
    weights: OciFile | None = None
    """The weights, where they are in a file of their own."""


class PvcFile(Hashed):
    """A file of a volume."""

    path: RelativePath
    """The file in the volume."""


class PvcSource(PvcFile):
    """A file of a PersistentVolumeClaim in the namespace of the EdgeModel. It is read by a Job."""

    claim_name: ObjectName
    """The PersistentVolumeClaim."""
    weights: PvcFile | None = None
    """The weights, where they are in a file of their own."""


class ConfigMapFile(Hashed):
    """An entry of a ConfigMap."""

    key: Annotated[str, Field(min_length=1, max_length=253)]
    """The entry, of `binaryData` or `data`."""


class ConfigMapSource(ConfigMapFile, ConfigMapName):
    """An entry of a ConfigMap in the namespace of the EdgeModel: for models below 1 MiB."""

    weights: ConfigMapFile | None = None
    """The weights, where they are in an entry of their own."""


class Archive(Schema):
    """Says that the fetched file is an archive: tar, tar.gz, tar.zst or zip, told apart by content."""

    path: Annotated[str, Field(max_length=512)] = ""
    """The file inside, or the folder of a SavedModel. Files beside it belong to it. Empty: the only file
    whose name ends as the format asks."""


class Source(Schema):
    """Where a file comes from: exactly one of the kinds."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"[{', '.join(f'has(self.{kind})' for kind in KINDS)}].filter(given, given).size() == 1",
                (
                    "give exactly one source: write one of `http:`, `s3:`, `oci:`, `pvc:` and `configMap:`, "
                    "not several and not none"
                ),
            ),
            (
                "!has(self.archive) || !("
                + " || ".join(f"(has(self.{kind}) && has(self.{kind}.weights))" for kind in KINDS)
                + ")",
                "an archive holds all files of the model: leave `weights` out",
            ),
        )
    )

    http: HttpSource | None = None
    """A file behind an HTTP(S) URL."""
    s3: S3Source | None = None
    """An object of an S3-compatible store."""
    oci: OciSource | None = None
    """A file in an OCI artifact or image."""
    pvc: PvcSource | None = None
    """A file of a PersistentVolumeClaim."""
    config_map: ConfigMapSource | None = None
    """An entry of a ConfigMap."""
    archive: Archive | None = None
    """Given where the fetched file is an archive."""

    @model_validator(mode="after")
    def _require_exactly_one(self) -> Self:
        given = [one for one in (self.http, self.s3, self.oci, self.pvc, self.config_map) if one is not None]
        if len(given) != 1:
            raise ValueError("give exactly one source: `http`, `s3`, `oci`, `pvc` or `configMap`")
        if self.archive is not None and given[0].weights is not None:
            raise ValueError("an archive holds all files of the model: leave `weights` out")
        return self

    @property
    def kind(self) -> str:
        """The name of the field that is given."""
        return next(name for name in _FIELDS if getattr(self, name) is not None)

    @property
    def chosen(self) -> HttpSource | S3Source | OciSource | PvcSource | ConfigMapSource:
        """The one that is given."""
        for one in (self.http, self.s3, self.oci, self.pvc, self.config_map):
            if one is not None:
                return one
        raise ValueError("a source of no kind cannot be constructed")

    @property
    def digests(self) -> tuple[str, ...]:
        """The SHA-256 of each file that is fetched, the main one first; empty where the spec gives none."""
        main = self.chosen
        return (main.sha256 or "", *([main.weights.sha256 or ""] if main.weights else ()))

    def pinned_to(self, digests: Sequence[str]) -> Self:
        """Give the source whose files must have these SHA-256, in the order of `digests`; empty: any."""
        main = self.chosen
        changes: dict[str, Any] = {"sha256": digests[0] or None}
        if main.weights is not None:
            changes["weights"] = main.weights.model_copy(update={"sha256": digests[1] or None})
        return self.model_copy(update={self.kind: main.model_copy(update=changes)})
