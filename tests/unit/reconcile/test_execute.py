"""Carrying out a plan: a failure ends it, and nothing of it happens later."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.core.plan import Delete, LabelNode, Plan
from edgemodel_operator.reconcile.execute import LABELS_AT_ONCE, execute


@dataclass
class Nodes:
    """A cluster whose nodes take labels slowly, and fail when they are told to."""

    failing: frozenset[str] = frozenset()
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    async def label_node(self, node: str, labels: Mapping[str, str | None]) -> None:
        self.begun.append(node)
        await asyncio.sleep(0)
        if node in self.failing:
            raise KubeError(500, f"{node} is not written")
        await asyncio.sleep(0)
        self.ended.append(node)

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        self.deleted.append(name)


async def carry_out(nodes: Nodes) -> None:
    """Label a hundred nodes, then delete one object."""
    labels: list[Any] = [LabelNode(f"node-{number:02}", {"a": "b"}) for number in range(100)]
    plan = Plan(status=None, actions=(*labels, Delete("DaemonSet", "old")))
    anything: Any = type("Anything", (), {})()
    anything.cluster, anything.model, anything.namespace = nodes, anything, "plant"
    await execute(plan, anything, {}, anything, anything)


async def test_all_nodes_are_labelled_before_anything_is_deleted() -> None:
    nodes = Nodes()
    await carry_out(nodes)
    assert (len(nodes.ended), nodes.deleted) == (100, ["old"])


async def test_after_a_failure_no_other_node_is_touched() -> None:
    nodes = Nodes(failing=frozenset({"node-00", "node-03"}))
    with pytest.raises(KubeError, match="node-00"):
        await carry_out(nodes)
    assert len(nodes.begun) == LABELS_AT_ONCE
    # What was under way is done: the next pass sees it.
    assert len(nodes.ended) == LABELS_AT_ONCE - 2
    for _ in range(100):
        await asyncio.sleep(0)
    assert (len(nodes.begun), nodes.deleted) == (LABELS_AT_ONCE, [])
