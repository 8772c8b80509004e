"""Late nodes: those that were offline during a rollout, or are new, after it is complete.

The revision is good by now, and nobody who passed is rolled back any more. But it may be bad on those who
come late, all of them at once if a whole site was cut off: they too try it in waves, until `maxFailures` of
them have failed. A node that failed goes back to what it had, or to what was good before.

A failure is forgotten when its node has gone or was replaced, and after a while where the node itself may be
to blame (its pod restarted) or has nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from edgemodel_operator.api.edgemodel_status import FailedNode, RolloutStatus
from edgemodel_operator.core.member import (
    Assignment,
    Member,
    begun,
    failure_of,
    given_up,
    restored,
    state_of,
)
from edgemodel_operator.core.waves import (
    Policy,
    RolloutPlan,
    all_waves,
    candidates,
    cut_overs,
    earliest,
    failed_ones,
    is_announced,
    looks,
    moved_on,
    new_failures,
    next_ones,
    size_of,
    text_of,
    with_failures,
)

PAUSE = timedelta(hours=1)
"""How long after a restart in its trial a node gets another one, where the old pod answers meanwhile."""
LONG_PAUSE = timedelta(days=1)
"""The same where a trial costs a gap, and for a node that has nothing."""


def bring_in(members: Sequence[Member], status: RolloutStatus, policy: Policy, now: datetime) -> RolloutPlan:
    """Decide the next bounded step of the nodes that come late."""
    status = _forgiven(members, status, now)
    failures = new_failures(members, status.failed, now)
    status = with_failures(status, failures)
    states = tuple(state_of(member, status.failed) for member in members)
    if failures:
        # As in the waves: nodes go back when the evidence is stored.
        return RolloutPlan((), states, status, look_again_at=now)
    failed = failed_ones(members, status.failed)
    chosen = _chosen(members, status, policy, failed)
    announced = is_announced(status, now)
    touching = chosen | cut_overs(members, failed)
    assignments = _step(members, failed, touching if announced else frozenset())
    times = looks(members)
    if touching:
        status = status.model_copy(update={"touched_at": text_of(now)})
        times += [] if announced else [now]
    return RolloutPlan(assignments, states, status, look_again_at=earliest(times))


def are_stopped(members: Sequence[Member], status: RolloutStatus, policy: Policy) -> bool:
    """Say whether nodes wait because too many others failed."""
    failed = failed_ones(members, status.failed)
    return len(failed) >= policy.max_failures and bool(candidates(members, failed))


def _chosen(
    members: Sequence[Member], status: RolloutStatus, policy: Policy, failed: Collection[str]
) -> frozenset[str]:
    """Name the late nodes to touch next: as many as the first wave takes that is larger than what passed."""
    if policy.paused or len(failed) >= policy.max_failures:
        return frozenset()
    updated, total = sum(member.updated for member in members), len(members)
    sizes = [size_of(wave, total) for wave in all_waves(policy)]
    quota = next((size for size in sizes if size > updated), total)
    return next_ones(members, failed, status.revision, quota)


def _step(
    members: Sequence[Member], failed: Collection[str], touching: Collection[str]
) -> tuple[Assignment, ...]:
    changes = []
    for member in members:
        wanted = member.active, member.next
        if member.name in failed and member.on_trial:
            wanted = given_up(member)
        elif member.touched:
            wanted = moved_on(member, touching)
        elif member.name in touching:
            wanted = begun(member)
        elif member.name in failed and member.condemned:
            wanted = restored(member)
        if wanted != (member.active, member.next):
            changes.append(Assignment(member.name, *wanted))
    return tuple(changes)


def _forgiven(members: Sequence[Member], status: RolloutStatus, now: datetime) -> RolloutStatus:
    """Forget the failures that say nothing any more."""
    known = {member.name: member for member in members}
    failed = tuple(
        failure
        for failure in status.failed
        if (member := known.get(failure.name)) is not None
        and not _is_forgiven(member, failure, status.completed_at, now)
    )
    return status.model_copy(update={"failed": failed, "silent": ()})


def _is_forgiven(member: Member, failure: FailedNode, completed_at: str, now: datetime) -> bool:
    if failure_of(member, (failure,)) is None or member.updated:
        return True
    if member.on_trial or not member.ready:
        return False
    has_something = bool(member.serving)
    if has_something and failure.reason != "Restarted":
        return False
    pause = PAUSE if has_something and not member.exclusive else LONG_PAUSE
    # Records of older operators have no time of their own.
    return now >= datetime.fromisoformat(failure.at or completed_at) + pause
