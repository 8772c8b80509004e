"""The queue: one pass at a time for a key, nothing lost, errors back off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from edgemodel_operator.reconcile import queue as module
from edgemodel_operator.reconcile.outcome import Broken, Done, Outcome
from edgemodel_operator.reconcile.queue import Key, Queue

KEY = ("plant-a", "line")
Answer = tuple[Outcome, float | None]


@asynccontextmanager
async def running(queue: Queue, reconcile: Callable[[Key], Awaitable[Answer]]) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(reconcile, workers=3))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_burst_of_wakes_becomes_one_pass() -> None:
    passes: list[Key] = []

    async def reconcile(key: Key) -> Answer:
        passes.append(key)
        return Done(), None

    queue = Queue()
    for _ in range(100):
        queue.wake(KEY)
    async with running(queue, reconcile):
        await until(lambda: queue.depth == 0)
    assert passes == [KEY]


async def test_a_wake_during_a_pass_is_kept_and_passes_of_a_key_never_overlap() -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    running_now, most, passes = 0, 0, 0

    async def reconcile(_: Key) -> Answer:
        nonlocal running_now, most, passes
        running_now += 1
        most, passes = max(most, running_now), passes + 1
        started.set()
        await finish.wait()
        running_now -= 1
        return Done(), None

    queue = Queue()
    queue.wake(KEY)
    async with running(queue, reconcile):
        await started.wait()
        queue.wake(KEY)
        queue.wake(KEY)
        finish.set()
        await until(lambda: queue.depth == 0)
    assert (passes, most) == (2, 1)


async def test_different_keys_are_reconciled_at_the_same_time() -> None:
    together = asyncio.Barrier(3)

    async def reconcile(_: Key) -> Answer:
        await together.wait()
        return Done(), None

    queue = Queue()
    for name in ("a", "b", "c"):
        queue.wake(("plant-a", name))
    async with running(queue, reconcile):
        await until(lambda: queue.depth == 0)


async def test_an_outcome_that_wants_another_look_gets_it() -> None:
    passes = 0

    async def reconcile(_: Key) -> Answer:
        nonlocal passes
        passes += 1
        return Done(), 0.01 if passes == 1 else None

    queue = Queue()
    queue.wake(KEY)
    async with running(queue, reconcile):
        await until(lambda: queue.depth == 0)
    assert passes == 2


async def test_a_broken_pass_is_tried_again_with_growing_pauses() -> None:
    assert module.FIRST_BACKOFF_SECONDS < module.LONGEST_BACKOFF_SECONDS
    pauses = [module._backoff(failures) for failures in range(1, 40)]
    for failures, pause in enumerate(pauses, start=1):
        ceiling = min(module.LONGEST_BACKOFF_SECONDS, module.FIRST_BACKOFF_SECONDS * 2 ** (failures - 1))
        assert ceiling / 2 <= pause <= ceiling

    passes = 0

    async def reconcile(_: Key) -> Answer:
        nonlocal passes
        passes += 1
        return (Broken(RuntimeError("once")), None) if passes == 1 else (Done(), None)

    queue = Queue()
    queue.wake(KEY)
    async with running(queue, reconcile):
        await until(lambda: queue.depth == 0)
    assert passes == 2


async def test_a_wake_comes_before_a_later_look() -> None:
    passes = asyncio.Queue[None]()

    async def reconcile(_: Key) -> Answer:
        passes.put_nowait(None)
        return Done(), 3600.0

    queue = Queue()
    queue.wake(KEY)
    async with running(queue, reconcile), asyncio.timeout(5):
        await passes.get()
        queue.wake(KEY)
        await passes.get()
