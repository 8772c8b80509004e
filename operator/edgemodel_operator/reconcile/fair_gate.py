"""A gate that lets a bounded number through, one namespace after the other.

A namespace with a hundred models waits for its own hundred, not its neighbours for them.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class FairGate:
    """Like a semaphore, but whoever waits is let in by turns of namespaces; within one, in order."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        # The first namespace is the one whose turn it is.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def hold(self, namespace: str) -> AsyncIterator[None]:
        """Wait for a place and keep it for the block."""
        await self._enter(namespace)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, namespace: str) -> None:
        if self._free and not self._waiting:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()  # the place came in the moment in which it was given up
            else:
                self._forget(namespace, turn)
            raise

    def _leave(self) -> None:
        while self._waiting:
            turn = self._next()
            if not turn.done():  # who was cancelled a moment ago may not have run yet to say so
                turn.set_result(None)
                return
        self._free += 1

    def _next(self) -> asyncio.Future[None]:
        namespace, turns = next(iter(self._waiting.items()))
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
