"""One pass: parse → gather → plan → act → status → publish."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from edgemodel_operator.adapters.decode import decode_departing, decode_model, is_deleting
from edgemodel_operator.api.conditions import ConditionStatus, ConditionType, Finding, merge_conditions
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.core.plan import Plan, make_plan
from edgemodel_operator.core.world import Model
from edgemodel_operator.reconcile.execute import execute
from edgemodel_operator.reconcile.gather import gather
from edgemodel_operator.reconcile.outcome import Blocked, Broken, Done, Outcome, Waiting
from edgemodel_operator.reconcile.ports import Ports
from edgemodel_operator.reconcile.publish import publish
from edgemodel_operator.reconcile.queue import Key
from edgemodel_operator.reconcile.supplies import Supplies

log = logging.getLogger(__name__)

PASS_SECONDS = 120
"""A pass that takes longer hangs: it is broken off and tried again."""


async def reconcile(key: Key, ports: Ports, supplies: Supplies) -> Outcome:
    """Bring one model a step nearer to its spec; raises what it cannot handle."""
    raw = await ports.cluster.get_model(*key)
    if raw is None:
        supplies.retain(*key, ())
        ports.sweeper.forget(*key)
        ports.metrics.forget(*key)
        return Done()
    try:
        model = decode_model(raw)
    except ValidationError as error:
        if not is_deleting(raw):
            await _report_invalid(raw, error, ports)
            return Blocked()
        model = decode_departing(raw)
    world = await gather(model, ports, supplies)
    plan = make_plan(world)
    await execute(plan, world, raw, ports, supplies)
    if plan.status is not None:
        await publish(model, raw, plan.status, ports)
    return _outcome(plan, model)


def _outcome(plan: Plan, model: Model) -> Outcome:
    if plan.status is None:
        return Waiting(plan.look_again_at) if plan.look_again_at else Done()
    if plan.blocked:
        return Blocked(plan.look_again_at)
    if plan.status != model.status:
        return Waiting(plan.look_again_at)
    return Done(plan.look_again_at)


async def reconcile_safely(key: Key, ports: Ports, supplies: Supplies) -> tuple[Outcome, float | None]:
    """Reconcile, turn every error into an outcome, and say in how many seconds to look again."""
    begun = time.monotonic()
    outcome: Outcome
    try:
        async with asyncio.timeout(PASS_SECONDS):
            outcome = await reconcile(key, ports, supplies)
    except Exception as error:
        log.exception("a pass failed", extra={"namespace": key[0], "model": key[1]})
        outcome = Broken(error)
    name = type(outcome).__name__.lower()
    ports.metrics.reconciles.labels(name).observe(time.monotonic() - begun)
    if isinstance(outcome, Broken) or outcome.look_again_at is None:
        return outcome, None
    return outcome, max(0.0, (outcome.look_again_at - ports.clock()).total_seconds())


async def _report_invalid(raw: Mapping[str, Any], error: ValidationError, ports: Ports) -> None:
    """Say why a stored spec cannot be used; it was stored before the schema refused it."""
    metadata = raw["metadata"]
    first = error.errors(include_url=False, include_input=False)[0]
    message = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    try:
        old = EdgeModelStatus.model_validate(raw.get("status") or {})
    except ValidationError:
        old = EdgeModelStatus()
    findings = [
        Finding(type=kind, status=status, reason="InvalidSpec", message=message)
        for kind, status in (
            (ConditionType.READY, ConditionStatus.FALSE),
            (ConditionType.STALLED, ConditionStatus.TRUE),
        )
    ]
    generation = metadata.get("generation", 0)
    now = ports.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = merge_conditions(old.conditions, findings, generation=generation, now=now)
    status = old.model_copy(update={"observed_generation": generation, "conditions": conditions})
    if status != old:
        await ports.cluster.write_status(metadata["namespace"], metadata["name"], status)
