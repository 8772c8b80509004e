"""The verdict book in a Secret, so that trust survives the end of all replicas.

After a power cut the nodes, the replicas and the registry start in any order, and the registry may be far
away: what was verified before must be admitted all the same. All replicas share one Secret. Each reads it
when it starts, and writes its own news into it, merged with what the others wrote.

It is a Secret although nothing in it is secret: whoever can write it decides what is trusted. The right to
write ConfigMaps is given away freely, that for Secrets is not, and an API server may encrypt them. The chart
makes it empty and lets only the webhook's account read and update it, by name; that account cannot create
Secrets, which can be made into a right to read any.

A disk at the edge is flash: the Secret is written when a verdict is new, at most every WRITE_EVERY_S, and for
mere use once a day.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.verdict_book import DamagedBook, VerdictBook, load_book

FIELD = "verdicts.json"
WRITE_EVERY_S = 5.0
READ_EVERY_S = 600.0
"""How often the news of other replicas are taken in when there are none of our own."""
END_SECONDS = 5.0
FIRST_RETRY_S = 0.5
ATTEMPTS = 5

_log = logging.getLogger(__name__)


class VerdictStore:
    """Keeps a book and its Secret alike. `loaded`: the Secret was read, or is seen to be missing."""

    def __init__(
        self,
        api: KubeApi,
        path: str,
        book: VerdictBook,
        metrics: AdmissionMetrics,
        now: Callable[[], float],
    ) -> None:
        """`path` is that of the Secret, `now` gives Unix time."""
        self.loaded = False
        self._api = api
        self._path = path
        self._book = book
        self._metrics = metrics
        self._now = now
        self._complained = False
        self._seen = ""

    async def run(self, live_groups: Callable[[], Awaitable[Collection[str] | None]]) -> None:
        """Read, then write and read again whenever it is due, until canceled; failures are tried again.

        `live_groups` tells which groups still have a use, or None while that is not certain.
        """
        pause, until_read = FIRST_RETRY_S, 0.0
        while True:
            try:
                if not self.loaded:
                    await self.load()
                elif self._book.changed or until_read <= 0:
                    await self.save(await live_groups())
                    until_read = READ_EVERY_S
                pause = WRITE_EVERY_S
            except KubeError as error:
                self._fail(error)
                pause = min(pause * 2, READ_EVERY_S)
            await asyncio.sleep(pause)
            until_read -= pause

    async def load(self) -> None:
        """Take in what the Secret holds. Raises KubeError.

        A right that is missing will not come by waiting: the program goes on without what it might know.
        """
        try:
            secret = await self._api.get(self._path)
        except KubeError as error:
            if error.status != 403:
                raise
            self._fail(error)
        else:
            await self._take_in(secret)
        self.loaded = True

    async def save(self, groups: Collection[str] | None = None) -> None:
        """Make the Secret hold what this replica and the others know, of `groups` only. Raises KubeError.

        Of two replicas that write at once one wins, and the other merges what it finds.
        """
        for _ in range(ATTEMPTS):
            secret = await self._api.get(self._path)
            before = await self._take_in(secret)
            if groups is not None:
                self._book.keep_only(groups)
            if await self._write(secret, before):
                return
        raise KubeError(409, "the Secret with the verdicts changes all the time")

    async def save_at_end(self) -> None:
        """Write what is new; never raises."""
        if not (self.loaded and self._book.changed):
            return
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.save()
        except KubeError as error:
            self._fail(error)
        except TimeoutError:
            _log.warning("The last verdicts were not stored in time")

    async def _take_in(self, secret: dict[str, Any] | None) -> str | None:
        """Merge what is stored; gives it as it stands, or None when nothing usable is there."""
        if secret is None:
            self._complain("It does not exist: verdicts are in memory only, and end with this replica")
            return None
        encoded = (secret.get("data") or {}).get(FIELD)
        if not encoded or encoded == self._seen:
            return encoded or None
        try:
            body = base64.b64decode(encoded, validate=True)
            stored = await asyncio.to_thread(load_book, body)
        except (DamagedBook, binascii.Error, TypeError) as error:
            self._complain(f"What it holds is not believed and is written anew: {error}")
            return None
        self._book.merge(stored, self._now())
        self._seen = encoded
        self._complained = False
        self._metrics.stored_verdicts.set(len(self._book))
        return str(encoded)

    async def _write(self, secret: dict[str, Any] | None, before: str | None) -> bool:
        """Write where that is of use; false when somebody else did since `secret` was read."""
        self._book.changed = False
        settled = False
        try:
            # In a thread: a full book takes longer than a review may wait.
            body = await asyncio.to_thread(self._book.copy().dump)
            after = base64.b64encode(body).decode()
            if secret is None or after == before or (before is None and not self._book):
                settled = True
            else:
                settled = await self._replace(secret, after)
        finally:
            # Also when canceled: what was not written has still to be.
            self._book.changed |= not settled
        return settled

    async def _replace(self, secret: dict[str, Any], encoded: str) -> bool:
        try:
            await self._api.replace(self._path, {**secret, "data": {FIELD: encoded}})
        except KubeError as error:
            if error.status == 409:
                return False
            raise
        self._seen = encoded
        self._metrics.stored_verdicts.set(len(self._book))
        return True

    def _complain(self, what: str) -> None:
        self._metrics.verdict_store_failures.inc()
        if not self._complained:
            _log.warning("The Secret with the verdicts (%s): %s", self._path, what)
        self._complained = True

    def _fail(self, error: KubeError) -> None:
        self._metrics.verdict_store_failures.inc()
        _log.warning("The verdicts could not be stored or read: %s", error)
