"""Supplying an image: what is asked for, what comes of it, and how it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.image import PlatformName
from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.core.world import SupplyStep


@dataclass(frozen=True)
class SupplyJob:
    """One image to make and sign: one model on one runtime variant."""

    namespace: str
    """The namespace of the EdgeModel: its Secrets are used, no others."""
    model_name: str
    model: ModelSpec
    variant: str
    runtime: str
    """The runtime image, by digest."""
    repository: str
    platforms: tuple[PlatformName, ...]
    pull_secrets: tuple[str, ...]
    push_secret: str
    """The name of the Secret to push with; empty: the pull secrets."""


@dataclass(frozen=True)
class BuiltImage:
    """An image whose every part is in the repository."""

    image: str
    """`name@sha256:…` of the index."""
    platforms: tuple[str, ...]
    reused: bool
    """Whether it existed before under its build key."""


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
    namespace: str, name: str, spec: EdgeModelSpec, runtimes: Mapping[str, str], variants: tuple[str, ...]
) -> tuple[SupplyJob, ...]:
    """Give one job for each runtime variant that is configured."""
    return tuple(
        SupplyJob(
            namespace=namespace,
            model_name=name,
            model=spec.model,
            variant=variant,
            runtime=runtimes[variant],
            repository=spec.image.repository,
            platforms=spec.image.platforms,
            pull_secrets=tuple(secret.name for secret in spec.image.pull_secrets),
            push_secret=spec.image.push_secret.name if spec.image.push_secret else "",
        )
        for variant in variants
        if variant in runtimes
    )
