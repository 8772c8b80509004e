"""Carry out the actions of a plan, in their order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.core.chain import needed_variants
from edgemodel_operator.core.garbage import removable
from edgemodel_operator.core.plan import (
    Action,
    Apply,
    Delete,
    LabelNode,
    Plan,
    RemoveImages,
    SetFinalizer,
    StartSupply,
)
from edgemodel_operator.core.supply import supply_jobs
from edgemodel_operator.core.world import World
from edgemodel_operator.reconcile.ports import Ports
from edgemodel_operator.reconcile.supplies import Supplies

log = logging.getLogger(__name__)

LABELS_AT_ONCE = 20


async def execute(plan: Plan, world: World, raw: Mapping[str, Any], ports: Ports, supplies: Supplies) -> None:
    """Do what the plan says: objects first, then labels that refer to them, then what nobody refers to."""
    changes = [action for action in plan.actions if isinstance(action, LabelNode)]
    others = [action for action in plan.actions if not isinstance(action, LabelNode)]
    for action in others:
        if not isinstance(action, Delete):
            await _do(action, world, raw, ports, supplies)
    await _label(changes, ports)
    for action in others:
        if isinstance(action, Delete):
            await _do(action, world, raw, ports, supplies)


async def _label(changes: Sequence[LabelNode], ports: Ports) -> None:
    """Change labels, a few nodes at a time. Raises the first failure.

    After a failure no other change begins, and those under way are waited for: the next pass plans on what
    the nodes have then.
    """
    waiting = iter(changes)
    failures: list[Exception] = []

    async def work() -> None:
        for change in waiting:
            try:
                await ports.cluster.label_node(change.node, change.labels)
            except Exception as error:
                failures.append(error)
            if failures:
                return

    async with asyncio.TaskGroup() as group:
        for _ in changes[:LABELS_AT_ONCE]:
            group.create_task(work())
    if failures:
        raise failures[0]


async def _do(action: Action, world: World, raw: Mapping[str, Any], ports: Ports, supplies: Supplies) -> None:
    match action:
        case SetFinalizer(present=present):
            await _set_finalizer(present, world, raw, ports)
        case RemoveImages(images=images):
            ports.sweeper.want(world.model, images)
        case StartSupply(variant=variant):
            _start(variant, world, supplies)
        case Apply(document=document):
            await ports.cluster.apply(document)
        case Delete(kind=kind, name=name):
            await ports.cluster.delete(kind, world.model.namespace, name)
        case LabelNode():
            await ports.cluster.label_node(action.node, action.labels)


async def _set_finalizer(present: bool, world: World, raw: Mapping[str, Any], ports: Ports) -> None:
    if not present and removable(world):
        await _tell_of_what_stays(raw, world.sweep.message, ports)
    await ports.cluster.set_finalizer(raw, present=present)


async def _tell_of_what_stays(raw: Mapping[str, Any], message: str, ports: Ports) -> None:
    try:
        await ports.cluster.emit(raw, "Warning", "ImagesLeft", message)
    except KubeError as error:
        # A namespace that is being deleted takes no events, and must not wait for one.
        log.warning("images stay in their registry: %s (no event: %s)", message, error)


def _start(variant: str, world: World, supplies: Supplies) -> None:
    variants = needed_variants(world.model.spec, world.classes)
    for job in supply_jobs(world.model, world.runtimes, variants):
        if job.variant == variant:
            supplies.start(job)
