"""One node in a rollout: what it has, and the labels that it gets next.

The labels of a node say what it runs (`active`) and what is on trial (`next`); see `core.rollout`. A pair of
texts is the pair of both labels, where an empty text means no label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemodel_operator.api.edgemodel_status import FailedNode, NodeState
from edgemodel_operator.core.trial import Judgement, Result

NOT_ANSWERING = "NotAnswering"
"""Why a node that passed is not fine."""


@dataclass(frozen=True)
class Fallback:
    """What the last known good revision gives a node."""

    value: str = ""
    """Its assignment; empty if there is none."""
    exclusive: bool = False
    answers: bool = False
    """Whether its pod is ready on the node."""


@dataclass(frozen=True)
class Member:
    """One matching node as the rollout of one revision sees it."""

    name: str
    uid: str
    ready: bool
    value: str
    """The assignment that the revision gives this node."""
    fallback: Fallback
    exclusive: bool
    active: str
    next: str
    judgement: Judgement
    """How the trial of `value` stands here."""
    prefetched: bool = False
    """Whether the image of an exclusive target is on the node."""
    answers: bool = False
    """Whether a pod of what serves here is ready."""
    runs: bool = False
    """Whether a pod of what serves here runs: it may answer, though its readiness is not reported now."""
    condemned: bool = False
    """Whether what serves here belongs to a quarantined revision."""

    @property
    def serving(self) -> str:
        """The assignment that serves here: the active one, or a first trial."""
        return self.active or self.next

    @property
    def updated(self) -> bool:
        """Whether the revision passed here."""
        return bool(self.value) and self.active == self.value and not self.next

    @property
    def on_trial(self) -> bool:
        """Whether the revision is under trial here."""
        return bool(self.value) and self.next == self.value

    @property
    def silent(self) -> bool:
        """Whether the revision passed here and does not answer, though the node is there."""
        return self.updated and self.ready and not self.answers

    @property
    def cuts_over(self) -> bool:
        """Whether an exclusive device is about to be taken from what serves here: the image is fetched."""
        is_fetched = self.on_trial and self.exclusive and self.active != self.value and self.prefetched
        return is_fetched and self.judgement.result is not Result.DEFERRED

    @property
    def touched(self) -> bool:
        """Whether the revision has been given to this node."""
        return self.updated or self.on_trial


@dataclass(frozen=True)
class Assignment:
    """The labels that a node shall have; empty means no label."""

    node: str
    active: str
    next: str


@dataclass(frozen=True)
class MemberState:
    """How a matching node stands, and why."""

    node: str
    state: NodeState
    reason: str = ""
    message: str = ""


def begun(member: Member) -> tuple[str, str]:
    """Put the revision beside what the node has; a first trial that it supersedes goes on if it answers.

    Where it passed before and still serves, its pod is no trial: another revision's trial ends, no more.
    """
    if member.active == member.value:
        return member.value, ""
    has = member.active or (member.next if member.runs else "")
    if member.exclusive and not has:
        return member.value, member.value
    return has, member.value


def moved(member: Member) -> tuple[str, str]:
    """Move a touched node on: fetched → cut over, passed → settled, offline before it was reached → back."""
    if not member.on_trial:
        return member.active, member.next
    if member.judgement.result is Result.DEFERRED:
        return reverted(member)
    if member.exclusive and member.active != member.value:
        return (member.value, member.value) if member.cuts_over else (member.active, member.next)
    if member.judgement.result is Result.PASSED:
        return member.value, ""
    return member.active, member.next


def reverted(member: Member) -> tuple[str, str]:
    """Give what the node had before the trial."""
    if member.active not in ("", member.value):
        return member.active, ""
    return (member.fallback.value if member.fallback.value != member.value else ""), ""


def given_up(member: Member) -> tuple[str, str]:
    """Take the revision off a node on which it failed; what is good anyway need only be ready."""
    if member.value == member.fallback.value and (member.condemned or member.active in ("", member.value)):
        return restored(member)
    return reverted(member)


def kept(member: Member) -> tuple[str, str]:
    """Give what an untouched node has until its wave: no superseded trial, and nothing that failed.

    A superseded trial that is all the node has goes on serving if it answers; else the node gets what is
    good, beside it as long as that does not answer.
    """
    if member.condemned or not member.serving:
        return restored(member)
    is_replaced = bool(member.next) and member.next == member.fallback.value
    if is_replaced and not member.answers:
        return restored(member)
    is_alone = member.active in ("", member.next)
    if not is_alone or member.answers or (member.runs and not member.fallback.value):
        return member.serving, ""
    return restored(member)


def restored(member: Member) -> tuple[str, str]:
    """Bring a node to the last known good revision; without one it has nothing.

    A node that has a pod of it keeps it. Others get it beside what runs now where both fit, so that
    somebody answers all the time, and instead of it where they do not.
    """
    good = member.fallback
    beside = member.runs and not good.answers and not good.exclusive
    if good.value and beside and member.serving != good.value:
        return member.serving, good.value
    return good.value, ""


def failure_of(member: Member, failed: Sequence[FailedNode]) -> FailedNode | None:
    """Give the record of a node's failure; one of another node that had its name before is none."""
    return next((node for node in failed if node.name == member.name and node.uid in ("", member.uid)), None)


def state_of(member: Member, failed: Sequence[FailedNode]) -> MemberState:
    """Say how a node stands to the revision; `failed` are the nodes that count against it."""
    if not member.value:
        return MemberState(member.name, NodeState.PENDING, "NothingPassed", "no revision has passed yet")
    failure = failure_of(member, failed)
    if failure is not None and not member.updated:
        return MemberState(member.name, NodeState.FAILED, failure.reason, failure.message)
    if member.updated:
        silence = (NOT_ANSWERING, "the revision passed here, and does not answer now")
        return MemberState(member.name, NodeState.UPDATED, *(silence if member.silent else ()))
    judgement = member.judgement
    if member.on_trial and judgement.result is Result.FAILED:
        return MemberState(member.name, NodeState.FAILED, judgement.reason, judgement.message)
    if member.on_trial and judgement.result is not Result.DEFERRED:
        if member.exclusive and member.active != member.value:
            return MemberState(member.name, NodeState.TRIAL, "Prefetching", "the image is being fetched")
        return MemberState(member.name, NodeState.TRIAL, judgement.reason, judgement.message)
    if not member.ready:
        return MemberState(
            member.name, NodeState.DEFERRED, "Offline", "offline; it is updated when it returns"
        )
    return MemberState(member.name, NodeState.PENDING, "WaitingForWave", "its wave has not come")
