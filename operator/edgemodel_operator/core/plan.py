"""The plan of one pass: the only place that knows the order of things.

1. A deleted model: take its labels off every node, remove its images if it says so, then its finalizer.
2. The finalizer comes first, so that nothing can be left behind.
3. Walk the chain (source, build, signature, trust) to the revision that the spec asks for.
4. Choose the revision that the fleet shall run now: that one, the one under way, or the last known good.
5. Place it, judge the trials, and decide the next step of the rollout.
6. Apply the objects of every revision that a node needs; delete those that none needs.
7. Name the images that nothing needs any more: they are removed from the registry in the background.
8. Say all of it in the status.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, Quarantine, Revision, VariantImage
from edgemodel_operator.api.names import active_label, next_label
from edgemodel_operator.core import garbage
from edgemodel_operator.core.chain import Chain, assess
from edgemodel_operator.core.fleet import Fleet, muster
from edgemodel_operator.core.manifests.daemonset import daemonsets
from edgemodel_operator.core.manifests.service import golden_copy, service
from edgemodel_operator.core.member import Assignment, kept
from edgemodel_operator.core.revision import digest_of, golden_name
from edgemodel_operator.core.rollout import Mode, label_values, plan_rollout
from edgemodel_operator.core.roster import rosters
from edgemodel_operator.core.status import make_status
from edgemodel_operator.core.waves import Policy, RolloutPlan
from edgemodel_operator.core.world import World

Json = dict[str, Any]


@dataclass(frozen=True)
class SetFinalizer:
    """Put our finalizer on the model, or take it off."""

    present: bool


@dataclass(frozen=True)
class StartSupply:
    """Make and sign the image of a runtime variant."""

    variant: str


@dataclass(frozen=True)
class LabelNode:
    """Set labels of a node; None removes one."""

    node: str
    labels: dict[str, str | None]


@dataclass(frozen=True)
class Apply:
    """Apply an object server-side."""

    document: Json


@dataclass(frozen=True)
class Delete:
    """Delete an object of ours."""

    kind: str
    name: str


@dataclass(frozen=True)
class RemoveImages:
    """Remove images from their registry in the background: these and, of what was asked before, no others."""

    images: tuple[VariantImage, ...]


Action = SetFinalizer | StartSupply | LabelNode | Apply | Delete | RemoveImages


@dataclass(frozen=True)
class Plan:
    """The decision of one pass."""

    actions: tuple[Action, ...]
    status: EdgeModelStatus | None
    """None: write no status, because the object is going away."""
    look_again_at: datetime | None = None
    blocked: bool = False
    """Whether a person must act."""


RESYNC = timedelta(minutes=5)
"""How soon to look again when all is well: watches can miss things."""


def make_plan(world: World) -> Plan:
    """Decide everything that this pass does; the numbers are those of the module's procedure."""
    if world.model.deleting:  # (1)
        return _deletion(world)
    if not world.model.has_finalizer:  # (2)
        return Plan((SetFinalizer(present=True),), None, look_again_at=world.now)
    chain = assess(world)  # (3)
    revision, mode = choose_revision(world, chain)  # (4)
    fleet = muster(world, revision, brings_in_late=mode is Mode.STEADY)  # (5)
    name = revision.name if revision else ""
    policy = Policy.of(world.model.spec.rollout)
    policy = replace(policy, spares=bool(name) and name == world.model.status.last_known_good)
    if chain.revision is None:
        policy = replace(policy, paused=True)
    rollout = None
    if mode is not None:
        rollout = plan_rollout(mode, name, fleet.members, world.model.status.rollout, policy, world.now)
    status = make_status(world, chain, revision, fleet, rollout, _quarantined(world, rollout, revision))
    return Plan(
        actions=(
            *(StartSupply(variant) for variant in chain.to_supply),
            *_objects(world, revision),  # (6)
            *_labels(world, fleet, rollout),
            *_garbage(world, status),
            RemoveImages(garbage.removable(world)),  # (7)
        ),
        status=status,  # (8)
        look_again_at=_next_look(world, chain, rollout),
        blocked=chain.hold is not None and chain.hold.stalled,
    )


