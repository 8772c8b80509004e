"""One image against one policy, from the bytes in the registry: the only place where this is done.

The webhook, the operator, the audit and the node verifier differ in what they keep of the answers; so the
three parts can also be called one by one: what a policy asks for, the verdict on that, and what it means.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from edgemodel_operator.adapters.authorities import AuthorityStore, PolicyDemand
from edgemodel_operator.core.trust import Policy, PolicyVerdict
from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Demand
from edgemodel_operator.signing.errors import CannotCheck
from edgemodel_operator.signing.judge import judge_signers
from edgemodel_operator.signing.verdict import Format, Reason, Trusted, Untrusted, Verdict, Vouching
from edgemodel_operator.signing.verify import verify_image

VERIFY_SECONDS = 60.0
"""The limit of one verification: a registry that sends a byte each second must not hold it for ever."""

_CERTAIN = frozenset({Reason.NO_DIGEST, Reason.AMBIGUOUS_MANIFEST})
"""What no further key would change."""


class CannotVerify(Exception):  # noqa: N818 - reads as the fact it states
    """It could not be found out whether the image is trusted; the message is half a sentence.

    Never a verdict, and never kept as one. `reason` is a CamelCase word.
    """

    reason = "RegistryUnavailable"


class KeyUnavailable(CannotVerify):
    """A key that the policy names could not be read, and the answer hangs on it."""

    reason = "KeyUnavailable"


class ImageNotFound(CannotVerify):
    """The registry says that it has no such image."""

    reason = "ImageNotFound"


class CheckUnavailable(CannotVerify):
    """The checks of an attestation could not be run."""

    reason = "CheckUnavailable"


class PolicyVerifier:
    """Verifies images against policies; safe for concurrent use in one event loop."""

    def __init__(
        self,
        authorities: AuthorityStore,
        *,
        platforms_signed: bool = False,
        verify_seconds: float = VERIFY_SECONDS,
    ) -> None:
        """`platforms_signed` asks that each platform of an index is signed itself, whatever the policy."""
        self._authorities = authorities
        self._platforms_signed = platforms_signed
        self._verify_seconds = verify_seconds

    async def demand_of(self, policy: Policy) -> PolicyDemand:
        """Say what a policy asks for; never raises, and is cheap while nothing changes."""
        return await self._authorities.demand_of(policy, platforms_signed=self._platforms_signed)

    async def examine(self, client: RegistryClient, image: Reference, demand: Demand) -> Verdict:
        """Verify an image named by digest. Raises CannotVerify; the verdict can be kept for that demand."""
        try:
            async with asyncio.timeout(self._verify_seconds):
                return await verify_image(client, image, demand)
        except NotFound as error:
            raise ImageNotFound(f"{image} is not in its registry: {str(error).rstrip('.')}") from error
        except RegistryError as error:
            raise CannotVerify(str(error).rstrip(".")) from error
        except CannotCheck as error:
            raise CheckUnavailable(str(error).rstrip(".")) from error
        except TimeoutError as error:
            raise CannotVerify(f"the registry {image.registry} did not answer in time") from error

    async def verify(self, client: RegistryClient, image: Reference, policy: Policy) -> PolicyVerdict:
        """Tell whether a policy holds for an image named by digest. Raises CannotVerify."""
        asked = await self.demand_of(policy)
        return conclude(image, policy, asked, await self.examine(client, image, asked.demand))


def conclude(image: Reference, policy: Policy, asked: PolicyDemand, verdict: Verdict) -> PolicyVerdict:
    """Say what a verdict means for a policy.

    Raises CannotVerify when it is "untrusted" and a key that could not be read might have changed that.
    """
    if isinstance(verdict, Trusted):
        by = tuple(f"{'+'.join(one.authorities)}={one.key}" for one in verdict.evidence[0].signatures)
        return PolicyVerdict(policy.name, policy.spec.mode, trusted=True, by=by)
    missing = _missing(image, verdict, policy)
    if _could_change(asked, verdict):
        raise KeyUnavailable("; ".join((missing, *(problem.message for problem in asked.problems))))
    return PolicyVerdict(policy.name, policy.spec.mode, trusted=False, missing=missing, reason=verdict.reason)


def _could_change(asked: PolicyDemand, verdict: Untrusted) -> bool:
    """Tell whether the keys that are not at hand could make an untrusted image a trusted one."""
    names = {problem.authority for problem in asked.problems}
    if not names or verdict.reason in _CERTAIN:
        return False
    if not verdict.evidence:
        return True
    # As if each of them had signed, with a key of its own: would the index suffice then?
    evidence = verdict.evidence[0]
    supposed = tuple(
        Vouching(Format.BUNDLE, "", (name,), f"unknown key of {name}", binds_repository=True)
        for name in sorted(names)
    )
    return judge_signers(replace(evidence, signatures=evidence.signatures + supposed), asked.demand) is None


def _missing(image: Reference, verdict: Untrusted, policy: Policy) -> str:
    """Say what the image lacks and who could supply it, without naming the image again."""
    why = verdict.message.removeprefix(f"{image} is not trusted: ").rstrip(".")
    names = ", ".join(authority.name for authority in policy.spec.authorities)
    return f"{why} (accepted: a signature by {names})"
