"""The TrustPolicies as they are in the cluster, kept fresh by list and watch."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.api.names import GROUP, VERSION
from edgemodel_operator.core.trust import AnyPolicy, BrokenPolicy, parse_policy

POLICIES_PATH = f"/apis/{GROUP}/{VERSION}/trustpolicies"
FIRST_RETRY_S = 0.5
LAST_RETRY_S = 15.0

_log = logging.getLogger(__name__)


class PolicyWatch:
    """Holds every TrustPolicy. `synced` is false until all of them were read once.

    Each round lists everything anew and then watches from that version until the API server ends the watch
    or says that the version is too old. Policies are few, and a list each few minutes heals whatever a watch
    might have missed.
    """

    def __init__(self, api: KubeApi, metrics: AdmissionMetrics) -> None:
        self.synced = False
        self._api = api
        self._metrics = metrics
        self._policies: dict[str, AnyPolicy] = {}

    @property
    def policies(self) -> tuple[AnyPolicy, ...]:
        """All policies of this moment."""
        return tuple(self._policies.values())

    async def run(self) -> None:
        """List and watch until canceled; failures are logged and tried again."""
        pause = FIRST_RETRY_S
        while True:
            try:
                await self.round()
                pause = FIRST_RETRY_S
            except KubeError as error:
                self._metrics.policy_watch_failures.inc()
                _log.warning("The trust policies could not be read: %s", error)
                pause = min(pause * 2, LAST_RETRY_S)
            # Also after a good round: an API server that ends watches at once must not be hammered.
            await asyncio.sleep(pause)

    async def round(self) -> None:
        """List everything, then follow the changes to the end of one watch. Raises KubeError."""
        listing = await self._api.list(POLICIES_PATH)
        self._policies = {_name(raw): parse_policy(raw) for raw in listing.items}
        self.synced = True
        self._report()
        async with aclosing(self._api.watch(POLICIES_PATH, listing.resource_version)) as events:
            async for event in events:
                if not self._follow(event):
                    return

    def _follow(self, event: dict[str, Any]) -> bool:
        """Take one event in; false when only a new list can help."""
        kind, raw = event.get("type"), event.get("object") or {}
        if kind in {"ADDED", "MODIFIED"}:
            self._policies[_name(raw)] = parse_policy(raw)
        elif kind == "DELETED":
            self._policies.pop(_name(raw), None)
        elif kind != "BOOKMARK":
            return False
        self._report()
        return True

    def _report(self) -> None:
        broken = [policy for policy in self._policies.values() if isinstance(policy, BrokenPolicy)]
        self._metrics.policies.set(len(self._policies))
        self._metrics.broken_policies.set(len(broken))
        for policy in broken:
            _log.warning("TrustPolicy %s is not understood: %s", policy.name, policy.problem)


def _name(raw: dict[str, Any]) -> str:
    return str((raw.get("metadata") or {}).get("name", ""))
