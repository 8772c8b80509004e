"""The Lease that keeps a second operator from working: one that stops too late, or one by mistake.

The Deployment has one replica and replaces it by `Recreate`; the Lease is the fence behind that
(https://kubernetes.io/docs/concepts/architecture/leases/).
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError

log = logging.getLogger(__name__)

DURATION_SECONDS = 15
"""Others may take the Lease when its record has not changed for so long."""
KEEP_SECONDS = 10.0
"""So long after its last renewal the holder gives up: it has stopped before another may begin."""
RENEW_SECONDS = 4.0
RETRY_SECONDS = 2.0
RELEASE_SECONDS = 5.0


class LeaseLost(Exception):  # noqa: N818 - reads as the fact it states
    """Another instance holds the Lease, or it could not be renewed in time: this one must stop at once."""


class Lease:
    """One Lease object, held by one instance.

    How long something lasts is measured here, on the clock of the event loop: what others write into their
    records, and a wall clock that is set, decide nothing. `clock` only dates our own record.
    """

    def __init__(
        self, kube: KubeApi, namespace: str, name: str, holder: str, clock: Callable[[], datetime]
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._clock = clock
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._renewed = -math.inf
        self._seen: tuple[dict[str, Any], float] = {}, 0.0

    async def acquire(self) -> None:
        """Wait until this instance holds the Lease."""
        while not await self._take():  # noqa: ASYNC110 - the other holder is another process
            await asyncio.sleep(RETRY_SECONDS)
        log.info("the lease is held", extra={"lease": self._name, "holder": self._holder})

    async def keep(self) -> None:
        """Renew for ever; raises LeaseLost as soon as another holds it, or KEEP_SECONDS after a renewal."""
        lost = LeaseLost(f"the lease {self._namespace}/{self._name} was lost")
        pause = RENEW_SECONDS
        try:
            while True:
                async with asyncio.timeout_at(self._renewed + KEEP_SECONDS):
                    await asyncio.sleep(pause)
                    try:
                        renewed = await self._renew()
                    except KubeError as error:
                        log.warning("the lease could not be renewed: %s", error)
                        pause = RETRY_SECONDS
                        continue
                if not renewed:
                    raise lost
                pause = RENEW_SECONDS
        except TimeoutError:
            raise lost from None

    async def release(self) -> None:
        """Give the Lease back, so that the next instance need not wait for its end."""
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                current = await self._read()
                if current is not None and current.get("spec", {}).get("holderIdentity") == self._holder:
                    current["spec"]["holderIdentity"] = ""
                    await self._kube.replace(f"{self._collection}/{self._name}", current)
        except (KubeError, TimeoutError) as error:
            log.info("the lease could not be given back: %s", error or "there was no answer in time")

    async def _take(self) -> bool:
        """Try to become the holder; false while another is, or the API server does not answer."""
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                current = await self._read()
                if current is not None and not self._is_free(current.get("spec") or {}):
                    return False
                await self._write(current)
        except (KubeError, TimeoutError) as error:
            log.warning("the lease could not be taken: %s", error or "there was no answer in time")
            return False
        return True

    async def _renew(self) -> bool:
        """Renew what is ours; false if another holds it, be its record ever so old. Raises KubeError."""
        current = await self._read()
        holder = ((current or {}).get("spec") or {}).get("holderIdentity")
        if holder and holder != self._holder:
            return False
        await self._write(current)
        return True

    async def _read(self) -> dict[str, Any] | None:
        return await self._kube.get(f"{self._collection}/{self._name}")

    async def _write(self, current: dict[str, Any] | None) -> None:
        """Write our record in place of exactly this one. Raises KubeError."""
        # The others begin to count no earlier than this, whenever the answer comes.
        begun = asyncio.get_running_loop().time()
        document = self._document()
        if current is None:
            await self._kube.create(self._collection, document)
        else:
            document["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
            await self._kube.replace(f"{self._collection}/{self._name}", document)
        self._renewed = begun

    def _is_free(self, spec: dict[str, Any]) -> bool:
        """Whether nobody else holds it, or who does has left its record alone for as long as it lasts."""
        holder = spec.get("holderIdentity")
        if not holder or holder == self._holder:
            return True
        now = asyncio.get_running_loop().time()
        if self._seen[0] != spec:
            self._seen = spec, now
        return now - self._seen[1] > (spec.get("leaseDurationSeconds") or DURATION_SECONDS)

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
