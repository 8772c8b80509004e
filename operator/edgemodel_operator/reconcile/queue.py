"""The queue of keys to reconcile: one pass at a time for each key, wakes during a pass are not lost."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from edgemodel_operator.reconcile.outcome import Broken, Outcome

log = logging.getLogger(__name__)

QUIET_SECONDS = 0.25
"""The least time between two passes of one key: a burst of watch events becomes one pass."""
FIRST_BACKOFF_SECONDS = 1.0
LONGEST_BACKOFF_SECONDS = 300.0

Key = tuple[str, str]
"""Namespace and name."""
Pass = Callable[[Key], Awaitable[tuple[Outcome, float | None]]]
"""Reconciles a key; gives the outcome and in how many seconds to look again (None: only when woken)."""


@dataclass
class _State:
    due: float | None = None
    running: bool = False
    dirty: bool = False
    not_before: float = 0.0
    failures: int = 0


@dataclass
class Queue:
    """Wakes workers for keys that are due."""

    _states: dict[Key, _State] = field(default_factory=dict)
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self, key: Key, *, after: float = 0.0) -> None:
        """Ask for a pass of a key in `after` seconds, or sooner if one is due sooner."""
        state = self._states.setdefault(key, _State())
        if state.running and after == 0.0:
            state.dirty = True
            return
        due = max(_now() + after, state.not_before)
        if state.due is None or due < state.due:
            state.due = due
            heapq.heappush(self._heap, (due, key))
            self._changed.set()

    @property
    def depth(self) -> int:
        """How many keys are known."""
        return len(self._states)

    async def run(self, reconcile: Pass, workers: int = 4) -> None:
        """Reconcile until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work(reconcile))

    async def _work(self, reconcile: Pass) -> None:
        while True:
            key = await self._next()
            state = self._states[key]
            outcome, look_again = await reconcile(key)
            state.running = False
            state.not_before = _now() + QUIET_SECONDS
            state.failures = state.failures + 1 if isinstance(outcome, Broken) else 0
            if state.dirty and not state.failures:
                state.dirty = False
                self.wake(key)
            elif state.failures:
                state.dirty = False
                self.wake(key, after=_backoff(state.failures))
            elif look_again is not None:
                self.wake(key, after=look_again)
            elif state.due is None:
                del self._states[key]

    async def _next(self) -> Key:
        while True:
            while self._heap:
                due, key = self._heap[0]
                state = self._states.get(key)
                if state is None or state.due != due or state.running:
                    heapq.heappop(self._heap)
                    if state is not None and state.running and state.due == due:
                        state.due, state.dirty = None, True
                    continue
                if due > _now():
                    break
                heapq.heappop(self._heap)
                state.due, state.running = None, True
                return key
            self._changed.clear()
            pause = self._heap[0][0] - _now() if self._heap else None
            try:
                await asyncio.wait_for(self._changed.wait(), timeout=pause)
            except TimeoutError:
                continue


def _backoff(failures: int) -> float:
    longest: float = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret


def _now() -> float:
    return asyncio.get_running_loop().time()
