"""The Lease and the work under it: nothing works any more when the Lease is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.lease import Lease, LeaseLost
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.core.supply import SupplyJob
from edgemodel_operator.main import hold_while
from edgemodel_operator.reconcile.supplies import Supplies
from support.builders import make_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
JOB = SupplyJob(
    namespace="plant-a",
    model_name="line",
    uid="uid-of-line",
    model=make_model("1").build().model,
    image=ImageSpec(repository="registry.example.com/models/line"),
    variant="onnxruntime-cpu",
    runtime="registry.example.com/runtime@sha256:" + "c" * 64,
    digests=(),
)


@dataclass
class Scene:
    """Everything that ends, in the order in which it does."""

    lost: asyncio.Event = field(default_factory=asyncio.Event)
    ended: list[str] = field(default_factory=list)

    async def keep(self) -> None:
        try:
            await self.lost.wait()
        finally:
            self.ended.append("keeping")
        raise LeaseLost("it was lost")

    async def release(self) -> None:
        self.ended.append("release")

    async def works(self, name: str) -> None:
        """Work for ever; what is cancelled takes a moment to end."""
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            self.ended.append(name)

    def hold(self, *works: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(hold_while(cast("Lease", self), works, (Closing(self),)))


@dataclass
class Closing:
    scene: Scene

    async def close(self) -> None:
        await asyncio.sleep(0.01)
        self.scene.ended.append("background")


async def test_who_is_stopped_keeps_the_lease_until_nothing_works() -> None:
    scene = Scene()
    holding = scene.hold(scene.works("pass"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert scene.ended == ["pass", "background", "keeping", "release"]


async def test_who_loses_the_lease_stops_everything_and_says_so() -> None:
    scene = Scene()
    holding = scene.hold(scene.works("pass"))
    await asyncio.sleep(0)
    scene.lost.set()
    with pytest.raises(ExceptionGroup) as raised:
        await holding
    assert isinstance(raised.value.exceptions[0], LeaseLost)
    assert scene.ended == ["keeping", "pass", "background", "release"]


async def test_a_part_that_fails_ends_the_others_first() -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    scene = Scene()
    with pytest.raises(ExceptionGroup) as raised:
        await scene.hold(scene.works("pass"), fail())
    assert raised.value.subgroup(ZeroDivisionError) is not None
    assert scene.ended == ["pass", "background", "keeping", "release"]


@dataclass
class SlowToStop:
    """A cluster and a builder in one: every call waits, and takes a moment to end when it is cancelled."""

    scene: Scene

    def build_key(self, job: SupplyJob) -> str:
        return job.model.version

    def has_jobs(self, job: SupplyJob) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, None]]:
        return lambda *_: self.scene.works("supply")


@pytest.mark.parametrize("is_wanted", [True, False], ids=["wanted", "not wanted any more"])
async def test_closing_waits_for_images_that_are_being_made(*, is_wanted: bool) -> None:
    scene = Scene()
    slow: Any = SlowToStop(scene)
    supplies = Supplies(
        cast("Cluster", slow), slow, slow, Metrics(), clock=lambda: NOW, wake=lambda *_: None, concurrency=1
    )
    supplies.start(JOB)
    for _ in range(5):
        await asyncio.sleep(0)
    if not is_wanted:
        supplies.retain("plant-a", "line", ())
    await supplies.close()
    assert scene.ended == ["supply"]
