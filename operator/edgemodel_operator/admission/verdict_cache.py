"""Verdicts that are known already, and at most one verification at a time for each that is not.

| verdict | used at once | after that |
|---|---|---|
| trusted | FRESH_S | verified anew; stands while no registry answers, up to LAPSE_S after its last use |
| unsigned | KEEP_UNSIGNED_S | verified anew |
| otherwise untrusted | never | verified anew |

A digest never changes its content, so "trusted" stays true for the same keys: what ages is only whether its
signatures are still there. "Unsigned" is kept for a moment, since a signature may be on its way. A failure to
find out is no verdict and is never kept.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

from edgemodel_operator.adapters.policy_verifier import CannotVerify, ImageNotFound
from edgemodel_operator.admission.verdict_book import SKEW_S, Entry, VerdictBook

FRESH_S = 24 * 3600.0
LAPSE_S = 90 * 24 * 3600.0
KEEP_UNSIGNED_S = 5.0
STALE_WAIT_S = 3.0
"""How long a verdict that is no longer fresh waits for the registry: well within the time for one review."""
MAX_UNSIGNED = 1024
MAX_RUNNING = 128
"""Verifications at once: fewer than the reviews that are judged at once, so that a flood of images which
nobody knows, each waiting for its registry, leaves room for those that are known."""
MAX_EACH = 16
"""Of these, as many as one review waits for at a time: one with many images gets them verified by turns, and
leaves room for the others."""
UNSIGNED = "Unsigned"


@dataclass(frozen=True)
class VerdictKey:
    """What a verdict is about: the hash of `name@digest`, and the group of what is demanded."""

    image: str
    group: str


@dataclass(frozen=True)
class Finding:
    """What is known about an image: `by` says who vouched; `reason` and `missing` what it lacks."""

    trusted: bool
    by: tuple[str, ...] = ()
    reason: str = ""
    missing: str = ""
    known: bool = False
    """Whether nobody had to be asked."""
    stale: bool = False
    """Whether it is an old verdict that stands because nobody could be asked."""


class Overloaded(CannotVerify):
    """Too many verifications run already; the caller denies."""

    reason = "Overloaded"


_Verify: TypeAlias = Callable[[], Awaitable[Finding]]


@dataclass
class _Flight:
    task: asyncio.Task[Finding]
    remember: bool


class VerdictCache:
    """A bounded cache with single flight. Use it in one event loop only."""

    def __init__(
        self, book: VerdictBook, wall_clock: Callable[[], float], clock: Callable[[], float]
    ) -> None:
        """`wall_clock` gives Unix time, `clock` seconds that never go back."""
        self.book = book
        self._now = wall_clock
        self._clock = clock
        self._unsigned: OrderedDict[VerdictKey, tuple[float, Finding]] = OrderedDict()
        self._flights: dict[VerdictKey, _Flight] = {}

    async def get(
        self,
        key: VerdictKey,
        verify: _Verify,
        *,
        remember: bool = True,
        turns: asyncio.Semaphore | None = None,
    ) -> Finding:
        """Give the verdict, running `verify` unless it is known or somebody else is at it already.

        `verify` raises CannotVerify when it cannot tell; so does this, unless an older verdict stands. The
        verification goes on when the caller is canceled: the next caller, usually the same pod once more,
        finds the verdict. Without `remember`, nothing of it is kept. `turns` are those of the review that
        asks: what nobody knows waits for one.
        """
        known = self._known(key, remember=remember)
        if known is not None:
            return known
        entry, now = self.book.look_up(key.group, key.image), self._now()
        if entry is None or not _stands(entry, now):
            return await self._ask(key, verify, turns, remember=remember)
        try:
            async with asyncio.timeout(STALE_WAIT_S):
                return await self._ask(key, verify, turns, remember=remember)
        except ImageNotFound:
            raise  # the registry has answered
        except (CannotVerify, TimeoutError):
            return self._used(key, entry, now, remember=remember, stale=True)

    async def close(self) -> None:
        """Cancel what is still running."""
        running = tuple(flight.task for flight in self._flights.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _known(self, key: VerdictKey, *, remember: bool) -> Finding | None:
        """Give a verdict that needs no look at the registry."""
        entry, now = self.book.look_up(key.group, key.image), self._now()
        if entry is not None and not entry.refuted and _is_fresh(entry, now):
            return self._used(key, entry, now, remember=remember, stale=False)
        until, unsigned = self._unsigned.get(key, (0.0, None))
        return unsigned if until > self._clock() else None

    async def _ask(
        self, key: VerdictKey, verify: _Verify, turns: asyncio.Semaphore | None, *, remember: bool
    ) -> Finding:
        async with turns or nullcontext():
            # While this one waited for its turn, another may have asked the same.
            known = self._known(key, remember=remember)
            if known is not None:
                return known
            return await asyncio.shield(self._join(key, verify, remember=remember))

    def _used(self, key: VerdictKey, entry: Entry, now: float, *, remember: bool, stale: bool) -> Finding:
        if remember:
            self.book.use(key.group, key.image, now)
        return Finding(trusted=True, by=entry.by, known=True, stale=stale)

    def _join(self, key: VerdictKey, verify: _Verify, *, remember: bool) -> asyncio.Task[Finding]:
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= MAX_RUNNING:
                raise Overloaded(f"{MAX_RUNNING} verifications are running already; try again in a moment")
            flight = _Flight(asyncio.ensure_future(self._run(key, verify)), remember)
            self._flights[key] = flight
            flight.task.add_done_callback(_retrieve)
        flight.remember |= remember
        return flight.task

    async def _run(self, key: VerdictKey, verify: _Verify) -> Finding:
        remember = False
        try:
            finding = await verify()
        finally:
            remember = self._flights.pop(key).remember
        if not finding.trusted:
            self.book.refute(key.group, key.image, self._now())
        elif remember:
            self.book.trust(key.group, key.image, finding.by, self._now())
        if finding.reason == UNSIGNED and not finding.trusted:
            self._keep_unsigned(key, finding)
        return finding

    def _keep_unsigned(self, key: VerdictKey, finding: Finding) -> None:
        kept = Finding(trusted=False, reason=finding.reason, missing=finding.missing, known=True)
        self._unsigned[key] = (self._clock() + KEEP_UNSIGNED_S, kept)
        self._unsigned.move_to_end(key)
        while len(self._unsigned) > MAX_UNSIGNED:
            self._unsigned.popitem(last=False)


def _is_fresh(entry: Entry, now: float) -> bool:
    return now - FRESH_S < entry.verified <= now + SKEW_S


def _stands(entry: Entry, now: float) -> bool:
    return not entry.refuted and now - entry.used <= LAPSE_S


def _retrieve(task: asyncio.Task[Finding]) -> None:
    """Look at the exception, which nobody else does when every caller has gone."""
    if not task.cancelled():
        task.exception()
