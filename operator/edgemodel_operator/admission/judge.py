"""Decide about one request. The procedure, whose numbers the code carries:

1. As long as the policies were not read, everything is refused.
2. Only images that the request may start are judged: `review` says which. Each pod was judged when it was
   created. A static pod that its own node reports runs already, and is left to the audit.
3. Each image must name its registry and, in a pod, a sha256 digest: a tag can mean another image in a moment.
   In a template a tag is looked up, as its pods will have theirs: an early answer, which binds nobody.
4. The policies that speak about it in this namespace are found; there must be one.
5. Every one of them must hold. Owner references, annotations and earlier answers to others prove nothing.
6. What could not be found out counts as a refusal, and is called an error.
7. One exception of the operator's namespace may excuse an image from everything that refuses it in 4 to 6.

Where only policies in Audit mode speak about an image, refusals of steps 3, 5 and 6 become warnings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from edgemodel_operator.adapters.policy_verifier import CannotVerify
from edgemodel_operator.admission.metrics import Outcome
from edgemodel_operator.admission.policy_source import ExceptionSource, PolicySource
from edgemodel_operator.admission.review import ImageUse, Review
from edgemodel_operator.admission.tags import TagResolver
from edgemodel_operator.admission.verdict_cache import MAX_EACH
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
    strictest_mode,
)
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference

BUDGET_SECONDS = 8.0
"""The API server waits ten seconds, and its own sentence about a time-out says nothing."""
MAX_IMAGES = 256
NO_POLICY = "NoPolicy"
NO_DIGEST = "NoDigest"
INVALID_REFERENCE = "InvalidReference"
NOT_UNDERSTOOD = "PolicyNotUnderstood"


class Verifier(Protocol):
    """What checks one image against one policy."""

    async def verify(
        self,
        image: Reference,
        policy: Policy,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> PolicyVerdict:
        """Tell whether the policy holds. Raises CannotVerify. Without `remember` nothing is kept of it.

        What has to be asked of a registry waits for one of `turns`.
        """
        ...


@dataclass(frozen=True)
class Finding:
    """What was found out about one image: by each policy that speaks about it, and all together."""

    image: str
    judgement: Judgement
    verdicts: tuple[PolicyVerdict, ...] = ()
    reason: str = ""
    uncertain: bool = False

    @property
    def audited(self) -> bool:
        """Whether it passes only because a policy is in Audit mode."""
        soft = any(not one.trusted and one.mode is Mode.AUDIT for one in self.verdicts)
        return self.judgement.allowed and (soft or self.reason == NO_DIGEST)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Say in CamelCase words what is wrong."""
        words = (self.reason, *(one.reason for one in self.verdicts if not one.trusted))
        return tuple(dict.fromkeys(word for word in words if word))


@dataclass(frozen=True)
class Decision:
    """The answer. `outcome` with mode Audit tells what it would have been, while the request is allowed."""

    outcome: Outcome
    mode: Mode = Mode.ENFORCE
    refusals: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = field(default=(), compare=False)

    @property
    def allowed(self) -> bool:
        """Whether the request passes."""
        return not self.refusals

    @property
    def message(self) -> str:
        """All refusals as one text."""
        return "; ".join(self.refusals)

    @property
    def exceptions(self) -> tuple[str, ...]:
        """Name the exceptions by which images pass, once for each image."""
        return tuple(name for finding in self.findings for name in finding.judgement.exceptions)


@dataclass(frozen=True)
class Sources:
    """What the judge asks: policies, exceptions, and the time, with its zone."""

    policies: PolicySource
    exceptions: ExceptionSource
    now: Callable[[], datetime]


@dataclass(frozen=True)
class _Case:
    """One request under way: the policies of its moment, and its turns for what a registry is asked."""

    review: Review
    policies: Sequence[AnyPolicy]
    turns: asyncio.Semaphore


