"""One step of a rollout: from the labels of a node and the state of its trial to its next labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from edgemodel_operator.api.edgemodel import Wave
from edgemodel_operator.api.edgemodel_status import FailedNode, RolloutStatus
from edgemodel_operator.core.member import Fallback, Member
from edgemodel_operator.core.rollout import (
    Mode,
    label_values,
    plan_rollout,
)
from edgemodel_operator.core.trial import Judgement, Result
from edgemodel_operator.core.waves import Policy, RolloutPlan

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WAITING = Judgement(Result.WAITING, "PodNotReady", "not yet")
PASSED = Judgement(Result.PASSED)
FAILED = Judgement(Result.FAILED, "LoadFailed", "no such operator")
DEFERRED = Judgement(Result.DEFERRED, "OfflineBeforeTouched")
GOOD, SUPERSEDED, NEW = "good.cpu", "superseded.cpu", "new.cpu"

GOOD_ONE = Fallback(GOOD)

POLICY = Policy(
    waves=(Wave(nodes=1), Wave(percent=100)),
    max_failures=1,
    rolls_back=True,
    paused=False,
    deadline=timedelta(seconds=60),
)
STATUS = RolloutStatus(
    revision="new", wave=1, waves=2, started_at=NOW.isoformat(), touched_at=NOW.isoformat()
)


def member(
    active: str = "",
    following: str = "",
    *,
    name: str = "edge-1",
    judgement: Judgement = WAITING,
    fallback: Fallback = GOOD_ONE,
    ready: bool = True,
    exclusive: bool = False,
    prefetched: bool = False,
    answers: bool = True,
    runs: bool | None = None,
    condemned: bool = False,
) -> Member:
    return Member(
        name=name,
        uid=f"uid-of-{name}",
        ready=ready,
        value=NEW,
        fallback=fallback,
        exclusive=exclusive,
        active=active,
        next=following,
        judgement=judgement,
        prefetched=prefetched,
        answers=answers,
        runs=answers if runs is None else runs,
        condemned=condemned,
    )


def labels_after(plan: RolloutPlan, *members: Member) -> dict[str, tuple[str, str]]:
    before = {item.name: (item.active, item.next) for item in members}
    return before | {item.node: (item.active, item.next) for item in plan.assignments}


def step(
    *members: Member, mode: Mode = Mode.WAVES, status: RolloutStatus = STATUS, policy: Policy = POLICY
) -> RolloutPlan:
    return plan_rollout(mode, "new", members, status, policy, NOW)


def wave_step(item: Member, **fields: object) -> tuple[str, str]:
    return labels_after(step(item, **fields), item)[item.name]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "want"),
    [
        pytest.param(member(GOOD), (GOOD, NEW), id="touched beside what serves"),
        pytest.param(member(), ("", NEW), id="touched with nothing before"),
        pytest.param(member(exclusive=True), (NEW, NEW), id="exclusive with nothing before: at once"),
        pytest.param(member(GOOD, exclusive=True), (GOOD, NEW), id="exclusive: fetched first"),
        pytest.param(member("", SUPERSEDED), (SUPERSEDED, NEW), id="superseded first trial answers: kept"),
        pytest.param(member("", SUPERSEDED, answers=False), ("", NEW), id="superseded first trial is silent"),
        pytest.param(member("", SUPERSEDED, answers=False, runs=True), (SUPERSEDED, NEW), id="it runs: kept"),
        pytest.param(
            member(SUPERSEDED, SUPERSEDED, exclusive=True), (SUPERSEDED, NEW), id="superseded exclusive trial"
        ),
        pytest.param(member(GOOD, NEW), (GOOD, NEW), id="trial goes on"),
        pytest.param(member(GOOD, NEW, judgement=PASSED), (NEW, ""), id="passed"),
        pytest.param(member("", NEW, judgement=PASSED), (NEW, ""), id="passed with nothing before"),
        pytest.param(member(GOOD, NEW, exclusive=True), (GOOD, NEW), id="still fetching"),
        pytest.param(member(GOOD, NEW, exclusive=True, prefetched=True), (NEW, NEW), id="cut over"),
        pytest.param(member(NEW, NEW, exclusive=True, judgement=PASSED), (NEW, ""), id="exclusive passed"),
        pytest.param(
            member(SUPERSEDED, NEW, ready=False, judgement=DEFERRED), (SUPERSEDED, ""), id="deferred: back"
        ),
        pytest.param(
            member("", NEW, ready=False, judgement=DEFERRED), (GOOD, ""), id="deferred with nothing: good"
        ),
        pytest.param(
            member(NEW, NEW, exclusive=True, ready=False, judgement=DEFERRED),
            (GOOD, ""),
            id="deferred after the cut-over: good",
        ),
        pytest.param(
            member(NEW, NEW, exclusive=True, ready=False, judgement=DEFERRED, fallback=Fallback(NEW)),
            ("", ""),
            id="deferred after the cut-over is never called passed",
        ),
        pytest.param(member(GOOD, ready=False), (GOOD, ""), id="offline: untouched"),
        pytest.param(member(GOOD, SUPERSEDED, ready=False), (GOOD, ""), id="superseded trial taken off"),
        pytest.param(
            member("", SUPERSEDED, ready=False, answers=False),
            (GOOD, ""),
            id="superseded trial that never ran is not brought to an offline node",
        ),
        pytest.param(
            member("", SUPERSEDED, ready=False, answers=False, runs=True),
            (SUPERSEDED, GOOD),
            id="superseded first trial that is not ready: good beside it",
        ),
        pytest.param(
            member("", SUPERSEDED, ready=False, answers=False, runs=True, fallback=Fallback()),
            (SUPERSEDED, ""),
            id="superseded first trial that is not ready, and nothing is good: kept",
        ),
        pytest.param(
            member(SUPERSEDED, GOOD, ready=False, answers=False, runs=True),
            (SUPERSEDED, GOOD),
            id="good beside a superseded trial that does not answer: both until the good one does",
        ),
        pytest.param(
            member(
                SUPERSEDED, GOOD, ready=False, answers=False, runs=True, fallback=Fallback(GOOD, answers=True)
            ),
            (GOOD, ""),
            id="good beside a superseded trial answers: alone",
        ),
        pytest.param(member(ready=False, answers=False), (GOOD, ""), id="new node: good until its wave"),
        pytest.param(member(ready=False, fallback=Fallback()), ("", ""), id="new node: nothing is good"),
        pytest.param(
            member(SUPERSEDED, ready=False, condemned=True),
            (SUPERSEDED, GOOD),
            id="quarantined: good beside it",
        ),
        pytest.param(
            member(SUPERSEDED, GOOD, ready=False, condemned=True, fallback=Fallback(GOOD, answers=True)),
            (GOOD, ""),
            id="quarantined: good answers",
        ),
        pytest.param(
            member(SUPERSEDED, ready=False, condemned=True, answers=False),
            (GOOD, ""),
            id="quarantined and silent: good at once",
        ),
        pytest.param(
            member(SUPERSEDED, ready=False, condemned=True, fallback=Fallback(GOOD, exclusive=True)),
            (GOOD, ""),
            id="quarantined and exclusive: good instead of it",
        ),
    ],
)
def test_one_step_of_a_node_in_a_wave(before: Member, want: tuple[str, str]) -> None:
    assert wave_step(before) == want


@pytest.mark.parametrize(
    ("before", "want"),
    [
        (member(GOOD, NEW, judgement=FAILED), (GOOD, "")),
        (member(NEW, NEW, judgement=FAILED, exclusive=True), (GOOD, "")),
        (member("", NEW, judgement=FAILED), (GOOD, "")),
        (member("", NEW, judgement=FAILED, fallback=Fallback()), ("", "")),
        (member(GOOD, ""), (GOOD, "")),
        (member(SUPERSEDED, "", condemned=True), (SUPERSEDED, GOOD)),
    ],
)
def test_a_node_that_failed_goes_back_and_is_not_touched_again(before: Member, want: tuple[str, str]) -> None:
    status = STATUS.model_copy(update={"failed": (FailedNode(name="edge-1", reason="LoadFailed"),)})
    other = member(NEW, name="edge-2")
    plan = step(before, other, status=status, policy=replace(POLICY, max_failures=2))
    assert labels_after(plan, before)["edge-1"] == want


def test_a_failure_is_stored_before_the_node_goes_back() -> None:
    failing, other = member(GOOD, NEW, judgement=FAILED), member(GOOD, name="edge-2")
    plan = step(failing, other, policy=replace(POLICY, max_failures=2))
    assert plan.assignments == ()
    assert plan.look_again_at == NOW
    assert plan.status is not None
    assert [node.name for node in plan.status.failed] == ["edge-1"]


def test_a_touch_is_announced_before_it_is_done() -> None:
    earlier = STATUS.model_copy(update={"touched_at": (NOW - timedelta(hours=1)).isoformat()})
    plan = step(member(GOOD), status=earlier)
    assert plan.assignments == ()
    assert plan.look_again_at == NOW
    assert plan.status is not None
    assert datetime.fromisoformat(plan.status.touched_at) == NOW
    again = step(member(GOOD), status=plan.status)
    assert labels_after(again, member(GOOD)) == {"edge-1": (GOOD, NEW)}


def test_a_late_node_is_announced_too() -> None:
    earlier = STATUS.model_copy(update={"touched_at": (NOW - timedelta(hours=1)).isoformat()})
    plan = step(member(GOOD), status=earlier, mode=Mode.STEADY)
    assert plan.assignments == ()
    assert plan.look_again_at == NOW
    assert plan.status is not None
    again = step(member(GOOD), status=plan.status, mode=Mode.STEADY)
    assert labels_after(again, member(GOOD)) == {"edge-1": (GOOD, NEW)}


@pytest.mark.parametrize("mode", [Mode.WAVES, Mode.STEADY])
def test_a_cut_over_is_announced_too(mode: Mode) -> None:
    fetched = member(GOOD, NEW, exclusive=True, prefetched=True)
    earlier = STATUS.model_copy(update={"touched_at": (NOW - timedelta(hours=1)).isoformat()})
    plan = step(fetched, status=earlier, mode=mode)
    assert plan.assignments == ()
    assert plan.look_again_at == NOW
    assert plan.status is not None
    again = step(fetched, status=plan.status, mode=mode)
    assert labels_after(again, fetched) == {"edge-1": (NEW, NEW)}


def test_touching_a_node_begins_the_soak_anew() -> None:
    soaking = STATUS.model_copy(update={"wave_completed_at": NOW.isoformat()})
    plan = step(member(GOOD), member(NEW, name="edge-2"), status=soaking)
    assert plan.status is not None
    assert plan.status.wave_completed_at == ""


def test_a_soak_begins_anew_when_a_node_that_passed_is_silent_and_not_when_it_is_offline() -> None:
    soaking = STATUS.model_copy(update={"wave_completed_at": NOW.isoformat()})
    silent = step(member(NEW, answers=False), status=soaking)
    assert silent.status is not None
    assert (silent.status.wave, silent.status.wave_completed_at) == (STATUS.wave, "")
    offline = step(member(NEW), member(NEW, name="edge-2", answers=False, ready=False), status=soaking)
    assert offline.status is not None
    assert offline.status != silent.status


def test_a_paused_rollout_neither_touches_nor_advances() -> None:
    paused = replace(POLICY, paused=True)
    first = STATUS.model_copy(update={"wave": 0})
    plan = step(member(NEW), member(GOOD, name="edge-2"), policy=paused, status=first)
    assert plan.assignments == ()
    assert plan.status == first


def test_shared_targets_go_first_whatever_their_names() -> None:
    members = [member(GOOD, name=f"npu-{number}", exclusive=True) for number in range(8)]
    members.append(member(GOOD, name="cpu"))
    plan = step(*members, status=STATUS.model_copy(update={"wave": 0}))
    assert [item.node for item in plan.assignments] == ["cpu"]


def test_the_order_of_nodes_depends_on_the_revision_and_on_no_label() -> None:
    def first(revision: str) -> str:
        status = STATUS.model_copy(update={"wave": 0, "revision": revision})
        members = [member(GOOD, name=f"edge-{number}") for number in range(20)]
        (only,) = step(*reversed(members), status=status).assignments
        return only.node

    assert first("a") == first("a")
    assert len({first(revision) for revision in "abcdefgh"}) > 2


@pytest.mark.parametrize(
    ("wave", "total", "want"),
    [
        (Wave(percent=25), 5, 2),
        (Wave(percent=1), 3, 1),
        (Wave(nodes=3), 5, 3),
        (Wave(nodes=9), 5, 5),
        (Wave(percent=100), 5, 5),
    ],
)
def test_a_wave_takes_as_many_nodes_as_it_says_rounded_up(wave: Wave, total: int, want: int) -> None:
    members = [member(GOOD, name=f"edge-{number}") for number in range(total)]
    policy = replace(POLICY, waves=(wave, Wave(percent=100)))
    assert (
        len(step(*members, status=STATUS.model_copy(update={"wave": 0}), policy=policy).assignments) == want
    )


def test_a_wave_that_is_larger_than_the_fleet_closes() -> None:
    policy = replace(POLICY, waves=(Wave(nodes=9), Wave(percent=100)))
    plan = step(member(NEW), status=STATUS.model_copy(update={"wave": 0}), policy=policy)
    assert plan.status is not None
    assert plan.status.wave == 1
    assert plan.look_again_at == NOW


def test_waves_always_end_with_every_node() -> None:
    policy = replace(POLICY, waves=(Wave(nodes=1),))
    begun = step(member(GOOD), member(GOOD, name="edge-2"), mode=Mode.BEGIN, policy=policy)
    assert begun.assignments == ()
    assert begun.status is not None
    assert begun.status.waves == 2


@pytest.mark.parametrize(
    ("before", "want"),
    [
        pytest.param(member(SUPERSEDED), (SUPERSEDED, NEW), id="beside what answers"),
        pytest.param(member(SUPERSEDED, answers=False), (NEW, ""), id="instead of what does not"),
        pytest.param(
            member(SUPERSEDED, answers=False, runs=True, ready=False), (SUPERSEDED, NEW), id="offline: beside"
        ),
        pytest.param(
            member(SUPERSEDED, NEW, fallback=Fallback(NEW, answers=True)),
            (NEW, ""),
            id="the good one answers",
        ),
        pytest.param(member(NEW, SUPERSEDED), (NEW, ""), id="trial taken off"),
        pytest.param(member("", SUPERSEDED), (SUPERSEDED, NEW), id="first trial answers"),
        pytest.param(member("", SUPERSEDED, answers=False), (NEW, ""), id="first trial never ran"),
        pytest.param(member(ready=False, answers=False), (NEW, ""), id="offline with nothing"),
        pytest.param(
            member(SUPERSEDED, fallback=Fallback(NEW, exclusive=True)), (NEW, ""), id="exclusive: instead"
        ),
        pytest.param(member(SUPERSEDED, fallback=Fallback()), ("", ""), id="nothing is good"),
    ],
)
def test_one_step_of_a_node_in_a_rollback(before: Member, want: tuple[str, str]) -> None:
    """Here the revision is the good one, so that it is the value and the fallback at once."""
    if before.fallback == GOOD_ONE:
        before = replace(before, fallback=Fallback(NEW))
    assert wave_step(before, mode=Mode.ROLLBACK) == want


def test_without_a_revision_no_node_counts_as_updated() -> None:
    nothing = replace(member(fallback=Fallback()), value="")
    plan = step(nothing, mode=Mode.ROLLBACK)
    assert [state.state.value for state in plan.states] == ["Pending"]
    assert not nothing.updated
    assert not nothing.on_trial


def test_label_values_remove_what_is_empty() -> None:
    (assignment,) = step(member(GOOD, NEW, judgement=PASSED)).assignments
    assert label_values(assignment, "a", "n") == {"a": NEW, "n": None}
