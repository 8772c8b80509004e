"""Verdicts that are known already, and at most one verification at a time for each that is not.

A digest never changes its content, so "trusted" stays true for the same keys and may be kept long: a pod
restarts although the registry is away. "Unsigned" is kept for a moment only, since a signature may be on its
way. A failure to find out is no verdict and is never kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

from edgemodel_operator.signing.verdict import Reason, Trusted, Verdict

KEEP_TRUSTED_S = 24 * 3600.0
KEEP_UNSIGNED_S = 5.0
MAX_VERDICTS = 8192
MAX_RUNNING = 256


@dataclass(frozen=True)
class VerdictKey:
    """What a verdict is about: `image` is `name@digest`, `policy` the hash of what it demands."""

    image: str
    policy: str
    keys: tuple[str, ...]


_Verify: TypeAlias = Callable[[], Awaitable[Verdict]]


class Overloaded(Exception):  # noqa: N818 - reads as the fact it states
    """Too many verifications run already; the caller denies."""


class VerdictCache:
    """A bounded cache with single flight. Use it in one event loop only."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._kept: OrderedDict[VerdictKey, tuple[float, Verdict]] = OrderedDict()
        self._running: dict[VerdictKey, asyncio.Task[Verdict]] = {}

    def known(self, key: VerdictKey) -> Verdict | None:
        """Give the verdict if it is known and fresh."""
        until, verdict = self._kept.get(key, (0.0, None))
        if verdict is None or until <= self._clock():
            return None
        self._kept.move_to_end(key)
        return verdict

    async def get(self, key: VerdictKey, verify: _Verify) -> Verdict:
        """Give the verdict, running `verify` unless it is known or somebody else is at it already.

        Raises what `verify` raises, or Overloaded. The verification goes on when the caller is canceled: the
        next caller, usually the same pod once more, finds the verdict.
        """
        verdict = self.known(key)
        if verdict is not None:
            return verdict
        task = self._running.get(key)
        if task is None:
            if len(self._running) >= MAX_RUNNING:
                raise Overloaded(f"{MAX_RUNNING} verifications are running already; try again in a moment")
            task = asyncio.ensure_future(self._run(key, verify))
            self._running[key] = task
            task.add_done_callback(_retrieve)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Cancel what is still running."""
        running = tuple(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self, key: VerdictKey, verify: _Verify) -> Verdict:
        try:
            verdict = await verify()
        finally:
            del self._running[key]
        keep = _seconds_to_keep(verdict)
        if keep:
            self._kept[key] = (self._clock() + keep, verdict)
            self._kept.move_to_end(key)
            while len(self._kept) > MAX_VERDICTS:
                self._kept.popitem(last=False)
        return verdict


def _seconds_to_keep(verdict: Verdict) -> float:
    if isinstance(verdict, Trusted):
        return KEEP_TRUSTED_S
    return KEEP_UNSIGNED_S if verdict.reason is Reason.UNSIGNED else 0.0


def _retrieve(task: asyncio.Task[Verdict]) -> None:
    """Look at the exception, which nobody else does when every caller has gone."""
    if not task.cancelled():
        task.exception()
