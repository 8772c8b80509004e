"""Verdicts remembered for a while, so that a pass does not ask the registry again and again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence

from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.core.trust import AnyPolicy
from edgemodel_operator.core.world import Trust, Verdict
from edgemodel_operator.reconcile.ports import Credentials, Verifier

TRUSTED_SECONDS = 600.0
"""After this an image is verified again: a signature may have been taken away."""
MAX_REMEMBERED = 1024


class RememberingVerifier:
    """Remembers TRUSTED alone, by image, namespace and the content of all policies; never an error."""

    def __init__(self, inner: Verifier, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._trusted: dict[tuple[str, str, str], float] = {}

    async def verify(
        self, image: str, namespace: str, policies: Sequence[AnyPolicy], credentials: Credentials
    ) -> Verdict:
        """Give the verdict, from memory where it is young enough."""
        policy_hash = hashlib.sha256(repr(sorted(policies, key=lambda item: item.name)).encode()).hexdigest()
        key = (image, namespace, policy_hash)
        now = time.monotonic()
        if now - self._trusted.get(key, -TRUSTED_SECONDS) < TRUSTED_SECONDS:
            return Verdict(Trust.TRUSTED)
        verdict = await self._inner.verify(image, namespace, policies, credentials)
        self._metrics.verifications.labels(verdict.trust.value.lower()).observe(time.monotonic() - now)
        if verdict.trust is Trust.TRUSTED:
            self._trusted[key] = now
            while len(self._trusted) > MAX_REMEMBERED:
                del self._trusted[next(iter(self._trusted))]
        return verdict
