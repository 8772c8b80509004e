"""Rosters: a text for each assignment that changes whenever the nodes change that shall run it.

Written on the DaemonSet after the labels of the nodes, it makes the DaemonSet controller look once more. That
controller acts on the change of a node's labels when it sees it, and not again: a change that falls into a
moment at which it puts the DaemonSet off (its copy is older than its last write) was seen to be lost until
something else happened. While a node that should have a pod has none, the roster counts on.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from edgemodel_operator.api.names import assignment_value
from edgemodel_operator.core.world import World

REMINDER = timedelta(seconds=15)
"""How long a pod may be missing before its DaemonSet is written again."""


def rosters(world: World) -> Mapping[str, str]:
    """Give the roster of every assignment that any node has."""
    key = world.model.key
    nodes: dict[str, list[str]] = defaultdict(list)
    for node in world.nodes:
        for value in sorted({node.active(key), node.next(key)} - {""}):
            nodes[value].append(node.name)
    present = {(pod.node, assignment_value(pod.revision, pod.target)) for pod in world.pods}
    online = {node.name for node in world.nodes if node.ready}
    reminders = _reminders(world)
    return {
        value: _text(sorted(names), reminders if _is_missing(value, names, online, present) else 0)
        for value, names in nodes.items()
    }


def _is_missing(value: str, names: list[str], online: set[str], present: set[tuple[str, str]]) -> bool:
    return any(name in online and (name, value) not in present for name in names)


def _text(names: list[str], reminders: int) -> str:
    digest = hashlib.sha256("/".join(names).encode()).hexdigest()[:10]
    return f"{len(names)}-{digest}-{reminders}" if reminders else f"{len(names)}-{digest}"


def _reminders(world: World) -> int:
    """Count how often it was worth a reminder since the last node was touched."""
    rollout = world.model.status.rollout
    if rollout is None or not rollout.touched_at:
        return 0
    since = world.now - datetime.fromisoformat(rollout.touched_at)
    return max(0, since // REMINDER)
