"""How a pass ends: four outcomes and no more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Done:
    """The spec is achieved, or the object is gone."""

    look_again_at: datetime | None = None


@dataclass(frozen=True)
class Waiting:
    """We or a child are at work."""

    look_again_at: datetime | None = None


@dataclass(frozen=True)
class Blocked:
    """A person must change something."""

    look_again_at: datetime | None = None


@dataclass(frozen=True)
class Broken:
    """An outage or a bug: tried again with growing pauses."""

    error: Exception


Outcome = Done | Waiting | Blocked | Broken
