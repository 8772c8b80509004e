"""The objects of one collection as they are in the cluster, kept fresh by list and watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError

FIRST_RETRY_S = 0.5
LAST_RETRY_S = 15.0

_log = logging.getLogger(__name__)


class Watched:
    """Holds every object of a collection by name. `synced` is false until all of them were read once.

    Each round lists everything anew and then watches from that version until the API server ends the watch
    or says that the version is too old. What was read stays while the API server is away.
    """

    def __init__(
        self,
        api: KubeApi,
        path: str,
        *,
        fields: str = "",
        changed: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`fields` is a field selector; `changed` is called after each news, `failed` after each failure."""
        self.synced = False
        self._api = api
        self._path = path
        self._fields = fields
        self._changed = changed
        self._failed = failed
        self._objects: dict[str, dict[str, Any]] = {}

    @property
    def objects(self) -> Mapping[str, dict[str, Any]]:
        """The objects of this moment, by name."""
        return self._objects

    async def run(self) -> None:
        """List and watch until canceled; failures are logged and tried again."""
        pause = FIRST_RETRY_S
        while True:
            try:
                await self.round()
                pause = FIRST_RETRY_S
            except KubeError as error:
                _log.warning("%s could not be read: %s", self._path, error)
                self._failed()
                pause = min(pause * 2, LAST_RETRY_S)
            # Also after a good round: an API server that ends watches at once must not be hammered.
            await asyncio.sleep(pause)

    async def round(self) -> None:
        """List everything, then follow the changes to the end of one watch. Raises KubeError."""
        listing = await self._api.list(self._path, fields=self._fields)
        self._objects = {_name(raw): raw for raw in listing.items}
        self.synced = True
        self._changed()
        watch = self._api.watch(self._path, listing.resource_version, fields=self._fields)
        async with aclosing(watch) as events:
            async for event in events:
                if not self._follow(event):
                    return

    def _follow(self, event: dict[str, Any]) -> bool:
        """Take one event in; false when only a new list can help."""
        kind, raw = event.get("type"), event.get("object") or {}
        if kind == "BOOKMARK":
            return True
        if kind in {"ADDED", "MODIFIED"}:
            self._objects[_name(raw)] = raw
        elif kind == "DELETED":
            self._objects.pop(_name(raw), None)
        else:
            return False
        self._changed()
        return True


def _name(raw: Mapping[str, Any]) -> str:
    return str((raw.get("metadata") or {}).get("name", ""))
