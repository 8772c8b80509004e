"""One image against one policy: from what is known already, or from the registry."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Sequence

from edgemodel_operator.adapters.authorities import PolicyDemand
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.policy_verifier import CannotVerify, PolicyVerifier, conclude
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.admission.metrics import AdmissionMetrics, Result
from edgemodel_operator.admission.verdict_book import group_of, image_hash
from edgemodel_operator.admission.verdict_cache import Finding, VerdictCache, VerdictKey
from edgemodel_operator.core.trust import AnyPolicy, Policy, PolicyVerdict
from edgemodel_operator.oci.reference import Reference

VERIFY_SECONDS = 30.0
"""The limit of one verification; it may go on after the request that started it was answered."""

_log = logging.getLogger(__name__)


class ImageVerifier:
    """Verifies images against policies; safe for concurrent use in one event loop."""

    def __init__(
        self,
        policies: PolicyVerifier,
        registries: RegistryAccess,
        cache: VerdictCache,
        metrics: AdmissionMetrics,
    ) -> None:
        self._policies = policies
        self._registries = registries
        self._cache = cache
        self._metrics = metrics

    async def verify(
        self,
        image: Reference,
        policy: Policy,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> PolicyVerdict:
        """Tell whether the policy holds for an image named by digest. Raises CannotVerify.

        Without `remember`, as for dry runs, the verdict is not kept. `turns` bounds the verifications that
        one review waits for at a time.
        """
        asked = await self._policies.demand_of(policy)
        name = str(image)
        key = VerdictKey(image_hash(name), group_of(asked.fingerprint))
        finding = await self._cache.get(
            key, lambda: self._examine(image, policy, asked), remember=remember, turns=turns
        )
        if finding.known:
            self._metrics.cached.inc()
        if finding.stale:
            self._metrics.stale.inc()
            _log.warning(
                "An old verdict stands, since the registry cannot be asked",
                extra={"image": name, "policy": policy.name, "by": finding.by},
            )
        return PolicyVerdict(
            policy.name, policy.spec.mode, finding.trusted, finding.missing, finding.reason, finding.by
        )

    async def live_groups(self, policies: Sequence[AnyPolicy]) -> Collection[str] | None:
        """Give the groups of verdicts that still have a use.

        None while some policy or key is not known for certain: what is dropped then would be missed later.
        """
        groups: set[str] = set()
        for policy in policies:
            if not isinstance(policy, Policy):
                return None
            asked = await self._policies.demand_of(policy)
            if asked.problems:
                return None
            groups.add(group_of(asked.fingerprint))
        return groups

    async def close(self) -> None:
        """Cancel what is still running."""
        await self._cache.close()

    async def _examine(self, image: Reference, policy: Policy, asked: PolicyDemand) -> Finding:
        began, result = time.perf_counter(), Result.ERROR
        try:
            client = await self._registries.client()
            verdict = conclude(
                image, policy, asked, await self._policies.examine(client, image, asked.demand)
            )
            result = Result.TRUSTED if verdict.trusted else Result.UNTRUSTED
        except KubeError as error:
            raise CannotVerify(str(error).rstrip(".")) from error
        finally:
            self._metrics.verifications.labels(result).inc()
            self._metrics.verify_seconds.observe(time.perf_counter() - began)
        _log_verdict(image, verdict)
        return Finding(verdict.trusted, verdict.by, verdict.reason, verdict.missing)


def _log_verdict(image: Reference, verdict: PolicyVerdict) -> None:
    """Write what the registry showed into the audit trail; what was known already is not news."""
    fields = {
        "image": str(image),
        "policy": verdict.policy,
        "verdict": Result.TRUSTED if verdict.trusted else Result.UNTRUSTED,
        "by": verdict.by,
        "reason": verdict.reason,
        "missing": verdict.missing,
    }
    _log.info("Verified", extra=fields)
