"""Supplying an image: what is asked for, what comes of it, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.image import ImageSpec, PlatformName
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.api.source import Source
from edgemodel_operator.core.pins import known_digests
from edgemodel_operator.core.world import Model, SupplyStep
from edgemodel_operator.oci.auth import Credential


@dataclass(frozen=True)
class SupplyJob:
    """One image to make and sign: one model on one runtime variant."""

    namespace: str
    """The namespace of the EdgeModel: its Secrets are used, no others."""
    model_name: str
    uid: str
    """The identity of the EdgeModel object: what is made for it goes with it."""
    model: ModelSpec
    image: ImageSpec
    variant: str
    runtime: str
    """The runtime image, by digest."""
    digests: tuple[str, ...]
    """The SHA-256 of each file of the source, the main one first; empty where it is not known yet."""

    @property
    def repository(self) -> str:
        """Where the image goes."""
        return self.image.repository

    @property
    def platforms(self) -> tuple[PlatformName, ...]:
        """The platforms of the image; none named: all of the runtime image."""
        return self.image.platforms

    @property
    def pull_secrets(self) -> tuple[str, ...]:
        """The names of the Secrets with which nodes pull."""
        return tuple(secret.name for secret in self.image.pull_secrets)

    @property
    def push_secret(self) -> str:
        """The name of the Secret to push with; empty: the pull secrets."""
        return self.image.push_secret.name if self.image.push_secret else ""

    @property
    def source_secret(self) -> str:
        """The name of the Secret that the source asks for; empty: none."""
        return _secret_of(self.model.source)

    @property
    def context_secret(self) -> str:
        """The name of the Secret that the source of the Dockerfile's context asks for; empty: none."""
        return _secret_of(self.image.dockerfile.context) if self.image.dockerfile else ""

    def builds_like(self, other: SupplyJob) -> bool:
        """Tell whether a build of the other does for this: from the same places, with the same Secrets.

        What becomes of images afterwards matters to no build.
        """
        afterwards = {"keep_images": self.image.keep_images, "deletion_policy": self.image.deletion_policy}
        return self == replace(other, image=other.image.model_copy(update=afterwards))


def _secret_of(source: Source) -> str:
    secret = getattr(source.chosen, "credentials_secret", None)
    return secret.name if secret is not None else ""


@dataclass(frozen=True)
class BuildAccess:
    """What the EdgeModel's namespace lends to a build. Never shown."""

    registries: Mapping[str, Credential] = field(default_factory=dict, repr=False)
    """Logins by host, for the runtime image, the source and the target."""
    source_secret: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The fields of the Secret that the source names."""
    context_secret: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The fields of the Secret that the source of the Dockerfile's context names."""
    config_map: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """The entries of the ConfigMap that the source names."""
    cluster_networks: tuple[str, ...] = ()
    """The CIDRs of the cluster's own Services and pods, where no source may lie."""


@dataclass(frozen=True)
class BuiltImage:
    """An image whose every part is in the repository."""

    image: str
    """`name@sha256:…` of the index."""
    platforms: tuple[str, ...]
    build_key: str
    """The hash of everything that decided its bytes."""
    report: ModelReport
    """What is known of the model in it."""
    documents: tuple[str, ...] = ()
    """The manifests (`sha256:…`) of the documents that the build made about it: its origin and its parts."""


class SupplyError(Exception):
    """An image could not be supplied; the message is a sentence for people."""

    def __init__(
        self,
        step: SupplyStep,
        reason: str,
        message: str,
        *,
        needs_person: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.step = step
        self.reason = reason
        self.needs_person = needs_person
        self.retry_after = retry_after
        """Seconds that a server asked us to wait, if one did."""


def supply_jobs(
    model: Model, runtimes: Mapping[str, str], variants: tuple[str, ...]
) -> tuple[SupplyJob, ...]:
    """Give one job for each runtime variant that is configured."""
    spec = model.spec
    digests = known_digests(spec.model, model.status.model)
    return tuple(
        SupplyJob(
            namespace=model.namespace,
            model_name=model.name,
            uid=model.uid,
            model=spec.model,
            image=spec.image,
            variant=variant,
            runtime=runtimes[variant],
            digests=digests,
        )
        for variant in variants
        if variant in runtimes
    )
