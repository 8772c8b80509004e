"""The rollout: which nodes change their labels now, and what must be remembered before they do.

All facts lie in two places. The labels of a node say what it runs (`active`) and what is on trial (`next`):

    active=old           untouched
    active=old next=new  on trial beside the old pod; on an exclusive device: the image is being fetched
    active=new next=new  on trial alone: an exclusive device, or a node that had nothing before
    active=new           passed

The status says which revision is rolled out, the wave, and the nodes that failed. Every intent is written
there first and acted on in the next pass, so that a kill at any line ends in the same state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil

from edgemodel_operator.api.edgemodel import OnFailure, Rollout, Wave
from edgemodel_operator.api.edgemodel_status import FailedNode, Quarantine, RolloutStatus
from edgemodel_operator.core.member import (
    Assignment,
    Member,
    MemberState,
    begun,
    given_up,
    kept,
    moved,
    restored,
    state_of,
)
from edgemodel_operator.core.trial import Result

TOUCH_WINDOW = timedelta(seconds=20)
"""How old the stored time of the last touch may be when nodes are touched: less than any deadline (30 s)."""


class Mode(StrEnum):
    """What the rollout does in this pass."""

    BEGIN = "Begin"
    WAVES = "Waves"
    STEADY = "Steady"
    ROLLBACK = "Rollback"


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

    @classmethod
    def of(cls, spec: Rollout) -> Policy:
        """Take what is needed from the spec."""
        return cls(
            waves=spec.waves,
            max_failures=spec.max_failures,
            rolls_back=spec.on_failure is OnFailure.ROLLBACK,
            paused=spec.paused,
        )


def plan_rollout(
    mode: Mode,
    revision: str,
    members: Sequence[Member],
    status: RolloutStatus | None,
    policy: Policy,
    now: datetime,
    last_known_good: str = "",
) -> RolloutPlan:
    """Decide the next bounded step of the rollout of `revision`.

    `last_known_good` has proved itself: it is never put in quarantine, however many nodes fail with it.
    """
    match mode:
        case Mode.BEGIN:
            return _begin(revision, members, policy, now)
        case Mode.STEADY:
            return _steady(members, status, policy, now)
        case Mode.ROLLBACK:
            return _roll_back(members, status)
        case Mode.WAVES:
            if status is None:
                raise ValueError("waves need the status of a rollout that has begun")
            return _waves(members, status, policy, now, is_good=revision == last_known_good)


def _begin(revision: str, members: Sequence[Member], policy: Policy, now: datetime) -> RolloutPlan:
    """Record the intent; no node is touched in this pass."""
    status = RolloutStatus(
        revision=revision, wave=0, waves=len(_all_waves(policy)), started_at=_text(now), touched_at=_text(now)
    )
    return RolloutPlan((), tuple(state_of(member, ()) for member in members), status, look_again_at=now)


# --- waves -----------------------------------------------------------------------------------------------


def _waves(
    members: Sequence[Member], status: RolloutStatus, policy: Policy, now: datetime, *, is_good: bool
) -> RolloutPlan:
    failures = _new_failures(members, status)
    status = status.model_copy(update={"failed": (*status.failed, *failures)[:100]})
    states = tuple(state_of(member, status.failed) for member in members)
    if _is_over(members, status, policy) and not is_good:
        return _stop(members, status, policy, states, now)
    if failures:
        # Nodes go back when the evidence is stored: else a kill in between would have them tried again.
        return RolloutPlan((), states, status, look_again_at=now)
    chosen = _chosen(members, status, policy)
    announced = _is_announced(status, now)
    assignments = _wave_step(members, status, chosen if announced else frozenset())
    times = _looks(members)
    if chosen:
        status = status.model_copy(update={"touched_at": _text(now), "wave_completed_at": ""})
        times += [] if announced else [now]
    else:
        before = status.wave
        status = _advance(members, status, policy, now)
        ends = _soak_end(status, policy)
        times += [now] if status.wave != before else [ends if ends is not None and ends > now else None]
    return RolloutPlan(assignments, states, status, look_again_at=_earliest(times))


def _new_failures(members: Sequence[Member], status: RolloutStatus) -> tuple[FailedNode, ...]:
    known = {node.name for node in status.failed}
    return tuple(
        FailedNode(name=member.name, reason=member.judgement.reason, message=member.judgement.message[:512])
        for member in members
        if member.on_trial and member.judgement.result is Result.FAILED and member.name not in known
    )


def _is_over(members: Sequence[Member], status: RolloutStatus, policy: Policy) -> bool:
    """Say whether as many nodes failed as may fail, or every node there is."""
    failed = {node.name for node in status.failed}
    return len(failed) >= policy.max_failures or (
        bool(failed) and bool(members) and all(member.name in failed for member in members)
    )


def _stop(
    members: Sequence[Member],
    status: RolloutStatus,
    policy: Policy,
    states: tuple[MemberState, ...],
    now: datetime,
) -> RolloutPlan:
    """Too many nodes failed: quarantine the revision, or leave all as it is for a person."""
    if not policy.rolls_back:
        return RolloutPlan((), states, status)
    worst = status.failed[0]
    quarantine = Quarantine(
        revision=status.revision,
        reason=worst.reason,
        message=f"{worst.name}: {worst.message}"[:512],
        at=_text(now),
    )
    return RolloutPlan((), states, status, quarantine=quarantine, look_again_at=now)


def _chosen(members: Sequence[Member], status: RolloutStatus, policy: Policy) -> frozenset[str]:
    """Name the nodes to touch next, as far as the wave allows; a node that failed has made room again."""
    if policy.paused:
        return frozenset()
    failed = {node.name for node in status.failed}
    touched = sum(1 for member in members if member.touched and member.name not in failed)
    free = max(0, _quota(status, policy, len(members)) - touched)
    order = sorted(_candidates(members, failed), key=lambda member: _turn(member, status.revision))
    return frozenset(member.name for member in order[:free])


def _candidates(members: Sequence[Member], failed: Collection[str]) -> list[Member]:
    return [member for member in members if member.ready and not member.touched and member.name not in failed]


def _is_announced(status: RolloutStatus, now: datetime) -> bool:
    """Say whether the stored `touched_at` is recent enough to touch nodes now.

    The progress deadline of a node without a pod counts from there, also when the operator dies before it
    stores the next status.
    """
    return now - datetime.fromisoformat(status.touched_at) <= TOUCH_WINDOW


def _wave_step(
    members: Sequence[Member], status: RolloutStatus, chosen: Collection[str]
) -> tuple[Assignment, ...]:
    """Move every node one step, and touch the chosen ones."""
    failed = {node.name for node in status.failed}
    changes = []
    for member in members:
        if member.name in failed:
            wanted = given_up(member) if member.on_trial else kept(member)
        elif member.touched:
            wanted = moved(member)
        elif member.name in chosen:
            wanted = begun(member)
        else:
            wanted = kept(member)
        if wanted != (member.active, member.next):
            changes.append(Assignment(member.name, *wanted))
    return tuple(changes)


def _turn(member: Member, revision: str) -> tuple[bool, str]:
    """Order the nodes: first those that can try without a gap, then by a hash that no label edit moves."""
    return member.exclusive, hashlib.sha256(f"{member.uid}/{revision}".encode()).hexdigest()


def _all_waves(policy: Policy) -> tuple[Wave, ...]:
    """Give the waves of the spec, ended by one that takes every node."""
    last = policy.waves[-1]
    return policy.waves if last.percent == 100 else (*policy.waves, Wave(percent=100))


def _quota(status: RolloutStatus, policy: Policy, total: int) -> int:
    waves = _all_waves(policy)
    wave = waves[min(status.wave, len(waves) - 1)]
    if wave.percent is not None:
        return ceil(wave.percent * total / 100)
    return min(wave.nodes or 1, total)


def _advance(
    members: Sequence[Member], status: RolloutStatus, policy: Policy, now: datetime
) -> RolloutStatus:
    """Close the wave when its last node passed, open the next when the soak is over.

    The soak watches: when a node that passed does not answer any more, it starts again once that node does.
    """
    failed = {node.name for node in status.failed}
    settled = all(not member.on_trial or member.name in failed for member in members)
    touched = sum(1 for member in members if member.touched and member.name not in failed)
    filled = touched >= _quota(status, policy, len(members)) or not _candidates(members, failed)
    proven = any(member.updated for member in members)
    if policy.paused or not (settled and filled and proven):
        return status
    if any(member.updated and member.ready and not member.answers for member in members):
        return status.model_copy(update={"wave_completed_at": ""})
    if not status.wave_completed_at:
        status = status.model_copy(update={"wave_completed_at": _text(now)})
    ends = _soak_end(status, policy)
    if ends is not None and now < ends:
        return status
    waves = _all_waves(policy)
    if status.wave + 1 >= len(waves):
        return status.model_copy(update={"completed_at": status.completed_at or _text(now)})
    return status.model_copy(update={"wave": status.wave + 1, "wave_completed_at": ""})


def _soak_end(status: RolloutStatus, policy: Policy) -> datetime | None:
    if not status.wave_completed_at or status.completed_at:
        return None
    waves = _all_waves(policy)
    soak = waves[min(status.wave, len(waves) - 1)].soak_seconds
    return datetime.fromisoformat(status.wave_completed_at) + timedelta(seconds=soak)


# --- steady state and rollback ---------------------------------------------------------------------------


def _steady(
    members: Sequence[Member], status: RolloutStatus | None, policy: Policy, now: datetime
) -> RolloutPlan:
    """Bring in the nodes that come late: they were offline, or are new. Nobody is rolled back any more.

    A node that failed has had its trial: it keeps what it had.
    """
    failed = {node.name for node in status.failed} if status is not None else set()
    late = [] if policy.paused else _candidates(members, failed)
    announced = status is None or _is_announced(status, now)
    changes = []
    for member in members:
        if member.touched:
            wanted = given_up(member) if member.on_trial and member.name in failed else moved(member)
        elif member in late and announced:
            wanted = begun(member)
        else:
            continue
        if wanted != (member.active, member.next):
            changes.append(Assignment(member.name, *wanted))
    states = tuple(state_of(member, status.failed if status is not None else ()) for member in members)
    if status is not None and late:
        status = status.model_copy(update={"touched_at": _text(now)})
    times = [*_looks(members), now if late and not announced else None]
    return RolloutPlan(tuple(changes), states, status, look_again_at=_earliest(times))


def _roll_back(members: Sequence[Member], status: RolloutStatus | None) -> RolloutPlan:
    """Go back to the last known good revision, all nodes at once; `value` is its assignment here.

    What is good has proved itself before: it need only be ready. Offline nodes get their labels too: they
    come back to what is good.
    """
    changes = [
        Assignment(member.name, *restored(member))
        for member in members
        if restored(member) != (member.active, member.next)
    ]
    states = tuple(state_of(member, ()) for member in members)
    return RolloutPlan(tuple(changes), states, status, look_again_at=_earliest(_looks(members)))


# --- times -----------------------------------------------------------------------------------------------


def _looks(members: Sequence[Member]) -> list[datetime | None]:
    return [member.judgement.look_again_at for member in members if member.on_trial]


def _earliest(times: Sequence[datetime | None]) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _text(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")


def label_values(assignment: Assignment, key_active: str, key_next: str) -> Mapping[str, str | None]:
    """Give the label patch for an assignment: None removes a label."""
    return {key_active: assignment.active or None, key_next: assignment.next or None}
