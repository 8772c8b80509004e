"""The images that all pods of the cluster use, kept fresh by list and watch.

Of a pod nothing is kept but its uses of images: ten thousand pods are some megabytes here, and hundreds as
the API server gives them. They are listed page by page once and then followed; a new list is made when the
API server asks for one, and now and then in case something was missed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.core.audit_uses import ImageUse, uses_of

PODS = "/api/v1/pods"
UNFINISHED = "status.phase!=Succeeded,status.phase!=Failed"
"""A pod that ends leaves this selection, and the watch says that it was deleted."""
LIST_AGAIN_SECONDS = 3600.0
FIRST_RETRY_SECONDS = 0.5
LAST_RETRY_SECONDS = 30.0
_GONE = 410

_log = logging.getLogger(__name__)


class RunningImages:
    """What runs now, as far as the API server knows."""

    def __init__(
        self,
        api: KubeApi,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` gives seconds that never go back."""
        self.synced = False
        self.changed: Callable[[], None] = lambda: None
        """Called when other images run than before."""
        self._api = api
        self._clock = clock
        self._uses: dict[tuple[str, str], tuple[ImageUse, ...]] = {}
        self._version = ""
        self._list_again_at = 0.0

    @property
    def uses(self) -> tuple[ImageUse, ...]:
        """Every use of an image at this moment."""
        return tuple(use for uses in self._uses.values() for use in uses)

    async def run(self) -> None:
        """List and watch until canceled; failures are logged and tried again."""
        pause = FIRST_RETRY_SECONDS
        while True:
            try:
                await self.round()
                pause = FIRST_RETRY_SECONDS
            except KubeError as error:
                if error.status == _GONE:
                    self._version = ""
                _log.warning("the pods could not be followed: %s", error)
                pause = min(pause * 2, LAST_RETRY_SECONDS)
            # Also after a good round: an API server that ends watches at once must not be hammered.
            await asyncio.sleep(pause)

    async def round(self) -> None:
        """List if that is due, then follow the changes to the end of one watch. Raises KubeError."""
        if not self._version or self._clock() >= self._list_again_at:
            await self.read()
        async with aclosing(self._api.watch(PODS, self._version, fields=UNFINISHED)) as events:
            async for event in events:
                self._follow(event)

    async def read(self) -> None:
        """Read all pods, page by page. Raises KubeError."""
        found: dict[tuple[str, str], tuple[ImageUse, ...]] = {}
        version = ""
        async with aclosing(self._api.pages(PODS, fields=UNFINISHED)) as pages:
            async for page in pages:
                found.update((_key(pod), uses_of(pod)) for pod in page.items)
                version = page.resource_version
        self._uses, self._version, self.synced = found, version, True
        self._list_again_at = self._clock() + LIST_AGAIN_SECONDS
        self.changed()

    def _follow(self, event: Mapping[str, Any]) -> None:
        """Take one event in. Raises KubeError when only a new list can help."""
        kind, pod = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise KubeError(int(pod.get("code") or _GONE), f"{PODS}: the watch ended: {pod.get('reason')}")
        self._version = str((pod.get("metadata") or {}).get("resourceVersion", ""))
        if kind == "BOOKMARK":
            return
        uses = () if kind == "DELETED" else uses_of(pod)
        before = self._uses.pop(_key(pod), ())
        if uses:
            self._uses[_key(pod)] = uses
        if uses != before:
            self.changed()


def _key(pod: Mapping[str, Any]) -> tuple[str, str]:
    metadata = pod.get("metadata") or {}
    return str(metadata.get("namespace", "")), str(metadata.get("name", ""))
