"""Waves: who is touched next, how many at a time, and what is written before. For rollouts and late nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from edgemodel_operator.api.edgemodel import OnFailure, Rollout, Wave
from edgemodel_operator.api.edgemodel_status import FailedNode, Quarantine, RolloutStatus, SilentNode
from edgemodel_operator.core.member import (
    NOT_ANSWERING,
    Assignment,
    Member,
    MemberState,
    failure_of,
    moved,
)
from edgemodel_operator.core.trial import Result

TOUCH_WINDOW = timedelta(seconds=20)
"""How old the stored time of the last touch may be when nodes are touched: less than any deadline (30 s)."""
MAX_FAILED = 100


@dataclass(frozen=True)
class RolloutPlan:
    """The decision of one pass."""

    assignments: tuple[Assignment, ...]
    states: tuple[MemberState, ...]
    status: RolloutStatus | None
    quarantine: Quarantine | None = None
    look_again_at: datetime | None = None


@dataclass(frozen=True)
class Policy:
    """What the spec asks of a rollout."""

    waves: tuple[Wave, ...]
    max_failures: int
    rolls_back: bool
    paused: bool
    deadline: timedelta
    """How long a node may be without an answer."""
    spares: bool = False
    """Whether the revision is the last known good one: nodes that fail with it never condemn it."""

    @classmethod
    def of(cls, spec: Rollout) -> Policy:
        """Take what is needed from the spec."""
        return cls(
            waves=spec.waves,
            max_failures=spec.max_failures,
            rolls_back=spec.on_failure is OnFailure.ROLLBACK,
            paused=spec.paused,
            deadline=timedelta(seconds=spec.progress_deadline_seconds),
        )


def all_waves(policy: Policy) -> tuple[Wave, ...]:
    """Give the waves of the spec, ended by one that takes every node."""
    last = policy.waves[-1]
    return policy.waves if last.percent == 100 else (*policy.waves, Wave(percent=100))


def size_of(wave: Wave, total: int) -> int:
    """Say how many of all nodes may have the revision in a wave."""
    if wave.percent is not None:
        return ceil(wave.percent * total / 100)
    return min(wave.nodes or 1, total)


def candidates(members: Sequence[Member], failed: Collection[str]) -> list[Member]:
    """Give the nodes that can be touched."""
    return [member for member in members if member.ready and not member.touched and member.name not in failed]


def next_ones(
    members: Sequence[Member], failed: Collection[str], revision: str, quota: int
) -> frozenset[str]:
    """Name the nodes to touch next, as far as the quota allows; a node that failed has made room again."""
    touched = sum(1 for member in members if member.touched and member.name not in failed)
    order = sorted(candidates(members, failed), key=lambda member: _turn(member, revision))
    return frozenset(member.name for member in order[: max(0, quota - touched)])


def cut_overs(members: Sequence[Member], failed: Collection[str]) -> frozenset[str]:
    """Name the nodes whose device changes hands next: their progress deadline begins anew, as at a touch."""
    return frozenset(member.name for member in members if member.cuts_over and member.name not in failed)


def moved_on(member: Member, touching: Collection[str]) -> tuple[str, str]:
    """Move a touched node one step; its device changes hands only when that was announced."""
    if member.cuts_over and member.name not in touching:
        return member.active, member.next
    return moved(member)


def _turn(member: Member, revision: str) -> tuple[bool, str]:
    """Order the nodes: first those that can try without a gap, then by a hash that no label edit moves."""
    return member.exclusive, hashlib.sha256(f"{member.uid}/{revision}".encode()).hexdigest()


def failed_ones(members: Sequence[Member], failed: Sequence[FailedNode]) -> frozenset[str]:
    """Name the members that failed; a node that was replaced under its name did not."""
    return frozenset(member.name for member in members if failure_of(member, failed) is not None)


def new_failures(
    members: Sequence[Member], failed: Sequence[FailedNode], now: datetime
) -> tuple[FailedNode, ...]:
    """Give the failures that are not recorded yet."""
    return tuple(
        FailedNode(
            name=member.name,
            uid=member.uid,
            reason=member.judgement.reason,
            message=member.judgement.message[:512],
            at=text_of(now),
        )
        for member in members
        if member.on_trial and member.judgement.result is Result.FAILED and failure_of(member, failed) is None
    )


def with_silence(members: Sequence[Member], status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Record which nodes passed and do not answer now, and since when."""
    known = {node.name: node for node in status.silent}
    silent = [
        known.get(member.name, SilentNode(name=member.name, since=text_of(now)))
        for member in members
        if member.silent
    ]
    return status.model_copy(update={"silent": tuple(silent[:MAX_FAILED])})


def broken_ones(
    members: Sequence[Member], status: RolloutStatus, deadline: timedelta, now: datetime
) -> tuple[FailedNode, ...]:
    """Give the failures of nodes that passed and then were silent for too long."""
    silent = {node.name for node in status.silent if now >= datetime.fromisoformat(node.since) + deadline}
    message = f"it passed, and has not answered for {int(deadline.total_seconds())} s"
    return tuple(
        FailedNode(name=member.name, uid=member.uid, reason=NOT_ANSWERING, message=message, at=text_of(now))
        for member in members
        if member.silent and member.name in silent and failure_of(member, status.failed) is None
    )


def silence_ends(status: RolloutStatus, deadline: timedelta, now: datetime) -> list[datetime]:
    """Say when the nodes that are silent now have failed."""
    ends = [datetime.fromisoformat(node.since) + deadline for node in status.silent]
    return [end for end in ends if end > now]


def with_failures(status: RolloutStatus, failures: Sequence[FailedNode]) -> RolloutStatus:
    """Record failures; what was known of another node of the same name goes."""
    names = {failure.name for failure in failures}
    known = tuple(node for node in status.failed if node.name not in names)
    return status.model_copy(update={"failed": (*known, *failures)[:MAX_FAILED]})


def is_announced(status: RolloutStatus, now: datetime) -> bool:
    """Say whether the stored `touched_at` is recent enough to touch nodes now.

    The progress deadline of a node without a pod counts from there, also when the operator dies before it
    stores the next status.
    """
    return now - datetime.fromisoformat(status.touched_at) <= TOUCH_WINDOW


def looks(members: Sequence[Member]) -> list[datetime | None]:
    """Say when the trials that are under way want to be looked at."""
    return [member.judgement.look_again_at for member in members if member.on_trial]


def earliest(times: Sequence[datetime | None]) -> datetime | None:
    """Give the earliest of the times that there are."""
    return min((time for time in times if time is not None), default=None)


def text_of(time: datetime) -> str:
    """Write a time as the status holds it."""
    return time.isoformat(timespec="milliseconds")
