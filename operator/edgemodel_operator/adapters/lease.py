"""The Lease that keeps a second operator from working: one that stops too late, or one by mistake.

The Deployment has one replica and replaces it by `Recreate`; the Lease is the fence behind that
(https://kubernetes.io/docs/concepts/architecture/leases/).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError

log = logging.getLogger(__name__)

DURATION_SECONDS = 15
RENEW_SECONDS = 4
RETRY_SECONDS = 2


class LeaseLost(Exception):  # noqa: N818 - reads as the fact it states
    """Another instance holds the Lease, or it could not be renewed in time: this one must stop at once."""


class Lease:
    """One Lease object, held by one instance."""

    def __init__(
        self, kube: KubeApi, namespace: str, name: str, holder: str, clock: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._clock = clock
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    async def acquire(self) -> None:
        """Wait until this instance holds the Lease."""
        while not await self._attempt():  # noqa: ASYNC110 - the other holder is another process
            await asyncio.sleep(RETRY_SECONDS)
        log.info("the lease is held", extra={"lease": self._name, "holder": self._holder})

    async def keep(self) -> None:
        """Renew for ever; raises LeaseLost when another took it or renewing failed for its whole duration."""
        renewed = self._clock()
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            if await self._attempt():
                renewed = self._clock()
            elif self._clock() - renewed > timedelta(seconds=DURATION_SECONDS - RENEW_SECONDS):
                raise LeaseLost(f"the lease {self._namespace}/{self._name} was lost")

    async def release(self) -> None:
        """Give the Lease back, so that the next instance need not wait for its end."""
        try:
            current = await self._kube.get(f"{self._collection}/{self._name}")
            if current is not None and current.get("spec", {}).get("holderIdentity") == self._holder:
                current["spec"]["holderIdentity"] = ""
                await self._kube.replace(f"{self._collection}/{self._name}", current)
        except KubeError as error:
            log.info("the lease could not be given back: %s", error)

    async def _attempt(self) -> bool:
        try:
            current = await self._kube.get(f"{self._collection}/{self._name}")
            if current is None:
                await self._kube.create(self._collection, self._document())
                return True
            if not self._is_free(current.get("spec") or {}):
                return False
            document = self._document()
            document["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
            await self._kube.replace(f"{self._collection}/{self._name}", document)
        except KubeError as error:
            log.warning("the lease could not be renewed: %s", error)
            return False
        return True

    def _is_free(self, spec: dict[str, Any]) -> bool:
        holder, renewed = spec.get("holderIdentity"), spec.get("renewTime")
        if not holder or holder == self._holder or not renewed:
            return True
        ends = datetime.fromisoformat(renewed.replace("Z", "+00:00")) + timedelta(
            seconds=spec.get("leaseDurationSeconds") or DURATION_SECONDS
        )
        return self._clock() > ends

    def _document(self) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": DURATION_SECONDS,
                "renewTime": self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