class Judge:
    """Decides about requests; holds no state of its own."""

    def __init__(
        self,
        sources: Sources,
        verifier: Verifier,
        tags: TagResolver,
        *,
        budget_seconds: float = BUDGET_SECONDS,
    ) -> None:
        self._sources = sources
        self._verifier = verifier
        self._tags = tags
        self._budget_seconds = budget_seconds

    async def decide(self, review: Review) -> Decision:
        """Decide within the budget. Never raises but for cancellation: what goes wrong is a refusal."""
        try:
            async with asyncio.timeout(self._budget_seconds):
                return await self._decide(review)
        except TimeoutError:
            return refuse(
                f"the images of {review.subject} could not be verified within {self._budget_seconds:g} s; "
                "the check goes on, so trying again may succeed"
            )

    async def _decide(self, review: Review) -> Decision:
        # (1) Policies.
        if not self._sources.policies.synced:
            return refuse("the trust policies have not been read yet; try again in a moment")
        # (2) Nothing starts.
        if not review.starting or review.mirror:
            return Decision(Outcome.ALLOW)
        images = _places(review.starting)
        if len(images) > MAX_IMAGES:
            return refuse(f"{review.subject} names more than {MAX_IMAGES} different images")
        # (3) to (7), each image once.
        case = _Case(review, self._sources.policies.policies, asyncio.Semaphore(MAX_EACH))
        findings = await asyncio.gather(
            *(self._judge_image(image, where, case) for image, where in images.items())
        )
        return _combine(findings)

    async def _judge_image(self, text: str, where: str, case: _Case) -> Finding:
        review = case.review
        # (3) A registry and a digest.
        try:
            reference = parse_reference(text)
        except InvalidReference as error:
            refused = Judgement(refusals=(f"{where}: {str(error).rstrip('.')}",))
            return Finding(text, refused, reason=INVALID_REFERENCE)
        # (4) Who speaks about it.
        matching = matching_policies(case.policies, reference.name, review.namespace)
        if reference.digest is None and review.is_pod:
            nobody = self._conclude(text, review.namespace, ())
            named = matching or nobody.judgement.allowed
            return _tagged(text, where, reference, matching) if named else nobody
        if reference.digest is None and matching:
            try:
                digest = await self._tags.digest_of(reference)
            except CannotVerify as error:
                answers = [(_unknown(policy, error), False) for policy in matching]
                return self._conclude(text, review.namespace, answers)
            text, reference = f"{text}@{digest}", reference.with_digest(digest)
        # (5) What they say.
        pinned = reference.with_digest(reference.digest) if reference.digest else reference
        answers = await asyncio.gather(*(self._ask(pinned, policy, case) for policy in matching))
        return self._conclude(text, review.namespace, answers)

    def _conclude(self, text: str, namespace: str, answers: Sequence[tuple[PolicyVerdict, bool]]) -> Finding:
        verdicts = tuple(verdict for verdict, _ in answers)
        # (7) Exceptions.
        judgement = judge(text, namespace, verdicts, self._sources.exceptions.exceptions, self._sources.now())
        # (6) Uncertain only if nothing is certainly wrong.
        failed = [known for verdict, known in answers if not verdict.trusted]
        return Finding(
            text,
            judgement,
            verdicts,
            reason="" if verdicts else NO_POLICY,
            uncertain=bool(failed) and not any(failed),
        )

    async def _ask(self, image: Reference, policy: AnyPolicy, case: _Case) -> tuple[PolicyVerdict, bool]:
        """Give the verdict of one policy and whether it is certain."""
        if isinstance(policy, BrokenPolicy):
            missing = f"the policy itself cannot be understood ({policy.problem})"
            return PolicyVerdict(policy.name, mode_of(policy), False, missing, NOT_UNDERSTOOD), False
        try:
            verdict = await self._verifier.verify(
                image, policy, remember=not case.review.dry_run, turns=case.turns
            )
        except CannotVerify as error:
            return _unknown(policy, error), False
        return verdict, True


def refuse(sentence: str) -> Decision:
    """Refuse because something could not be checked."""
    return Decision(Outcome.ERROR, refusals=(sentence,))


def _unknown(policy: AnyPolicy, error: CannotVerify) -> PolicyVerdict:
    missing = f"it could not be verified: {error}"
    return PolicyVerdict(policy.name, mode_of(policy), trusted=False, missing=missing, reason=error.reason)


def _tagged(text: str, where: str, image: Reference, matching: Sequence[AnyPolicy]) -> Finding:
    sentence = (
        f"{where}: image {text} is named by tag, which can mean another image in a moment; "
        f"write {image.name}@sha256:…"
    )
    if strictest_mode(matching) is Mode.AUDIT:
        softened = f"{sentence} (admitted because the policy is in Audit mode)"
        return Finding(text, Judgement(warnings=(softened,)), reason=NO_DIGEST)
    return Finding(text, Judgement(refusals=(sentence,)), reason=NO_DIGEST)


def _places(images: Iterable[ImageUse]) -> dict[str, str]:
    """Give every image once, with the first place that uses it."""
    places: dict[str, str] = {}
    for use in images:
        places.setdefault(use.image, use.where)
    return places


def _combine(findings: Sequence[Finding]) -> Decision:
    refusals = tuple(text for finding in findings for text in finding.judgement.refusals)
    warnings = tuple(text for finding in findings for text in finding.judgement.warnings)
    refused = [finding for finding in findings if finding.judgement.refusals]
    audited = [finding for finding in findings if finding.audited]
    if refused:
        return Decision(_outcome(refused), Mode.ENFORCE, refusals, warnings, tuple(findings))
    if audited:
        return Decision(_outcome(audited), Mode.AUDIT, (), warnings, tuple(findings))
    return Decision(Outcome.ALLOW, Mode.ENFORCE, (), warnings, tuple(findings))


def _outcome(failed: Sequence[Finding]) -> Outcome:
    return Outcome.ERROR if all(finding.uncertain for finding in failed) else Outcome.DENY
