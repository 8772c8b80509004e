"""What a pass needs of the outside: small protocols, satisfied by adapters and by the build worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.adapters.pods import ModelPods
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyJob
from edgemodel_operator.core.trust import AnyPolicy
from edgemodel_operator.core.world import SupplyStep, Verdict
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.reconcile.garbage import ImageSweeper

Credentials = Mapping[str, Credential]
OnProgress = Callable[[SupplyStep, str], None]


class Builder(Protocol):
    """Makes images."""

    def build_key(self, job: SupplyJob) -> str:
        """Give the hash of everything that decides the bytes of the image."""
        ...

    def has_jobs(self, job: SupplyJob) -> bool:
        """Tell whether Jobs in the cluster have a part in the build: it may take long, and little of us."""
        ...

    async def build(self, job: SupplyJob, access: BuildAccess, on_progress: OnProgress) -> BuiltImage:
        """Make the image; raises SupplyError."""
        ...


class Signer(Protocol):
    """Signs images, and knows again what it signed."""

    async def sign(self, built: BuiltImage, credentials: Credentials) -> None:
        """Sign an index and its platform manifests, and attest what its build says; raises SupplyError."""
        ...

    async def find(self, repository: str, build_key: str, credentials: Credentials) -> BuiltImage | None:
        """Give the complete, signed image of a build key, if there is one; raises SupplyError."""
        ...


class Verifier(Protocol):
    """Verifies images."""

    async def verify(
        self, image: str, namespace: str, policies: Sequence[AnyPolicy], credentials: Credentials
    ) -> Verdict:
        """Give the verdict on an image that is to run in a namespace."""
        ...


@dataclass(frozen=True)
class Ports:
    """Everything that a pass works with."""

    cluster: Cluster
    pods: ModelPods
    verifier: Verifier
    sweeper: ImageSweeper
    metrics: Metrics
    clock: Callable[[], datetime]
    runtimes: Mapping[str, str]
