"""Doing several things at a time, with errors as if they had been done one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def for_each(
    do: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, at_once: int
) -> tuple[Result, ...]:
    """Do something with every item, at most `at_once` at a time; gives the results in order.

    The first error ends all of them and is raised itself, not as a group.
    """
    gate = asyncio.Semaphore(at_once)

    async def one(item: Item) -> Result:
        async with gate:
            return await do(item)

    return tuple(await _all(one(item) for item in items))


async def both(one: Coroutine[Any, Any, Item], other: Coroutine[Any, Any, Result]) -> tuple[Item, Result]:
    """Do two things at once; errors as with `for_each`."""
    first, second = await _all([one, other])
    return first, second


async def _all(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as failed:
        raise _first(failed) from failed
    return [task.result() for task in tasks]


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
