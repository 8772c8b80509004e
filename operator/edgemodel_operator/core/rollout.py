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

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from edgemodel_operator.api.edgemodel_status import Quarantine, RolloutStatus
from edgemodel_operator.core import late
from edgemodel_operator.core.member import (
    Assignment,
    Member,
    MemberState,
    begun,
    given_up,
    kept,
    restored,
    state_of,
)
from edgemodel_operator.core.waves import (
    Policy,
    RolloutPlan,
    all_waves,
    broken_ones,
    candidates,
    cut_overs,
    earliest,
    failed_ones,
    is_announced,
    looks,
    moved_on,
    new_failures,
    next_ones,
    silence_ends,
    size_of,
    text_of,
    with_failures,
    with_silence,
)


class Mode(StrEnum):
    """What the rollout does in this pass."""

    BEGIN = "Begin"
    WAVES = "Waves"
    STEADY = "Steady"
    ROLLBACK = "Rollback"


def plan_rollout(
    mode: Mode,
    revision: str,
    members: Sequence[Member],
    status: RolloutStatus | None,
    policy: Policy,
    now: datetime,
) -> RolloutPlan:
    """Decide the next bounded step of the rollout of `revision`."""
    match mode:
        case Mode.BEGIN:
            return _begin(revision, members, policy, now)
        case Mode.STEADY:
            if status is None:
                return RolloutPlan((), tuple(state_of(member, ()) for member in members), None)
            return late.bring_in(members, status, policy, now)
        case Mode.ROLLBACK:
            return _roll_back(members, status)
        case Mode.WAVES:
            if status is None:
                raise ValueError("waves need the status of a rollout that has begun")
            return _waves(members, status, policy, now)


def _begin(revision: str, members: Sequence[Member], policy: Policy, now: datetime) -> RolloutPlan:
    """Record the intent; no node is touched in this pass."""
    status = RolloutStatus(
        revision=revision,
        wave=0,
        waves=len(all_waves(policy)),
        started_at=text_of(now),
        touched_at=text_of(now),
    )
    return RolloutPlan((), tuple(state_of(member, ()) for member in members), status, look_again_at=now)


# --- waves -----------------------------------------------------------------------------------------------


def _waves(members: Sequence[Member], status: RolloutStatus, policy: Policy, now: datetime) -> RolloutPlan:
    status = with_silence(members, status, now)
    failures = (
        *new_failures(members, status.failed, now),
        *broken_ones(members, status, policy.deadline, now),
    )
    status = with_failures(status, failures)
    states = tuple(state_of(member, status.failed) for member in members)
    if not policy.spares and is_stopped(members, status, policy):
        return _stop(members, status, policy, states, now)
    if failures:
        # Nodes go back when the evidence is stored: else a kill in between would have them tried again.
        return RolloutPlan((), states, status, look_again_at=now)
    chosen = _chosen(members, status, policy)
    announced = is_announced(status, now)
    touching = chosen | cut_overs(members, failed_ones(members, status.failed))
    assignments = _wave_step(members, status, touching if announced else frozenset())
    times = [*looks(members), *silence_ends(status, policy.deadline, now)]
    if touching:
        status = status.model_copy(update={"touched_at": text_of(now), "wave_completed_at": ""})
        times += [] if announced else [now]
    else:
        before = status.wave
        status = _advance(members, status, policy, now)
        ends = _soak_end(status, policy)
        times += [now] if status.wave != before else [ends if ends is not None and ends > now else None]
    return RolloutPlan(assignments, states, status, look_again_at=earliest(times))


def is_stopped(members: Sequence[Member], status: RolloutStatus, policy: Policy) -> bool:
    """Say whether as many nodes failed as may fail, or every node there is: nothing goes on by itself."""
    if status.completed_at:
        return late.are_stopped(members, status, policy)
    failed = failed_ones(members, status.failed)
    if failed and all(member.name in failed for member in members):
        return True
    return len(status.failed) >= policy.max_failures and not policy.spares


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
        at=text_of(now),
    )
    return RolloutPlan((), states, status, quarantine=quarantine, look_again_at=now)


def _chosen(members: Sequence[Member], status: RolloutStatus, policy: Policy) -> frozenset[str]:
    """Name the nodes to touch next, as far as the wave allows."""
    if policy.paused:
        return frozenset()
    quota = _quota(status, policy, len(members))
    return next_ones(members, failed_ones(members, status.failed), status.revision, quota)


def _wave_step(
    members: Sequence[Member], status: RolloutStatus, touching: Collection[str]
) -> tuple[Assignment, ...]:
    """Move every node one step; what begins a deadline happens to those alone that were announced."""
    failed = failed_ones(members, status.failed)
    changes = []
    for member in members:
        if member.name in failed:
            wanted = given_up(member) if member.touched else kept(member)
        elif member.touched:
            wanted = moved_on(member, touching)
        elif member.name in touching:
            wanted = begun(member)
        else:
            wanted = kept(member)
        if wanted != (member.active, member.next):
            changes.append(Assignment(member.name, *wanted))
    return tuple(changes)


def _quota(status: RolloutStatus, policy: Policy, total: int) -> int:
    waves = all_waves(policy)
    return size_of(waves[min(status.wave, len(waves) - 1)], total)


def _advance(
    members: Sequence[Member], status: RolloutStatus, policy: Policy, now: datetime
) -> RolloutStatus:
    """Close the wave when its last node passed, open the next when the soak is over.

    The soak watches: when a node that passed does not answer any more, it starts again once that node does.
    """
    failed = failed_ones(members, status.failed)
    settled = all(not member.on_trial or member.name in failed for member in members)
    touched = sum(1 for member in members if member.touched and member.name not in failed)
    filled = touched >= _quota(status, policy, len(members)) or not candidates(members, failed)
    proven = any(member.updated for member in members)
    if policy.paused or not (settled and filled and proven):
        return status
    if any(member.silent and member.name not in failed for member in members):
        return status.model_copy(update={"wave_completed_at": ""})
    if not status.wave_completed_at:
        status = status.model_copy(update={"wave_completed_at": text_of(now)})
    ends = _soak_end(status, policy)
    if ends is not None and now < ends:
        return status
    waves = all_waves(policy)
    if status.wave + 1 >= len(waves):
        return status.model_copy(update={"completed_at": status.completed_at or text_of(now)})
    return status.model_copy(update={"wave": status.wave + 1, "wave_completed_at": ""})


def _soak_end(status: RolloutStatus, policy: Policy) -> datetime | None:
    if not status.wave_completed_at or status.completed_at:
        return None
    waves = all_waves(policy)
    soak = waves[min(status.wave, len(waves) - 1)].soak_seconds
    return datetime.fromisoformat(status.wave_completed_at) + timedelta(seconds=soak)


# --- rollback --------------------------------------------------------------------------------------------


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
    return RolloutPlan(tuple(changes), states, status, look_again_at=earliest(looks(members)))


def label_values(assignment: Assignment, key_active: str, key_next: str) -> Mapping[str, str | None]:
    """Give the label patch for an assignment: None removes a label."""
    return {key_active: assignment.active or None, key_next: assignment.next or None}
