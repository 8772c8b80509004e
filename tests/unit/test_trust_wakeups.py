"""What wakes models and the audit: what policies and exceptions say, not what is reported about them."""

from __future__ import annotations

from typing import Any

import pytest
from typing_extensions import override

from edgemodel_operator.api.names import model_key
from edgemodel_operator.handlers import Wakeups, trust_changed
from edgemodel_operator.reconcile.queue import Key, Queue


class Woken(Queue):
    """A queue that only notes who is woken."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[Key] = []

    @override
    def wake(self, key: Key, *, after: float = 0.0) -> None:
        self.keys.append(key)


@pytest.fixture
def audits() -> list[int]:
    return []


@pytest.fixture
def memo(audits: list[int]) -> Wakeups:
    key = ("plant-a", "line")
    return Wakeups(Woken(), {model_key(*key): key}, audit=lambda: audits.append(1))


async def change(memo: Wakeups, generation: int, name: str = "models", **given: Any) -> None:
    event = {"namespace": None, "type": "MODIFIED", **given}
    await trust_changed(name=name, body={"metadata": {"generation": generation}}, memo=memo, **event)


async def test_a_new_generation_wakes_models_and_the_audit_and_a_status_wakes_nobody(
    memo: Wakeups, audits: list[int]
) -> None:
    await change(memo, 1, type=None)
    await change(memo, 1)
    await change(memo, 2)
    assert len(audits) == 2
    assert isinstance(memo.queue, Woken)
    assert memo.queue.keys == [("plant-a", "line")] * 2


async def test_a_deletion_wakes_and_is_forgotten(memo: Wakeups, audits: list[int]) -> None:
    await change(memo, 1)
    await change(memo, 1, type="DELETED")
    await change(memo, 1, type="ADDED")
    assert len(audits) == 3


async def test_exceptions_of_one_name_in_two_namespaces_are_two(memo: Wakeups, audits: list[int]) -> None:
    for namespace in ("edgemodel-system", "plant-a"):
        await change(memo, 1, name="for-now", namespace=namespace)
    assert len(audits) == 2
