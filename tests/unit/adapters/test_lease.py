"""The Lease in virtual time: who holds it stops before another may begin, whatever the API server does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.adapters.lease import (
    DURATION_SECONDS,
    RELEASE_SECONDS,
    RENEW_SECONDS,
    RETRY_SECONDS,
    Lease,
    LeaseLost,
)
from support.virtual_time import run_in_virtual_time, seconds

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CALL_SECONDS = 15.0
"""After this long without an answer a call of KubeApi fails."""


@dataclass
class Api:
    """One Lease in an API server that may take its time, `slow` seconds for each kind of call."""

    stored: dict[str, Any] | None = None
    slow: dict[str, float] = field(default_factory=dict)
    writes: int = 0

    async def _answer(self, kind: str) -> None:
        await asyncio.sleep(min(self.slow.get(kind, 0.0), CALL_SECONDS))
        if self.slow.get(kind, 0.0) >= CALL_SECONDS:
            raise KubeError(0, "no answer")

    async def get(self, path: str) -> dict[str, Any] | None:
        await self._answer("get")
        return copy.deepcopy(self.stored)

    async def create(self, path: str, body: dict[str, Any]) -> None:
        await self._answer("put")
        self._store(body)

    async def replace(self, path: str, body: dict[str, Any]) -> None:
        await self._answer("put")
        if self.stored is None or body["metadata"]["resourceVersion"] != str(self.writes):
            raise KubeError(409, "it has changed")
        self._store(body)

    def _store(self, body: dict[str, Any]) -> None:
        self.writes += 1
        self.stored = copy.deepcopy(body)
        self.stored["metadata"]["resourceVersion"] = str(self.writes)

    def lease(self, holder: str, clock: Callable[[], datetime] = lambda: NOW) -> Lease:
        return Lease(cast("KubeApi", self), "plant", "operator", holder, clock)


async def lost_after(lease: Lease) -> float:
    """Give the seconds from now until the Lease is lost."""
    begun = seconds()
    with pytest.raises(LeaseLost):
        await lease.keep()
    return seconds() - begun


@pytest.mark.parametrize(
    "slow",
    [{"get": 60.0, "put": 60.0}, {"get": 14.0, "put": 60.0}, {"put": 60.0}, {"get": 5.0, "put": 14.0}],
    ids=["silent", "slow, then silent", "writes hang", "all slow"],
)
def test_who_cannot_renew_stops_before_another_may_begin(slow: dict[str, float]) -> None:
    async def scene() -> float:
        api = Api()
        lease = api.lease("pod-1")
        await lease.acquire()
        api.slow = slow
        return await lost_after(lease)

    assert run_in_virtual_time(scene()) < DURATION_SECONDS


def test_who_sees_another_holder_stops_at_once() -> None:
    async def scene() -> float:
        api = Api()
        lease = api.lease("pod-1")
        await lease.acquire()
        assert api.stored is not None
        # By the other's clock its record is a year old: it counts all the same.
        api.stored["spec"] |= {"holderIdentity": "pod-2", "renewTime": "2025-01-01T00:00:00.000000Z"}
        return await lost_after(lease)

    assert run_in_virtual_time(scene()) == RENEW_SECONDS


def test_a_wall_clock_that_is_set_back_keeps_nobody_at_work() -> None:
    times = [NOW]

    async def scene() -> float:
        api = Api()
        lease = api.lease("pod-1", lambda: times[0])
        await lease.acquire()
        times[0] -= timedelta(minutes=30)
        api.slow = {"get": 60.0}
        return await lost_after(lease)

    assert run_in_virtual_time(scene()) < DURATION_SECONDS


def test_a_failure_that_passes_loses_nothing() -> None:
    async def scene() -> None:
        api = Api()
        lease = api.lease("pod-1")
        await lease.acquire()
        api.slow = {"get": 3.0, "put": 1.0}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease.keep(), 3600)

    run_in_virtual_time(scene())


@pytest.mark.parametrize("ahead", [-3600, 0, 3600], ids=["behind", "alike", "ahead"])
def test_a_silent_holder_is_followed_whatever_its_clock_said(ahead: int) -> None:
    async def scene() -> float:
        api = Api()
        await api.lease("pod-1", lambda: NOW + timedelta(seconds=ahead)).acquire()
        begun = seconds()
        await api.lease("pod-2").acquire()
        return seconds() - begun

    assert DURATION_SECONDS < run_in_virtual_time(scene()) <= DURATION_SECONDS + 2 * RETRY_SECONDS


def test_a_holder_that_renews_is_never_followed_whatever_its_clock_says() -> None:
    async def scene() -> None:
        api = Api()
        first = api.lease("pod-1", lambda: NOW - timedelta(days=1) + timedelta(seconds=seconds()))
        await first.acquire()
        keeping = asyncio.create_task(first.keep())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(api.lease("pod-2").acquire(), 3600)
        keeping.cancel()

    run_in_virtual_time(scene())


def test_giving_it_back_takes_no_longer_than_it_may() -> None:
    async def scene() -> tuple[float, Any]:
        api = Api()
        lease = api.lease("pod-1")
        await lease.acquire()
        api.slow = {"get": 14.0, "put": 14.0}
        begun = seconds()
        await lease.release()
        took = seconds() - begun
        api.slow = {}
        await lease.release()
        assert api.stored is not None
        return took, api.stored["spec"]["holderIdentity"]

    assert run_in_virtual_time(scene()) == (RELEASE_SECONDS, "")
