"""One image against one policy: from the cache, or from the registry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from edgemodel_operator.adapters.authorities import Authorities, AuthorityStore
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.admission.metrics import AdmissionMetrics, Result
from edgemodel_operator.admission.verdict_cache import Overloaded, VerdictCache, VerdictKey
from edgemodel_operator.core.trust import Policy, PolicyVerdict
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.signing.verdict import Trusted, Untrusted, Verdict
from edgemodel_operator.signing.verify import verify_image

VERIFY_SECONDS = 30.0
"""The limit of one verification; it may go on after the request that started it was answered."""


class CannotVerify(Exception):  # noqa: N818 - reads as the fact it states
    """It could not be found out whether the image is trusted; the message is half a sentence."""


class ImageVerifier:
    """Verifies images against policies; safe for concurrent use in one event loop."""

    def __init__(
        self,
        authorities: AuthorityStore,
        registries: RegistryAccess,
        metrics: AdmissionMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._authorities = authorities
        self._registries = registries
        self._metrics = metrics
        self._cache = VerdictCache(clock)

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        """Tell whether the policy holds for an image named by digest. Raises CannotVerify."""
        authorities = await self._authorities.authorities_of(policy)
        if not authorities.usable:
            raise CannotVerify("; ".join(authorities.problems))
        key = VerdictKey(str(image), policy.hash, authorities.fingerprints)
        if self._cache.known(key) is not None:
            self._metrics.cached.inc()
        try:
            verdict = await self._cache.get(key, lambda: self._measured(image, authorities))
        except (RegistryError, KubeError, Overloaded) as error:
            raise CannotVerify(str(error).rstrip(".")) from error
        except TimeoutError as error:
            raise CannotVerify(f"the registry {image.registry} did not answer in time") from error
        if isinstance(verdict, Trusted):
            return PolicyVerdict(policy.name, policy.spec.mode, trusted=True)
        if authorities.problems:
            # The missing signature may be by the very key that could not be read.
            raise CannotVerify("; ".join((_missing(image, verdict, policy), *authorities.problems)))
        return PolicyVerdict(
            policy.name, policy.spec.mode, trusted=False, missing=_missing(image, verdict, policy)
        )

    async def close(self) -> None:
        """Cancel what is still running."""
        await self._cache.close()

    async def _measured(self, image: Reference, authorities: Authorities) -> Verdict:
        began, result = time.perf_counter(), Result.ERROR
        try:
            async with asyncio.timeout(VERIFY_SECONDS):
                client = await self._registries.client()
                verdict = await verify_image(client, image, authorities.usable)
            result = Result.TRUSTED if isinstance(verdict, Trusted) else Result.UNTRUSTED
            return verdict
        finally:
            self._metrics.verifications.labels(result).inc()
            self._metrics.verify_seconds.observe(time.perf_counter() - began)


def _missing(image: Reference, verdict: Untrusted, policy: Policy) -> str:
    """Say what the image lacks and who could supply it, without naming the image again."""
    why = verdict.message.removeprefix(f"{image} is not trusted: ").rstrip(".")
    names = ", ".join(authority.name for authority in policy.spec.authorities)
    return f"{why} (accepted: a signature by {names})"
