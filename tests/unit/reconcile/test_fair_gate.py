"""The gate: never more than its limit, by turns of namespaces, and no place is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgemodel_operator.reconcile.fair_gate import FairGate


class Visit:
    """Somebody who takes a place, notes it, and stays until told to go."""

    def __init__(self, gate: FairGate, namespace: str, log: list[str]) -> None:
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._stay(gate, namespace, log))

    async def _stay(self, gate: FairGate, namespace: str, log: list[str]) -> None:
        async with gate.hold(namespace):
            log.append(namespace)
            await self.leave.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_namespace_with_many_does_not_keep_another_waiting() -> None:
    gate, log = FairGate(1), list[str]()
    visits = [Visit(gate, name, log) for name in ("big", "big", "big", "big", "small", "other")]
    await settle()
    for visit in visits:
        visit.leave.set()
    await asyncio.gather(*(visit.task for visit in visits))
    assert log == ["big", "big", "small", "other", "big", "big"]


async def test_one_namespace_of_several_never_holds_the_last_place() -> None:
    gate, log = FairGate(2, lambda: True), list[str]()
    first, second, third = (Visit(gate, "big", log) for _ in range(3))
    await settle()
    assert log == ["big"]
    neighbour = Visit(gate, "small", log)
    await settle()
    assert log == ["big", "small"]
    first.leave.set()
    await settle()
    assert log == ["big", "small", "big"]
    for visit in (second, third, neighbour):
        visit.leave.set()
    await asyncio.gather(*(visit.task for visit in (first, second, third, neighbour)))
    assert log == ["big", "small", "big", "big"]


async def test_a_single_place_and_a_single_namespace_are_used_to_the_full() -> None:
    for gate, expected in ((FairGate(1, lambda: True), 1), (FairGate(2), 2)):
        log = list[str]()
        visits = [Visit(gate, "only", log) for _ in range(3)]
        await settle()
        assert len(log) == expected
        for visit in visits:
            visit.leave.set()
        await asyncio.gather(*(visit.task for visit in visits))


async def test_within_a_namespace_the_order_is_kept() -> None:
    gate, order = FairGate(1), list[int]()

    async def stay(number: int) -> None:
        async with gate.hold("plant-a"):
            order.append(number)

    await asyncio.gather(*(stay(number) for number in range(5)))
    assert order == [0, 1, 2, 3, 4]


async def test_who_gives_up_is_passed_over() -> None:
    gate, log = FairGate(1), list[str]()
    first, second, third = (Visit(gate, name, log) for name in ("a", "b", "c"))
    await settle()
    second.task.cancel()
    await settle()
    first.leave.set()
    await settle()
    assert log == ["a", "c"]
    third.leave.set()
    await third.task


async def test_a_place_that_comes_while_it_is_given_up_goes_to_the_next() -> None:
    gate, log = FairGate(1), list[str]()
    first, second, third = (Visit(gate, name, log) for name in ("a", "b", "c"))
    await settle()
    first.leave.set()
    await first.task  # the place is second's now, who has not run yet
    second.task.cancel()
    third.leave.set()
    await asyncio.wait_for(third.task, 5)
    with pytest.raises(asyncio.CancelledError):
        await second.task
    assert "c" in log


@given(st.integers(1, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_no_place_is_lost_and_none_is_made(limit: int, shared: bool, seed: int) -> None:
    asyncio.run(_storm(limit, shared, random.Random(seed)))


async def _storm(limit: int, shared: bool, chance: random.Random) -> None:
    gate, inside, most = FairGate(limit, lambda: shared), 0, 0

    async def visit(namespace: str, turns: int) -> None:
        nonlocal inside, most
        async with gate.hold(namespace):
            inside += 1
            most = max(most, inside)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                inside -= 1

    tasks = []
    for _ in range(30):
        tasks.append(asyncio.create_task(visit(chance.choice("abc"), chance.randrange(3))))
        if chance.random() < 0.4:
            chance.choice(tasks).cancel()
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert inside == 0
    assert most <= limit
    # Every place is free again: as many as the limit come in at once.
    log = list[str]()
    visits = [Visit(gate, f"last-{number}", log) for number in range(limit + 1)]
    await settle()
    assert len(log) == limit
    for one in visits:
        one.leave.set()
    await asyncio.gather(*(one.task for one in visits))
