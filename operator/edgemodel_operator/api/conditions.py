"""Conditions: their types, and how a new set of them follows from the old one."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from edgemodel_operator.api.base import Observed, Schema
from edgemodel_operator.api.names import CONDITION_MESSAGE_LIMIT


class ConditionType(StrEnum):
    """The conditions of an EdgeModel, in the order in which a model passes them."""

    SOURCE_RESOLVED = "SourceResolved"
    BUILT = "Built"
    SIGNED = "Signed"
    TRUSTED = "Trusted"
    PLACED = "Placed"
    PROGRESSING = "Progressing"
    AVAILABLE = "Available"
    READY = "Ready"
    STALLED = "Stalled"
    REGISTRY_CLEAN = "RegistryClean"


class ConditionStatus(StrEnum):
    """The three answers that a condition can give."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(Observed):
    """One observation about an object, as the Kubernetes API conventions define it."""

    type: Annotated[str, Field(max_length=316)]
    """The name of the condition."""
    status: ConditionStatus
    """Whether the condition holds."""
    reason: Annotated[str, Field(min_length=1, max_length=128)]
    """One CamelCase word for programs."""
    message: Annotated[str, Field(max_length=CONDITION_MESSAGE_LIMIT)] = ""
    """One sentence for people."""
    observed_generation: int = 0
    """The generation of the object that this condition speaks of."""
    last_transition_time: str
    """When the status last changed (RFC 3339, UTC)."""


class Finding(Schema):
    """What one check says now: a condition that does not know yet when it last changed."""

    type: ConditionType
    status: ConditionStatus
    reason: str
    message: str = ""


def merge_conditions(
    old: Iterable[Condition], findings: Iterable[Finding], *, generation: int, now: str
) -> tuple[Condition, ...]:
    """Turn findings into conditions: `lastTransitionTime` moves only when the status flips.

    Conditions that no finding speaks of are dropped; the order is that of `ConditionType`.
    """
    before = {condition.type: condition for condition in old}
    order = {kind: position for position, kind in enumerate(ConditionType)}
    merged = []
    for finding in sorted(findings, key=lambda item: order[item.type]):
        previous = before.get(finding.type)
        unchanged = previous is not None and previous.status is finding.status
        merged.append(
            Condition(
                type=finding.type,
                status=finding.status,
                reason=finding.reason,
                message=shorten(finding.message, CONDITION_MESSAGE_LIMIT),
                observed_generation=generation,
                last_transition_time=previous.last_transition_time if previous and unchanged else now,
            )
        )
    return tuple(merged)


def shorten(text: str, limit: int) -> str:
    """Cut a text to `limit` characters, with an ellipsis where something is missing."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
