"""Verdicts remembered for a while, so that a pass does not ask the registry again and again."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from typing import Protocol

from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.core.trust import AnyPolicy
from edgemodel_operator.core.world import Trust, Verdict
from edgemodel_operator.reconcile.ports import Credentials, Verifier

TRUSTED_SECONDS = 600.0
"""After this an image is verified again: a signature may have been taken away."""
MAX_REMEMBERED = 1024


class KeyedVerifier(Verifier, Protocol):
    """A verifier that also knows on which keys a verdict hangs."""

    async def fingerprint(self, image: str, namespace: str, policies: Sequence[AnyPolicy]) -> str | None:
        """Name the keys and trusted roots that the verdict hangs on; None while one cannot be read."""
        ...


class RememberingVerifier:
    """Remembers TRUSTED alone, by image, namespace and the content of all policies; never an error.

    What a policy names, a key in a Secret or a trusted root, may change while the policy does not: then the
    image is verified again, as soon as the change is seen.
    """

    def __init__(self, inner: KeyedVerifier, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._trusted: dict[tuple[str, str, str], tuple[float, str]] = {}

    async def verify(
        self, image: str, namespace: str, policies: Sequence[AnyPolicy], credentials: Credentials
    ) -> Verdict:
        """Give the verdict, from memory where it is young enough."""
        policy_hash = hashlib.sha256(repr(sorted(policies, key=lambda item: item.name)).encode()).hexdigest()
        key = (image, namespace, policy_hash)
        now = time.monotonic()
        asked = await self._inner.fingerprint(image, namespace, policies)
        kept = self._trusted.get(key)
        if kept is not None and now - kept[0] < TRUSTED_SECONDS and asked in {None, kept[1]}:
            return Verdict(Trust.TRUSTED)
        verdict = await self._inner.verify(image, namespace, policies, credentials)
        self._metrics.verifications.labels(verdict.trust.value.lower()).observe(time.monotonic() - now)
        if verdict.trust is Trust.TRUSTED:
            self._trusted.pop(key, None)
            self._trusted[key] = now, asked or ""
            while len(self._trusted) > MAX_REMEMBERED:
                del self._trusted[next(iter(self._trusted))]
        else:
            self._trusted.pop(key, None)
        return verdict
