"""The TrustPolicies and TrustExceptions as they are in the cluster, kept fresh by list and watch."""

from __future__ import annotations

import logging

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.adapters.watched import Watched
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.api.names import GROUP, VERSION
from edgemodel_operator.core.exemption import Exemption, parse_exemption
from edgemodel_operator.core.trust import AnyPolicy, BrokenPolicy, parse_policy

POLICIES_PATH = f"/apis/{GROUP}/{VERSION}/trustpolicies"

_log = logging.getLogger(__name__)


def exceptions_path(namespace: str) -> str:
    """Give the collection of the TrustExceptions in a namespace: no others are looked at."""
    return f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/trustexceptions"


class PolicyWatch:
    """Holds every TrustPolicy. `synced` is false until all of them were read once."""

    def __init__(self, api: KubeApi, metrics: AdmissionMetrics) -> None:
        self.policies: tuple[AnyPolicy, ...] = ()
        """All policies of this moment."""
        self._metrics = metrics
        self._watched = Watched(
            api, POLICIES_PATH, changed=self._changed, failed=metrics.policy_watch_failures.inc
        )

    @property
    def synced(self) -> bool:
        """Whether all of them were read."""
        return self._watched.synced

    async def run(self) -> None:
        """List and watch until canceled."""
        await self._watched.run()

    def _changed(self) -> None:
        known = {policy.name: policy for policy in self.policies}
        parsed = (parse_policy(raw) for raw in self._watched.objects.values())
        # An object that stays the same keeps what was computed from it.
        self.policies = tuple(
            known[policy.name] if policy == known.get(policy.name) else policy for policy in parsed
        )
        broken = [policy for policy in self.policies if isinstance(policy, BrokenPolicy)]
        self._metrics.policies.set(len(self.policies))
        self._metrics.broken_policies.set(len(broken))
        for policy in broken:
            if policy != known.get(policy.name):
                _log.warning("TrustPolicy %s is not understood: %s", policy.name, policy.problem)


class ExceptionWatch:
    """Holds the TrustExceptions of the operator's namespace.

    Before they were read there are none, and that refuses: nobody has to wait for them.
    """

    def __init__(self, api: KubeApi, namespace: str, metrics: AdmissionMetrics) -> None:
        self.exceptions: tuple[Exemption, ...] = ()
        """All that were understood, also those past their end."""
        self._ignored: set[str] = set()
        self._namespace = namespace
        self._metrics = metrics
        self._watched = Watched(
            api,
            exceptions_path(namespace),
            changed=self._changed,
            failed=metrics.policy_watch_failures.inc,
        )

    async def run(self) -> None:
        """List and watch until canceled."""
        await self._watched.run()

    def _changed(self) -> None:
        found = self._watched.objects.items()
        parsed = {name: parse_exemption(raw, self._namespace) for name, raw in found}
        self.exceptions = tuple(one for one in parsed.values() if one is not None)
        ignored = {name for name, one in parsed.items() if one is None}
        for name in sorted(ignored - self._ignored):
            _log.warning("TrustException %s is not understood and excuses nothing: apply it again", name)
        self._ignored = ignored
        self._metrics.exceptions.set(len(self.exceptions))
