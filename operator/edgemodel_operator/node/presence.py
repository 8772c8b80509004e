"""Whether the agent belongs to this cluster still: it takes its program away when its DaemonSet is deleted.

Nothing that Kubernetes tells a pod when it ends says why: an upgrade, a reboot and an uninstallation look
the same, and only the last one must switch verification off. So the DaemonSet is watched: the news of its
deletion comes before the pod's end, and before `helm uninstall` has taken away the right to ask.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.adapters.watched import Watched

LAST_LOOK_SECONDS = 3.0

_log = logging.getLogger(__name__)


class Presence:
    """Follows the agent's DaemonSet; `gone` is set once that is deleted."""

    def __init__(
        self, api: KubeApi, namespace: str, name: str, failed: Callable[[], None] = lambda: None
    ) -> None:
        self.gone = asyncio.Event()
        self._api = api
        self._name = name
        self._collection = f"/apis/apps/v1/namespaces/{namespace}/daemonsets"
        self.watch = Watched(
            api, self._collection, fields=f"metadata.name={name}", changed=self._look, failed=failed
        )

    async def look_once_more(self) -> None:
        """Ask when the agent ends, in case the watch is broken just then. No clear answer changes nothing."""
        try:
            async with asyncio.timeout(LAST_LOOK_SECONDS):
                found = await self._api.get(f"{self._collection}/{self._name}")
        except (KubeError, TimeoutError) as error:
            _log.info("Whether the DaemonSet still exists is not known: %s", error)
            return
        if found is None or _is_being_deleted(found):
            self.gone.set()

    def _look(self) -> None:
        found = self.watch.objects.get(self._name)
        if found is None or _is_being_deleted(found):
            self.gone.set()


def _is_being_deleted(found: dict[str, object]) -> bool:
    metadata = found.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp"))
