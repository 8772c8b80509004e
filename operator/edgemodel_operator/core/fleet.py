"""The fleet: the matching nodes as the rollout of one revision sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgemodel_operator.api.edgemodel_status import Revision, RevisionTarget
from edgemodel_operator.api.names import ROLE_PREFETCH, ROLE_SERVE, assignment_value, short
from edgemodel_operator.core.chain import known_classes
from edgemodel_operator.core.member import Fallback, Member
from edgemodel_operator.core.placement import Placed, Rejected, Rung, place, rung_of
from edgemodel_operator.core.trial import Evidence, Judgement, Result, TrialRules, judge
from edgemodel_operator.core.world import Answer, Node, Pod, World


@dataclass(frozen=True)
class Fleet:
    """The matching nodes, those that cannot run the model, and those that leave it."""

    members: tuple[Member, ...] = ()
    placed: tuple[Placed, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    leaving: tuple[str, ...] = ()
    """Nodes that carry labels of the model and do not match any more."""
    staying: tuple[Member, ...] = ()
    """Nodes that only what is good fits: they keep it until the rollout is complete."""


def muster(world: World, revision: Revision | None, *, brings_in_late: bool = False) -> Fleet:
    """Place a revision and judge its trial on every matching node.

    Without a revision (a first rollout that failed) the members have no assignment. `brings_in_late`: its
    rollout is complete, and nodes that try it late go back to what was good before.
    """
    held = _held_targets(world)
    placement = place(world.model.spec.placement, _ladder(world, revision), world.nodes, held)
    key = world.model.key
    fallbacks = _fallbacks(world, revision, held, brings_in_late=brings_in_late)
    members = tuple(
        _member(world, item, revision, fallbacks.get(item.node.name, Fallback())) for item in placement.placed
    )
    staying = _staying(world, revision, placement.rejected, fallbacks)
    matching = {item.name for item in (*members, *staying)}
    leaving = tuple(
        sorted(
            node.name
            for node in world.nodes
            if (node.active(key) or node.next(key)) and node.name not in matching
        )
    )
    return Fleet(members, placement.placed, placement.rejected, leaving, staying)


def _staying(
    world: World,
    revision: Revision | None,
    rejected: Sequence[Rejected],
    fallbacks: Mapping[str, Fallback],
) -> tuple[Member, ...]:
    if revision is None or _is_complete(world, revision):
        return ()
    unfit = {item.node for item in rejected}
    return tuple(
        _member(world, Placed(node, ""), None, fallbacks[node.name])
        for node in world.nodes
        if node.name in unfit and node.name in fallbacks
    )


def _is_complete(world: World, revision: Revision) -> bool:
    rollout = world.model.status.rollout
    return rollout is not None and rollout.revision == revision.name and bool(rollout.completed_at)


def _ladder(world: World, revision: Revision | None) -> tuple[Rung, ...]:
    if revision is not None:
        return tuple(_rung(world, target.accelerator, target.platforms) for target in revision.targets)
    return tuple(_rung(world, target.accelerator, None) for target in world.model.spec.targets)


def _rung(world: World, name: str, platforms: tuple[str, ...] | None) -> Rung:
    """Give a rung; where its class is gone, or cannot run the format any more, only for those who have it.

    A revision knows the platforms of its images; without one they are those of the last image.
    """
    spec = known_classes(world.classes).get(name)
    runtime = spec.runtime_for(world.model.spec.model.format) if spec is not None else None
    if spec is None or runtime is None:
        return Rung(name, {}, "", only_held=True)
    if platforms is None:
        platforms = _last_platforms(world, runtime.variant)
    return rung_of(name, spec, frozenset(platform.split("/")[1] for platform in platforms) or None)


def _last_platforms(world: World, variant: str) -> tuple[str, ...]:
    """Give what the image of a variant holds; while the next one is made, what the last one held."""
    recorded = [image.platforms for image in world.model.status.images if image.variant == variant]
    made = [world.supplies[variant].platforms] if variant in world.supplies else []
    return next((known for known in (*made, *recorded) if known), ())


def _held_targets(world: World) -> dict[str, str]:
    """Give the target that each node has now, read from its labels."""
    key = world.model.key
    known = {
        short(target.accelerator, 40): target.accelerator
        for revision in world.model.status.revisions
        for target in revision.targets
    }
    held = {}
    for node in world.nodes:
        value = node.next(key) or node.active(key)
        if value:
            held[node.name] = known.get(value.partition(".")[2], "")
    return held


def _member(world: World, placed: Placed, revision: Revision | None, fallback: Fallback) -> Member:
    node, key = placed.node, world.model.key
    target = _target(revision, placed.target)
    value = assignment_value(revision.name, target.accelerator) if revision and target else ""
    exclusive = target.exclusive if target else _is_exclusive(world, placed.target)
    fetching = exclusive and node.active(key) != value
    serving = node.active(key) or node.next(key)
    return Member(
        name=node.name,
        uid=node.uid,
        ready=node.ready,
        value=value,
        fallback=fallback,
        exclusive=exclusive,
        active=node.active(key),
        next=node.next(key),
        judgement=_judgement(world, node, value, fetching=fetching),
        prefetched=_is_prefetched(world, node, value),
        answers=_answers(world, node, serving),
        runs=_runs(world, node, serving),
        condemned=_is_condemned(world, node),
    )


def _is_condemned(world: World, node: Node) -> bool:
    """Say whether what serves on a node belongs to a quarantined revision."""
    key = world.model.key
    serving = node.active(key) or node.next(key)
    return any(item.revision == serving.partition(".")[0] for item in world.model.status.quarantined)


def _target(revision: Revision | None, name: str) -> RevisionTarget | None:
    targets = revision.targets if revision else ()
    return next((target for target in targets if target.accelerator == name), None)


def _is_exclusive(world: World, target: str) -> bool:
    return any(
        item.exclusive
        for revision in world.model.status.revisions
        for item in revision.targets
        if item.accelerator == target
    )


def _fallbacks(
    world: World, revision: Revision | None, held: Mapping[str, str], *, brings_in_late: bool
) -> dict[str, Fallback]:
    """Give what each node can go back to.

    That is the last known good revision. When this is the one that late nodes try, they go back to what was
    good before; but one that runs what failed gets what is good now.
    """
    status = world.model.status
    good = _placed_good(world, status.last_known_good, held)
    is_good = revision is not None and revision.name == status.last_known_good
    if revision is None or not (brings_in_late and is_good and _is_complete(world, revision)):
        return good
    before = _placed_good(world, status.previous_good, held)
    condemned = {node.name for node in world.nodes if _is_condemned(world, node)}
    return {name: item for name, item in good.items() if name in condemned} | {
        name: item for name, item in before.items() if name not in condemned
    }


def _placed_good(world: World, name: str, held: Mapping[str, str]) -> dict[str, Fallback]:
    """Place a revision that was good on its own ladder."""
    good = next((item for item in world.model.status.revisions if item.name == name), None)
    if good is None:
        return {}
    placement = place(world.model.spec.placement, _ladder(world, good), world.nodes, held)
    fallbacks = {}
    for item in placement.placed:
        value = assignment_value(good.name, item.target)
        target = _target(good, item.target)
        fallbacks[item.node.name] = Fallback(
            value=value,
            exclusive=target is not None and target.exclusive,
            answers=_answers(world, item.node, value),
        )
    return fallbacks


def _pod(world: World, node: Node, value: str, role: str) -> Pod | None:
    """Give the pod of an assignment on a node: the youngest one that is not going away."""
    pods = [
        pod
        for pod in world.pods
        if pod.node == node.name
        and pod.role == role
        and not pod.terminating
        and assignment_value(pod.revision, pod.target) == value
    ]
    return max(pods, key=lambda pod: (pod.created, pod.uid), default=None)


def _answers(world: World, node: Node, value: str) -> bool:
    pod = _pod(world, node, value, ROLE_SERVE)
    return pod is not None and pod.ready


def _runs(world: World, node: Node, value: str) -> bool:
    pod = _pod(world, node, value, ROLE_SERVE)
    return pod is not None and pod.running


def _is_prefetched(world: World, node: Node, value: str) -> bool:
    pod = _pod(world, node, value, ROLE_PREFETCH)
    return pod is not None and pod.running and pod.ready and pod.restarts == 0


def _judgement(world: World, node: Node, value: str, *, fetching: bool) -> Judgement:
    if not value or node.next(world.model.key) != value:
        return Judgement(Result.WAITING)
    pod = _pod(world, node, value, ROLE_PREFETCH if fetching else ROLE_SERVE)
    answer: Answer | None = world.answers.get(pod.uid) if pod is not None else None
    spec = world.model.spec
    rules = TrialRules(
        probation=timedelta(seconds=spec.health.probation_seconds),
        deadline=timedelta(seconds=spec.rollout.progress_deadline_seconds),
    )
    evidence = Evidence(node.name, node.ready, pod, answer, _touched_at(world))
    return judge(evidence, rules, world.now)


def _touched_at(world: World) -> datetime:
    status = world.model.status.rollout
    return datetime.fromisoformat(status.touched_at) if status and status.touched_at else world.now
