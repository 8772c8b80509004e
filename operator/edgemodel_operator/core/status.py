"""The status: what was observed, said anew in every pass; one function for each condition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from edgemodel_operator.api.conditions import ConditionStatus, ConditionType, Finding, merge_conditions
from edgemodel_operator.api.edgemodel_status import (
    EdgeModelStatus,
    ModelReport,
    NodeCounts,
    NodeReport,
    NodeState,
    Quarantine,
    Revision,
    RolloutStatus,
    TargetCount,
    VariantImage,
)
from edgemodel_operator.api.names import ROLE_SERVE
from edgemodel_operator.core.chain import Chain
from edgemodel_operator.core.fleet import Fleet
from edgemodel_operator.core.garbage import registry_finding, retained
from edgemodel_operator.core.member import Member, MemberState, failure_of
from edgemodel_operator.core.pins import source_key
from edgemodel_operator.core.rollout import is_stopped as has_stopped
from edgemodel_operator.core.waves import Policy, RolloutPlan
from edgemodel_operator.core.world import World

MAX_REPORTS = 20
MAX_REVISIONS = 8
TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN


def make_status(
    world: World,
    chain: Chain,
    revision: Revision | None,
    fleet: Fleet,
    rollout: RolloutPlan | None,
    quarantined: tuple[Quarantine, ...],
) -> EdgeModelStatus:
    """Give the whole status of one pass."""
    old = world.model.status
    state = rollout.status if rollout else old.rollout
    target = chain.revision.name if chain.revision else old.target_revision
    good = old.last_known_good
    if state is not None and state.completed_at:
        good = state.revision
    previous = _previous_good(old, state, good, fleet.members)
    current = revision.name if revision else ""
    states = rollout.states if rollout else ()
    counts = _counts(world, fleet, states)
    draft = old.model_copy(
        update={
            "observed_generation": world.model.generation,
            "model": _model(world),
            "images": _images(world, chain),
            "retained_images": retained(world),
            "current_revision": current,
            "target_revision": target,
            "last_known_good": good,
            "previous_good": previous,
            "version": revision.model_version if revision else "",
            "revisions": _revisions(world, chain, revision, (good, previous)),
            "rollout": state,
            "nodes": counts,
            "targets": _targets(fleet),
            "node_reports": _reports(fleet, states),
            "quarantined": quarantined,
        }
    )
    findings = [*chain.findings, *_fleet_findings(world, chain, fleet, draft)]
    if (registry := registry_finding(world)) is not None:
        findings.append(registry)
    conditions = merge_conditions(
        old.conditions,
        findings,
        generation=world.model.generation,
        now=world.now.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
    return draft.model_copy(update={"conditions": conditions})


def _model(world: World) -> ModelReport | None:
    """Give what is known of the files of this very source and version: from now on its digests are pinned."""
    key = source_key(world.model.spec.model)
    old = world.model.status.model
    if old is not None and old.source_key != key:
        old = None
    report = next((item.report for _, item in sorted(world.supplies.items()) if item.report), old)
    if report is None:
        return None
    # What was fetched here once has names and sizes; an image that was found knows digests alone.
    known = old.files if old is not None else ()
    same = [file.sha256 for file in known] == [file.sha256 for file in report.files]
    return report.model_copy(update={"source_key": key, "files": known if same else report.files})


def _images(world: World, chain: Chain) -> tuple[VariantImage, ...]:
    """Record images only when they are trusted: what stands here is used again without building."""
    if chain.revision is None:
        return world.model.status.images
    return tuple(
        VariantImage(
            variant=variant,
            build_key=supply.build_key,
            image=supply.image,
            platforms=supply.platforms,
        )
        for variant, supply in sorted(world.supplies.items())
    )


def _previous_good(
    old: EdgeModelStatus, rollout: RolloutStatus | None, good: str, members: Sequence[Member]
) -> str:
    """Name what was good before, as long as nodes that come late may have to go back to it."""
    if rollout is None or not rollout.completed_at or rollout.revision != good:
        return ""
    previous = old.previous_good if good == old.last_known_good else old.last_known_good
    is_over = all(
        member.updated or (not member.on_trial and failure_of(member, rollout.failed)) for member in members
    )
    return "" if is_over else previous


def _revisions(
    world: World, chain: Chain, revision: Revision | None, good: tuple[str, str]
) -> tuple[Revision, ...]:
    """Keep what is wanted, what is or was good and what any node has; newest first."""
    kept = {*good, *world.assigned_revisions()}
    wanted = [item for item in (chain.revision, revision) if item is not None]
    rest = [item for item in world.model.status.revisions if item.name in kept]
    newest_first = list({item.name: item for item in (*wanted, *rest)}.values())
    # The bound may cost an old revision its record, never a good one.
    good_ones = [item for item in newest_first if item.name in good]
    others = [item for item in newest_first if item.name not in good][: MAX_REVISIONS - len(good_ones)]
    return tuple(item for item in newest_first if item in others or item in good_ones)


def _counts(world: World, fleet: Fleet, states: Sequence[MemberState]) -> NodeCounts:
    tally = Counter(state.state for state in states)
    online = {item.node.name for item in fleet.placed if item.node.ready}
    serving = {pod.node for pod in world.pods if pod.role == ROLE_SERVE and pod.ready and not pod.terminating}
    total, ready = len(fleet.placed), len(online & serving)
    return NodeCounts(
        total=total,
        ready=ready,
        updated=tally[NodeState.UPDATED],
        trial=tally[NodeState.TRIAL],
        pending=tally[NodeState.PENDING],
        deferred=tally[NodeState.DEFERRED],
        failed=tally[NodeState.FAILED],
        summary=f"{ready}/{total}",
    )


def _targets(fleet: Fleet) -> tuple[TargetCount, ...]:
    tally = Counter(item.target for item in fleet.placed)
    return tuple(TargetCount(accelerator=name, nodes=count) for name, count in sorted(tally.items()))


def _reports(fleet: Fleet, states: Sequence[MemberState]) -> tuple[NodeReport, ...]:
    reports = [
        NodeReport(name=state.node, state=state.state, reason=state.reason, message=state.message[:512])
        for state in states
        if state.state is not NodeState.UPDATED or state.reason
    ]
    reports += [
        NodeReport(name=item.node, state=NodeState.PENDING, reason=item.reason, message=item.message[:512])
        for item in fleet.rejected
    ]
    return tuple(sorted(reports, key=lambda report: report.name))[:MAX_REPORTS]


# --- conditions ------------------------------------------------------------------------------------------


def _fleet_findings(world: World, chain: Chain, fleet: Fleet, status: EdgeModelStatus) -> list[Finding]:
    is_stopped = _is_stopped(world, fleet, status)
    progressing = _progressing(world, chain, status, is_stopped=is_stopped)
    placed = _placed(fleet)
    available = _available(world, fleet, status)
    stalled = _stalled(chain, status, is_stopped=is_stopped)
    return [placed, progressing, available, _ready(placed, progressing, available, stalled, status), stalled]


def _finding(kind: ConditionType, status: ConditionStatus, reason: str, message: str) -> Finding:
    return Finding(type=kind, status=status, reason=reason, message=message)


def _placed(fleet: Fleet) -> Finding:
    kind = ConditionType.PLACED
    if fleet.placed:
        message = f"{len(fleet.placed)} nodes match"
        if fleet.rejected:
            message += f"; {len(fleet.rejected)} cannot run it: {fleet.rejected[0].message}"
        return _finding(kind, TRUE, "NodesMatch", message)
    if fleet.rejected:
        return _finding(kind, FALSE, fleet.rejected[0].reason, fleet.rejected[0].message)
    return _finding(kind, FALSE, "NoNodeMatches", "no node carries the labels of placement.nodeSelector")


def _rolled_back(status: EdgeModelStatus) -> Quarantine | None:
    return next((item for item in status.quarantined if item.revision == status.target_revision), None)


def _progressing(world: World, chain: Chain, status: EdgeModelStatus, *, is_stopped: bool) -> Finding:
    kind = ConditionType.PROGRESSING
    if chain.hold is not None:
        moving = FALSE if chain.hold.stalled else TRUE
        return _finding(kind, moving, chain.hold.reason, chain.hold.message)
    quarantine = _rolled_back(status)
    if quarantine is not None:
        return _finding(kind, FALSE, "RolledBack", f"{quarantine.reason}: {quarantine.message}")
    if status.rollout is None:
        return _finding(kind, TRUE, "RolloutStarting", "the rollout begins")
    return _rolling(world, status.rollout, status.nodes, is_stopped=is_stopped)


def _rolling(world: World, rollout: RolloutStatus, counts: NodeCounts, *, is_stopped: bool) -> Finding:
    kind = ConditionType.PROGRESSING
    if rollout.completed_at:
        return _finding(kind, FALSE, "RolloutComplete", f"revision {rollout.revision} passed its last wave")
    if is_stopped:
        return _finding(kind, FALSE, "RolloutStopped", _failure_text(rollout))
    if world.model.spec.rollout.paused:
        return _finding(kind, FALSE, "Paused", "rollout.paused is true: no further node is touched")
    if counts.total and counts.deferred == counts.total:
        return _finding(kind, TRUE, "NodesOffline", "every matching node is offline")
    return _finding(
        kind,
        TRUE,
        "RollingOut",
        f"wave {rollout.wave + 1} of {rollout.waves}: {counts.updated} of {counts.total} nodes updated, "
        f"{counts.trial} on trial, {counts.deferred} deferred; {counts.ready} answer",
    )


def _is_stopped(world: World, fleet: Fleet, status: EdgeModelStatus) -> bool:
    if status.rollout is None:
        return False
    spares = status.rollout.revision == world.model.status.last_known_good
    policy = replace(Policy.of(world.model.spec.rollout), spares=spares)
    return has_stopped(fleet.members, status.rollout, policy)


def _failure_text(rollout: RolloutStatus) -> str:
    first = rollout.failed[0]
    return f"{len(rollout.failed)} nodes failed; {first.name}: {first.reason}: {first.message}"


def _available(world: World, fleet: Fleet, status: EdgeModelStatus) -> Finding:
    kind = ConditionType.AVAILABLE
    online = sum(1 for item in fleet.placed if item.node.ready)
    ready, total = status.nodes.ready, status.nodes.total
    if not total:
        return _finding(kind, FALSE, "NoNodeMatches", "no node runs the model")
    message = f"{ready} of {total} nodes answer, {total - online} are offline"
    if ready and ready >= online:
        return _finding(kind, TRUE, "AllReachableNodesReady", message)
    return _finding(kind, FALSE, "PodsNotReady" if online else "NodesOffline", message)


def _stalled(chain: Chain, status: EdgeModelStatus, *, is_stopped: bool) -> Finding:
    kind = ConditionType.STALLED
    if chain.hold is not None:
        if chain.hold.stalled:
            return _finding(kind, TRUE, chain.hold.reason, chain.hold.message)
        return _finding(kind, FALSE, "NotStalled", "nobody needs to act")
    quarantine = _rolled_back(status)
    if quarantine is not None:
        return _finding(
            kind,
            TRUE,
            "RevisionQuarantined",
            f"revision {quarantine.revision} failed ({quarantine.reason}) on {quarantine.message}; the fleet "
            "runs the last revision that passed: apply a corrected spec",
        )
    rollout = status.rollout
    if rollout is not None and is_stopped:
        return _finding(kind, TRUE, "RolloutStopped", _failure_text(rollout))
    return _finding(kind, FALSE, "NotStalled", "nobody needs to act")


def _ready(
    placed: Finding, progressing: Finding, available: Finding, stalled: Finding, status: EdgeModelStatus
) -> Finding:
    """Ready is the first of the other conditions that is not as it should be."""
    kind = ConditionType.READY
    checks = (
        (stalled, stalled.status is TRUE),
        (placed, placed.status is not TRUE),
        (progressing, progressing.reason != "RolloutComplete"),
        (available, available.status is not TRUE),
    )
    for finding, is_wrong in checks:
        if is_wrong:
            return _finding(kind, FALSE, finding.reason, finding.message)
    counts = status.nodes
    unfinished = counts.trial + counts.pending + counts.failed
    if unfinished:
        reason = "NodesFailed" if counts.failed else "NodesJoining"
        message = f"{counts.updated} of {counts.total} nodes are updated, {counts.failed} failed"
        return _finding(kind, FALSE, reason, message)
    if counts.deferred:
        message = (
            f"{counts.updated} of {counts.total} nodes are updated, {counts.ready} answer; "
            f"{counts.deferred} are offline and deferred"
        )
        return _finding(kind, TRUE, "NodesDeferred", message)
    message = f"all {counts.total} nodes are updated, {counts.ready} answer with this revision"
    return _finding(kind, TRUE, "AllNodesUpdated", message)
