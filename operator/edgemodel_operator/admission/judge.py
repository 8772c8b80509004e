"""Decide about one request. The procedure, whose numbers the code carries:

1. As long as the policies were not read, everything is refused.
2. An update that leaves every image where and what it was runs nothing new and is allowed: labels,
   finalizers, scaling. Each pod was judged when it was created.
3. Each image must name its registry and a sha256 digest: a tag can mean another image in a moment.
4. The policies that speak about it in this namespace are found; there must be one.
5. Every one of them must hold. Owner references, annotations and earlier answers to others prove nothing.
6. What could not be found out counts as a refusal, and is called an error.

Where only policies in Audit mode speak about an image, refusals of steps 3, 5 and 6 become warnings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgemodel_operator.admission.metrics import Outcome
from edgemodel_operator.admission.review import ImageUse, Review
from edgemodel_operator.admission.verifier import CannotVerify
from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.trust import (
    AnyPolicy,
    BrokenPolicy,
    Judgement,
    Policy,
    PolicyVerdict,
    judge,
    matching_policies,
    mode_of,
    no_policy_sentence,
    strictest_mode,
)
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference

BUDGET_SECONDS = 8.0
"""The API server waits ten seconds, and its own sentence about a time-out says nothing."""
MAX_IMAGES = 256


class PolicySource(Protocol):
    """Where the policies come from."""

    @property
    def synced(self) -> bool:
        """Whether all of them were read."""
        ...

    @property
    def policies(self) -> tuple[AnyPolicy, ...]:
        """All of them."""
        ...


class Verifier(Protocol):
    """What checks one image against one policy."""

    async def verify(self, image: Reference, policy: Policy) -> PolicyVerdict:
        """Tell whether the policy holds. Raises CannotVerify."""
        ...


@dataclass(frozen=True)
class Decision:
    """The answer. `outcome` with mode Audit tells what it would have been, while the request is allowed."""

    outcome: Outcome
    mode: Mode = Mode.ENFORCE
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request passes."""
        return not self.refusals

    @property
    def message(self) -> str:
        """All refusals as one text."""
        return "; ".join(self.refusals)


@dataclass(frozen=True)
class _Finding:
    """What was found out about one image."""

    judgement: Judgement
    uncertain: bool = False


class Judge:
    """Decides about requests; holds no state of its own."""

    def __init__(
        self, policies: PolicySource, verifier: Verifier, *, budget_seconds: float = BUDGET_SECONDS
    ) -> None:
        self._policies = policies
        self._verifier = verifier
        self._budget_seconds = budget_seconds

    async def decide(self, review: Review) -> Decision:
        """Decide within the budget. Never raises but for cancellation: what goes wrong is a refusal."""
        try:
            async with asyncio.timeout(self._budget_seconds):
                return await self._decide(review)
        except TimeoutError:
            return _refuse(
                f"the images of {review.subject} could not be verified within {self._budget_seconds:g} s; "
                "the check goes on, so trying again may succeed"
            )

    async def _decide(self, review: Review) -> Decision:
        # (1) Policies.
        if not self._policies.synced:
            return _refuse("the trust policies have not been read yet; try again in a moment")
        # (2) Nothing new.
        if review.images_unchanged:
            return Decision(Outcome.ALLOW)
        images = _places(review.images)
        if len(images) > MAX_IMAGES:
            return _refuse(f"{review.subject} names more than {MAX_IMAGES} different images")
        # (3) to (6), each image once.
        policies = self._policies.policies
        findings = await asyncio.gather(
            *(self._judge_image(image, where, review.namespace, policies) for image, where in images.items())
        )
        return _combine(findings)

    async def _judge_image(
        self, text: str, where: str, namespace: str, policies: Sequence[AnyPolicy]
    ) -> _Finding:
        # (3) A registry and a digest.
        try:
            reference = parse_reference(text)
        except InvalidReference as error:
            return _Finding(Judgement(refusals=(f"{where}: {str(error).rstrip('.')}",)))
        # (4) Who speaks about it.
        matching = matching_policies(policies, reference.name, namespace)
        if not matching:
            return _Finding(Judgement(refusals=(f"{where}: {no_policy_sentence(text, namespace)}",)))
        if reference.digest is None:
            sentence = (
                f"{where}: image {text} is named by tag, which can mean another image in a moment; "
                f"write {reference.name}@sha256:…"
            )
            return _Finding(_as_mode(sentence, strictest_mode(matching)))
        # (5) What they say.
        pinned = reference.with_digest(reference.digest)
        return await self._ask_all(text, pinned, namespace, matching)

    async def _ask_all(
        self, text: str, image: Reference, namespace: str, matching: Sequence[AnyPolicy]
    ) -> _Finding:
        answers = await asyncio.gather(*(self._ask(image, policy) for policy in matching))
        judgement = judge(text, namespace, [verdict for verdict, _ in answers])
        # (6) Uncertain only if nothing is certainly wrong.
        failed = [(verdict, known) for verdict, known in answers if not verdict.trusted]
        return _Finding(judgement, uncertain=bool(failed) and not any(known for _, known in failed))

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


def _places(images: Iterable[ImageUse]) -> dict[str, str]:
    """Give every image once, with the first place that uses it."""
    places: dict[str, str] = {}
    for use in images:
        places.setdefault(use.image, use.where)
    return places


def _combine(findings: Sequence[_Finding]) -> Decision:
    refusals = tuple(text for finding in findings for text in finding.judgement.refusals)
    warnings = tuple(text for finding in findings for text in finding.judgement.warnings)
    if refusals:
        blocking = [finding for finding in findings if finding.judgement.refusals]
        return Decision(_outcome(blocking), Mode.ENFORCE, refusals, warnings)
    if warnings:
        return Decision(
            _outcome([one for one in findings if one.judgement.warnings]), Mode.AUDIT, (), warnings
        )
    return Decision(Outcome.ALLOW)


def _outcome(failed: Sequence[_Finding]) -> Outcome:
    return Outcome.ERROR if all(finding.uncertain for finding in failed) else Outcome.DENY


def _as_mode(sentence: str, mode: Mode) -> Judgement:
    if mode is Mode.AUDIT:
        return Judgement(warnings=(f"{sentence} (admitted because the policy is in Audit mode)",))
    return Judgement(refusals=(sentence,))


def _refuse(sentence: str) -> Decision:
    return Decision(Outcome.ERROR, refusals=(sentence,))
