"""The audit: what runs, held against the trust policies of now. The rules:

1. An image in use is judged as if its pod were created now: by every policy that speaks about it, and by the
   exceptions. Other than at admission, what the node runs counts besides what the pod names.
2. What cannot be found out is no finding: what was found before stays, else it is unknown.
3. A use that was found before keeps the time at which it was first seen.
4. The order in which pods and policies come changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple, TypeAlias

from edgemodel_operator.api.trustpolicy import Mode
from edgemodel_operator.core.audit_uses import ImageUse, Subject, subject_of
from edgemodel_operator.core.exemption import Exemption, choose_exemption
from edgemodel_operator.core.trust import (
    AnyPolicy,
    BrokenPolicy,
    Policy,
    PolicyVerdict,
    matching_policies,
    mode_of,
)
from edgemodel_operator.oci.reference import Reference

NO_POLICY = "NoTrustPolicy"
"""The reason of an image that no policy speaks about."""
STATIC_POD = "StaticPod"
OTHER_IMAGE = "OtherImage"


class Question(NamedTuple):
    """Does a policy hold for an image, by digest?"""

    image: Reference
    policy: str


class PartQuestion(NamedTuple):
    """Is what a node reports (`other`, pulled from `reported` as far as it knows) a part of an image?"""

    image: Reference
    other: str
    reported: Reference | None


@dataclass(frozen=True)
class Unknown:
    """Something that could not be found out; `why` is half a sentence."""

    why: str


@dataclass(frozen=True)
class Answers:
    """What was found out; a question without an answer counts as unknown."""

    verdicts: Mapping[Question, PolicyVerdict | Unknown] = field(default_factory=dict)
    parts: Mapping[PartQuestion, bool | Unknown] = field(default_factory=dict)


FindingKey: TypeAlias = tuple[str, str, str, str]


@dataclass(frozen=True)
class Finding:
    """A use of an image for which a policy does not hold; `since` (RFC 3339) says when it was first seen."""

    use: ImageUse
    reason: str
    message: str
    since: str = ""

    @property
    def key(self) -> FindingKey:
        """Tell this finding from others of the same policy, also in the next audit."""
        return self.use.namespace, self.use.pod, self.use.container, self.use.image

    @property
    def order(self) -> tuple[str, ...]:
        """The oldest come first, so that a list that is cut stays the same list."""
        return self.since, *self.key


@dataclass(frozen=True)
class PolicyAudit:
    """What the audit found for one policy; `images` counts different images in use that it speaks about."""

    images: int = 0
    findings: tuple[Finding, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """What the audit found; `uncovered` are the uses in guarded namespaces about which no policy speaks."""

    images: int = 0
    policies: Mapping[str, PolicyAudit] = field(default_factory=dict)
    uncovered: tuple[ImageUse, ...] = ()


@dataclass(frozen=True)
class Scope:
    """What the uses are held against. Images that no policy speaks about matter in `guarded` namespaces."""

    policies: Sequence[AnyPolicy]
    exemptions: Sequence[Exemption]
    guarded: AbstractSet[str]
    now: datetime

    @property
    def time(self) -> str:
        """The time of the audit, to the second (RFC 3339)."""
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")


Known: TypeAlias = Mapping[str, Mapping[FindingKey, Finding]]
"""The findings of the audit before, by policy."""


@dataclass(frozen=True)
class _Matter:
    """All uses in one namespace of one image that also run as the same: they are judged alike."""

    subject: Subject
    namespace: str
    policies: tuple[AnyPolicy, ...]
    uses: tuple[ImageUse, ...]

    @property
    def part_question(self) -> PartQuestion | None:
        subject = self.subject
        if subject.image is None or not subject.other:
            return None
        return PartQuestion(subject.image, subject.other, subject.reported)

    @property
    def text(self) -> str:
        """The image as exceptions name it."""
        return str(self.subject.image) if self.subject.image else self.uses[0].image


def questions(
    uses: Iterable[ImageUse], policies: Sequence[AnyPolicy]
) -> tuple[frozenset[Question], frozenset[PartQuestion]]:
    """Give everything that has to be found out, each once."""
    about_images: set[Question] = set()
    about_parts: set[PartQuestion] = set()
    for matter in _matters(uses, policies):
        image = matter.subject.image
        asked = [policy for policy in matter.policies if isinstance(policy, Policy)]
        if image is not None and asked:
            about_images.update(Question(image, policy.name) for policy in asked)
            if matter.part_question is not None:
                about_parts.add(matter.part_question)
    return frozenset(about_images), frozenset(about_parts)


def audit(uses: Iterable[ImageUse], scope: Scope, answers: Answers, known: Known) -> Audit:
    """Judge everything that runs; `known` holds the findings of before."""
    ledger = {policy.name: _Ledger(known.get(policy.name, {}), scope.time) for policy in scope.policies}
    uncovered: list[ImageUse] = []
    images: set[tuple[str, str]] = set()
    for matter in _matters(uses, scope.policies):
        if matter.policies:
            images.add(_identity(matter))
            _judge(matter, scope, answers, ledger)
        elif matter.namespace in scope.guarded and not _excused(matter, frozenset(), scope):
            images.add(_identity(matter))
            uncovered += matter.uses
    results = {name: entries.close() for name, entries in ledger.items()}
    return Audit(len(images), results, tuple(sorted(uncovered)))


def _identity(matter: _Matter) -> tuple[str, str]:
    return matter.text, matter.subject.other


def _matters(uses: Iterable[ImageUse], policies: Sequence[AnyPolicy]) -> Iterator[_Matter]:
    # Ten thousand pods run a few hundred images: what is compared for each of them is cheap.
    alike: dict[tuple[str, str, str, bool], list[ImageUse]] = {}
    for use in uses:
        alike.setdefault((use.namespace, use.image, use.running, use.is_volume), []).append(use)
    for same in alike.values():
        subject = subject_of(same[0])
        if subject is not None:
            namespace = same[0].namespace
            matching = matching_policies(policies, subject.name, namespace)
            yield _Matter(subject, namespace, matching, tuple(same))


@dataclass
class _Ledger:
    """What is written down for one policy."""

    known: Mapping[FindingKey, Finding]
    time: str
    images: set[tuple[str, str]] = field(default_factory=set)
    findings: list[Finding] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)

    def find(self, use: ImageUse, reason: str, message: str) -> None:
        if use.static:
            message = f"it runs in a static pod, which admission cannot stop: {message}"
            reason = STATIC_POD
        finding = Finding(use, reason, message)
        before = self.known.get(finding.key)
        self.findings.append(replace(finding, since=before.since if before else self.time))

    def leave_open(self, use: ImageUse, why: str) -> None:
        before = self.known.get(Finding(use, "", "").key)
        if before is None:
            self.unknown.add(f"{use.image}: {why}")
        else:
            self.findings.append(replace(before, use=use))

    def close(self) -> PolicyAudit:
        findings = tuple(sorted(self.findings, key=lambda finding: finding.order))
        return PolicyAudit(len(self.images), findings, tuple(sorted(self.unknown)))


@dataclass(frozen=True)
class _Failure:
    """Why a policy does not hold, or (without a reason) that this is unknown."""

    policy: AnyPolicy
    reason: str
    message: str


def _judge(matter: _Matter, scope: Scope, answers: Answers, ledger: Mapping[str, _Ledger]) -> None:
    for policy in matter.policies:
        ledger[policy.name].images.add(_identity(matter))
    failures = [failure for policy in matter.policies for failure in _ask(matter, policy, answers)]
    certain = [failure for failure in failures if failure.reason]
    excused = _excused_policies(matter, [failure.policy for failure in certain], scope)
    for failure in failures:
        entries = ledger[failure.policy.name]
        for use in matter.uses:
            if not failure.reason:
                entries.leave_open(use, failure.message)
            elif failure.policy.name not in excused:
                entries.find(use, failure.reason, failure.message)


def _ask(matter: _Matter, policy: AnyPolicy, answers: Answers) -> Iterator[_Failure]:
    """Say why a policy does not hold; nothing if it does."""
    subject = matter.subject
    if isinstance(policy, BrokenPolicy):
        yield _Failure(policy, "", f"the policy itself cannot be understood ({policy.problem})")
        return
    if subject.image is None:
        yield _Failure(policy, subject.reason, subject.message)
        return
    verdict = answers.verdicts.get(Question(subject.image, policy.name), Unknown("it was not looked at yet"))
    if isinstance(verdict, Unknown):
        yield _Failure(policy, "", verdict.why)
    elif not verdict.trusted:
        yield _Failure(policy, verdict.reason or "NotTrusted", verdict.missing)
    elif matter.part_question is not None:
        yield from _ask_part(matter.part_question, policy, answers)


def _ask_part(question: PartQuestion, policy: AnyPolicy, answers: Answers) -> Iterator[_Failure]:
    part = answers.parts.get(question, Unknown("its parts were not looked at yet"))
    if isinstance(part, Unknown):
        yield _Failure(policy, "", part.why)
    elif not part:
        message = f"the node runs {question.other}, which is no part of the image that the pod names"
        yield _Failure(policy, OTHER_IMAGE, message)


def _excused_policies(matter: _Matter, failed: Sequence[AnyPolicy], scope: Scope) -> frozenset[str]:
    """Name the policies from which an exception excuses: one for all that enforce, as at admission."""
    enforcing = frozenset(policy.name for policy in failed if mode_of(policy) is Mode.ENFORCE)
    auditing = frozenset(policy.name for policy in failed) - enforcing
    excused = frozenset(name for name in auditing if _excused(matter, frozenset({name}), scope))
    return excused | enforcing if enforcing and _excused(matter, enforcing, scope) else excused


def _excused(matter: _Matter, policies: frozenset[str], scope: Scope) -> bool:
    return choose_exemption(scope.exemptions, matter.text, matter.namespace, policies, scope.now) is not None
