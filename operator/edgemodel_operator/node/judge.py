"""Decide about one pull. The procedure, whose numbers the code carries:

1. The name is an image reference, and if it names a digest, that is the one that is pulled.
2. The agent's own image, and images that are exempt by configuration, are allowed.
3. As long as no policies are known, neither from the API server nor from an earlier start, all else is
   refused.
4. The policies that cover the repository are found. None: as `unmatched` says.
5. A policy that is limited to namespaces is left to the admission webhook: a pull knows no namespace.
6. Each of the others must hold for the digest, unless it only audits.
7. One exception in force may excuse the image, in whatever namespace it is granted.

So the node never refuses what the webhook would admit everywhere, and it asks less: it is the second line.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.core.exemption import Exemption, choose_exemption
from edgemodel_operator.core.glob import glob_matches
from edgemodel_operator.core.trust import (
    AnyPolicy,
    BrokenPolicy,
    Policy,
    PolicyVerdict,
    judge,
    mode_of,
)
from edgemodel_operator.node.metrics import Outcome
from edgemodel_operator.node.record import Fixed, images_of, is_local
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference

BUDGET_SECONDS = 7.0
"""The client waits eight seconds, containerd ten."""
ANYWHERE = ("**",)


class Trust(Protocol):
    """The policies and exceptions of this moment; None before any are known."""

    @property
    def policies(self) -> tuple[AnyPolicy, ...] | None:
        """All policies."""
        ...

    @property
    def exemptions(self) -> tuple[Exemption, ...]:
        """All exceptions that count."""
        ...


class Verifier(Protocol):
    """What checks one image against one policy."""

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        """Tell whether the policy holds. Raises CannotVerify."""
        ...


@dataclass(frozen=True)
class Answer:
    """What containerd is told, and why."""

    outcome: Outcome
    reason: str

    @property
    def allowed(self) -> bool:
        """Whether the image may be pulled."""
        return self.outcome in {Outcome.ALLOW, Outcome.UNMATCHED}


class PullJudge:
    """Decides about pulls; holds no state of its own."""

    def __init__(self, trust: Trust, verifier: Verifier, fixed: Fixed, now: Callable[[], datetime]) -> None:
        """`now` gives the time with its zone."""
        self._trust = trust
        self._verifier = verifier
        self._fixed = fixed
        self._now = now

    async def decide(self, name: str, digest: str) -> Answer:
        """Decide within the budget. Never raises but for cancellation: what goes wrong is a refusal."""
        try:
            async with asyncio.timeout(BUDGET_SECONDS):
                return await self._decide(name, digest)
        except TimeoutError:
            return Answer(
                Outcome.ERROR,
                f"image {name} could not be verified within {BUDGET_SECONDS:g} s; the check goes on, so "
                "trying again may succeed",
            )

    async def _decide(self, name: str, digest: str) -> Answer:
        # (1) The reference.
        try:
            reference = parse_reference(name)
            image = reference.with_digest(digest)
        except InvalidReference as error:
            return Answer(Outcome.DENY, str(error).rstrip("."))
        if reference.digest not in {None, digest}:
            return Answer(Outcome.DENY, f"image {name} is not what is pulled, which has the digest {digest}")
        # (2) Exempt.
        if str(image) == self._fixed.own:
            return Answer(Outcome.ALLOW, f"image {image} is the verifier itself")
        if any(glob_matches(glob, image.name) for glob in self._fixed.exempt):
            return Answer(Outcome.ALLOW, f"image {image} is exempt by configuration")
        # (3) Policies.
        policies = self._trust.policies
        if policies is None:
            return Answer(Outcome.ERROR, "the trust policies have not been read yet; try again in a moment")
        return await self._judge(image, policies)

    async def _judge(self, image: Reference, policies: Sequence[AnyPolicy]) -> Answer:
        # (4) Who covers it.
        covering = _covering(policies, image.name)
        if not covering:
            return self._unmatched(image)
        # (5) Those that a pull can be held against.
        asked = [policy for policy in covering if not is_local(policy)]
        if not asked:
            return Answer(Outcome.ALLOW, f"image {image} is covered in some namespaces only")
        # (6) What they say, and (7) who excuses it.
        answers = await asyncio.gather(*(self._ask(image, policy) for policy in asked))
        verdicts = [verdict for verdict, _ in answers]
        judgement = judge(str(image), "*", verdicts, self._anywhere(), self._now())
        if judgement.refusals:
            failed = [known for verdict, known in answers if not verdict.trusted]
            outcome = Outcome.DENY if any(failed) else Outcome.ERROR
            return Answer(outcome, "; ".join(judgement.refusals))
        names = ", ".join(policy.name for policy in asked)
        return Answer(Outcome.ALLOW, "; ".join(judgement.warnings) or f"image {image} satisfies {names}")

    def _unmatched(self, image: Reference) -> Answer:
        sentence = f"image {image} is covered by no TrustPolicy"
        if not self._fixed.deny_unmatched:
            return Answer(Outcome.UNMATCHED, sentence)
        excuse = choose_exemption(self._anywhere(), str(image), "*", frozenset(), self._now())
        if excuse is not None:
            return Answer(Outcome.ALLOW, f"{sentence} ({excuse.sentence})")
        return Answer(Outcome.DENY, f"{sentence}, and this node pulls only what is covered")

    def _anywhere(self) -> list[Exemption]:
        """Give the exceptions as if each were granted in all namespaces."""
        return [
            dataclasses.replace(one, spec=one.spec.model_copy(update={"namespaces": ANYWHERE}))
            for one in self._trust.exemptions
        ]

    async def _ask(self, image: Reference, policy: AnyPolicy) -> tuple[PolicyVerdict, bool]:
        """Give the verdict of one policy and whether it is certain."""
        if isinstance(policy, BrokenPolicy):
            missing = f"the policy itself cannot be understood ({policy.problem})"
            return PolicyVerdict(policy.name, mode_of(policy), trusted=False, missing=missing), False
        try:
            return await self._verifier.verify(image, policy), True
        except CannotVerify as error:
            missing = f"it could not be verified: {error}"
            return PolicyVerdict(policy.name, mode_of(policy), trusted=False, missing=missing), False


def _covering(policies: Sequence[AnyPolicy], name: str) -> list[AnyPolicy]:
    """Choose the policies that speak about a repository in any namespace."""
    return [
        policy
        for policy in sorted(policies, key=lambda policy: policy.name)
        if any(glob_matches(glob, name) for glob in images_of(policy))
    ]
