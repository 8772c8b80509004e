"""Several things at a time: results in order, one error instead of a group, nothing left running."""

from __future__ import annotations

import asyncio

import pytest

from edgemodel_operator.build.together import both, for_each


async def test_results_keep_the_order_whoever_is_first() -> None:
    slow = asyncio.Event()

    async def double(number: int) -> int:
        if number == 1:
            await slow.wait()
        else:
            slow.set()
        return number * 2

    assert await for_each(double, [1, 2, 3], at_once=2) == (2, 4, 6)


async def test_no_more_run_than_may() -> None:
    running = most = 0

    async def work(_: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await for_each(work, range(10), at_once=3)
    assert most == 3


async def test_the_first_error_ends_the_others_and_comes_alone() -> None:
    ended = False

    async def wait_forever() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended = True

    async def break_down() -> None:
        await asyncio.sleep(0)
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        await both(wait_forever(), break_down())
    assert ended


async def test_a_cancellation_stays_one() -> None:
    task = asyncio.create_task(both(asyncio.sleep(60), asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
