"""Rosters: another text for other nodes, and reminders while a pod is missing."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, RolloutStatus
from edgemodel_operator.api.names import active_label, next_label
from edgemodel_operator.core.roster import REMINDER, rosters
from edgemodel_operator.core.world import Node, Pod, World
from support.builders import fleet, make_model
from support.simulator import installed, start

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD, NEW = "0000000000.cpu", "1111111111.cpu"


def world(*nodes: Node, pods: tuple[Pod, ...] = (), now: datetime = NOW) -> World:
    base = start(make_model("v1"), []).world()
    rollout = RolloutStatus(revision="1111111111", touched_at=NOW.isoformat())
    model = replace(base.model, status=EdgeModelStatus(rollout=rollout))
    return replace(base, now=now, model=model, nodes=nodes, pods=pods)


def node(name: str, active: str = "", following: str = "", *, ready: bool = True) -> Node:
    key = start(make_model("v1"), []).world().model.key
    labels = {active_label(key): active, next_label(key): following}
    return Node(
        name, f"uid-{name}", ready, "amd64", {label: value for label, value in labels.items() if value}
    )


def pod(where: str, value: str) -> Pod:
    revision, _, target = value.partition(".")
    return Pod(f"{where}-{value}", f"{where}-{value}", where, revision, target, "serve", NOW)


def test_every_assignment_has_a_roster_that_names_its_nodes_and_not_their_order() -> None:
    a, b = node("edge-a", OLD), node("edge-b", OLD, NEW)
    pods = (pod("edge-a", OLD), pod("edge-b", OLD), pod("edge-b", NEW))
    seen = rosters(world(a, b, pods=pods))
    assert seen.keys() == {OLD, NEW}
    assert seen == rosters(world(b, a, pods=pods))
    assert seen[OLD] != rosters(world(a, pods=pods))[OLD]


def test_a_missing_pod_is_reminded_of_again_and_again() -> None:
    trial = node("edge-a", OLD, NEW)
    texts = [
        rosters(world(trial, pods=(pod("edge-a", OLD),), now=NOW + step * REMINDER))[NEW] for step in range(4)
    ]
    assert len(set(texts)) == 4


def test_what_is_there_or_cannot_be_is_not_reminded_of() -> None:
    later = NOW + timedelta(hours=1)
    there = rosters(world(node("edge-a", NEW), pods=(pod("edge-a", NEW),), now=later))
    assert there == rosters(world(node("edge-a", NEW), pods=(pod("edge-a", NEW),)))
    away = node("edge-a", NEW, ready=False)
    assert rosters(world(away, now=later)) == rosters(world(away))


def test_rosters_rest_when_a_rollout_rests() -> None:
    simulation = installed(make_model("v1"), fleet(2))
    before = rosters(simulation.world())
    simulation.run_for(3600)
    assert rosters(simulation.world()) == before