def choose_revision(world: World, chain: Chain) -> tuple[Revision | None, Mode | None]:
    """Choose the revision that the fleet shall run now, and what its rollout does."""
    status = world.model.status
    recorded = {revision.name: revision for revision in status.revisions}
    under_way = recorded.get(status.rollout.revision) if status.rollout else None
    wanted = chain.revision or under_way
    if wanted is None:
        good = recorded.get(status.last_known_good)
        return good, Mode.STEADY if good else None
    if any(item.revision == wanted.name for item in status.quarantined):
        return recorded.get(status.last_known_good), Mode.ROLLBACK
    if status.rollout is None or status.rollout.revision != wanted.name or wanted.name not in recorded:
        return wanted, Mode.BEGIN
    if status.rollout.completed_at:
        return wanted, Mode.STEADY
    return wanted, Mode.WAVES


def _deletion(world: World) -> Plan:
    key = world.model.key
    labelled = [node for node in world.nodes if node.active(key) or node.next(key)]
    labels = {active_label(key): None, next_label(key): None}
    actions: list[Action] = [LabelNode(node.name, dict(labels)) for node in labelled]
    actions += [Delete("DaemonSet", workload.name) for workload in world.workloads]
    if labelled or world.workloads:
        # The finalizer goes in a later pass, when this one is seen to have worked.
        return Plan(tuple(actions), None, look_again_at=world.now + timedelta(seconds=1))
    if garbage.holds_finalizer(world):
        images = RemoveImages(garbage.removable(world))
        return Plan((images,), None, look_again_at=world.now + timedelta(seconds=5))
    return Plan((SetFinalizer(present=False),), None)


def _objects(world: World, revision: Revision | None) -> tuple[Apply, ...]:
    """Apply what the recorded revisions need; one that is only about to be recorded waits a pass."""
    status = world.model.status
    wanted = {status.last_known_good, status.previous_good, *world.assigned_revisions()}
    wanted.add(revision.name if revision else "")
    wanted_copy = golden_name(world.model.name, world.golden.text) if world.golden.text else None
    documents = [] if world.name_is_taken else [service(world.model)]
    present = rosters(world)
    for recorded in status.revisions:
        if recorded.name not in wanted:
            continue
        name = recorded.golden_config_map
        if name == wanted_copy and name not in world.golden_copies:
            documents.append(golden_copy(world.model, name, world.golden.text))
        documents += daemonsets(world.model, recorded, present)
    return tuple(Apply(document) for document in documents)


def _labels(world: World, fleet: Fleet, rollout: RolloutPlan | None) -> list[LabelNode]:
    key = world.model.key
    changes = [
        LabelNode(item.node, dict(label_values(item, active_label(key), next_label(key))))
        for item in (rollout.assignments if rollout else ())
    ]
    for member in fleet.staying:
        if (wanted := kept(member)) != (member.active, member.next):
            values = label_values(Assignment(member.name, *wanted), active_label(key), next_label(key))
            changes.append(LabelNode(member.name, dict(values)))
    empty = {active_label(key): None, next_label(key): None}
    changes += [LabelNode(name, dict(empty)) for name in fleet.leaving]
    return sorted(changes, key=lambda change: change.node)


def _garbage(world: World, status: EdgeModelStatus) -> list[Delete]:
    """Delete the DaemonSets and golden samples of revisions that no node has and none may go back to."""
    kept = {
        status.last_known_good,
        status.previous_good,
        status.target_revision,
        status.current_revision,
        *world.assigned_revisions(),
    }
    gone = [workload for workload in world.workloads if workload.revision not in kept]
    copies = {revision.golden_config_map for revision in status.revisions if revision.name in kept}
    return [
        *(Delete("DaemonSet", workload.name) for workload in gone),
        *(Delete("ConfigMap", name) for name in world.golden_copies if name not in copies),
    ]


def _quarantined(
    world: World, rollout: RolloutPlan | None, revision: Revision | None
) -> tuple[Quarantine, ...]:
    # A revision that completed a rollout is good, whatever an older operator said of it.
    good = world.model.status.last_known_good
    known = tuple(item for item in world.model.status.quarantined if item.revision != good)
    if rollout is None or rollout.quarantine is None or revision is None:
        return known
    digests = tuple(sorted({digest_of(target.image) for target in revision.targets}))
    return (rollout.quarantine.model_copy(update={"digests": digests}), *known)[:8]


def _next_look(world: World, chain: Chain, rollout: RolloutPlan | None) -> datetime:
    times = [world.now + RESYNC]
    if chain.hold is not None and chain.hold.retry_at is not None and chain.hold.retry_at > world.now:
        # What is due and still waits, waits for another supply, and that wakes the model when it ends.
        times.append(chain.hold.retry_at)
    if rollout is not None and rollout.look_again_at is not None:
        times.append(rollout.look_again_at)
    return min(times)
