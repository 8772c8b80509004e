"""A gate that lets a bounded number through, one namespace after the other.

A namespace with a hundred models waits for its own hundred, not its neighbours for them. Nor do they wait for
its slow ones: where there are neighbours and more than one place, no namespace holds all places.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class FairGate:
    """Like a semaphore, but whoever waits is let in by turns of namespaces; within one, in order."""

    def __init__(self, limit: int, is_shared: Callable[[], bool] = lambda: False) -> None:
        """`is_shared` tells whether there are several namespaces: then each leaves the last place free."""
        self._limit = limit
        self._is_shared = is_shared
        self._held: Counter[str] = Counter()
        # The first namespace is the one whose turn it is.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def hold(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a place and keep it for the block."""
        await self._enter(namespace)
        try:
            yield
        finally:
            self._leave(namespace)

    async def _enter(self, namespace: str) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(namespace)  # the place came in the moment in which it was given up
            else:
                self._forget(namespace, turn)
            raise

    def _leave(self, namespace: str) -> None:
        self._held[namespace] -= 1
        if not self._held[namespace]:
            del self._held[namespace]
        self._admit()

    def _admit(self) -> None:
        """Let in whoever may: who may not holds a place itself, and comes in when that is free again."""
        while self._held.total() < self._limit and (namespace := self._next()) is not None:
            turn = self._take(namespace)
            if not turn.done():  # who was cancelled a moment ago may not have run yet to say so
                self._held[namespace] += 1
                turn.set_result(None)

    def _next(self) -> str | None:
        most = self._limit - 1 if self._limit > 1 and self._is_shared() else self._limit
        return next((name for name in self._waiting if self._held[name] < most), None)

    def _take(self, namespace: str) -> asyncio.Future[None]:
        turns = self._waiting[namespace]
        turn = turns.popleft()
        if turns:
            self._waiting.move_to_end(namespace)
        else:
            del self._waiting[namespace]
        return turn

    def _forget(self, namespace: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.get(namespace, deque())
        if turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[namespace]
