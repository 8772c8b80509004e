"""Removing images in the background: bounded, withdrawn in time, tried again, never twice for nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus, VariantImage
from edgemodel_operator.core.garbage import RemovalError
from edgemodel_operator.core.world import Model
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.reconcile.garbage import LONGEST_RETRY, ImageSweeper
from support.builders import make_model

IMAGES = tuple(
    VariantImage(
        variant="cpu", build_key=f"key-{number}", image=f"registry.example.com/line@sha256:{number:064}"
    )
    for number in range(4)
)
FORBIDDEN = RemovalError("DeletionForbidden", "it forbids to delete", is_final=True)
UNREACHABLE = RemovalError("RegistryUnavailable", "no answer")
ODD = RemovalError("RegistryUnavailable", "it has too many referrers", stops=False)


@dataclass
class FakeRemover:
    """Removes at once, or fails; `hold` lets it wait in the middle of an image."""

    failures: dict[str, RemovalError] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    hold: asyncio.Event | None = None

    async def remove(self, image: VariantImage, credentials: Mapping[str, Credential]) -> bool:
        self.asked.append(image.image)
        self.credentials = credentials
        if self.hold is not None:
            await self.hold.wait()
        if image.image in self.failures:
            raise self.failures[image.image]
        return image.image not in self.foreign


class FakeCluster(Cluster):
    """Has Secrets, or does not answer."""

    def __init__(self, secrets: dict[str, dict[str, bytes]]) -> None:
        self.secrets = secrets
        self.is_down = False

    @override
    async def get_secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        if self.is_down:
            raise KubeError(503, "the API server is away")
        return self.secrets.get(name)


@dataclass
class Bench:
    """A sweeper, and everything around it."""

    remover: FakeRemover = field(default_factory=FakeRemover)
    cluster: FakeCluster = field(default_factory=lambda: FakeCluster({}))
    metrics: Metrics = field(default_factory=Metrics)
    now: datetime = datetime(2026, 11, 21, tzinfo=UTC)
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.sweeper = ImageSweeper(
            self.cluster,
            self.remover,
            self.metrics,
            clock=lambda: self.now,
            wake=lambda *_: self.woken.set(),
        )

    async def want(self, model: Model, images: tuple[VariantImage, ...]) -> None:
        """Ask, and wait for the end of what that starts."""
        self.woken.clear()
        self.sweeper.want(model, images)
        await asyncio.wait_for(self.woken.wait(), timeout=10)

    def count(self, result: str) -> float:
        value: float = self.metrics.image_removals.labels(result)._value.get()
        return value


@pytest.fixture
def bench() -> Bench:
    return Bench()


def model(*recorded: VariantImage, secret: str = "", generation: int = 1) -> Model:
    builder = make_model()
    if secret:
        builder = builder.with_("image.pushSecret", {"name": secret})
    status = EdgeModelStatus(retained_images=recorded or IMAGES)
    return Model("plant", "line", "uid", generation, builder.build(), status)


async def test_what_is_removed_is_told_until_the_status_has_forgotten_it(bench: Bench) -> None:
    await bench.want(model(), IMAGES[2:])
    assert bench.sweeper.state(model()).gone == {item.image for item in IMAGES[2:]}
    assert bench.sweeper.state(model(*IMAGES[:3])).gone == {IMAGES[2].image}
    assert bench.sweeper.state(model()).gone == {IMAGES[2].image}
    assert bench.count("removed") == 2


async def test_nothing_is_started_for_nothing(bench: Bench) -> None:
    bench.sweeper.want(model(), ())
    assert bench.sweeper.state(model()).gone == frozenset()
    assert not bench.remover.asked


async def test_what_is_not_ours_is_let_go(bench: Bench) -> None:
    bench.remover.foreign.add(IMAGES[3].image)
    await bench.want(model(), IMAGES[3:])
    assert bench.sweeper.state(model()).gone == {IMAGES[3].image}
    assert bench.count("left") == 1


async def test_an_image_that_is_needed_again_is_spared_until_its_turn(bench: Bench) -> None:
    bench.remover.hold = asyncio.Event()
    bench.sweeper.want(model(), IMAGES[1:])
    await asyncio.sleep(0)
    bench.sweeper.want(model(), (IMAGES[1], IMAGES[3]))
    bench.remover.hold.set()
    await asyncio.wait_for(bench.woken.wait(), timeout=10)
    assert bench.remover.asked == [IMAGES[1].image, IMAGES[3].image]


async def test_a_registry_without_an_answer_is_asked_again_after_a_growing_pause(bench: Bench) -> None:
    bench.remover.failures = {item.image: UNREACHABLE for item in IMAGES}
    await bench.want(model(), IMAGES[2:])
    for minutes in (
        10 / 60,
        20 / 60,
        40 / 60,
        80 / 60,
        160 / 60,
        320 / 60,
        640 / 60,
        1280 / 60,
        2560 / 60,
        60,
        60,
    ):
        bench.now += timedelta(minutes=minutes) - timedelta(seconds=1)
        bench.sweeper.want(model(), IMAGES[2:])
        await asyncio.sleep(0)
        before = len(bench.remover.asked)
        bench.now += timedelta(seconds=1)
        await bench.want(model(), IMAGES[2:])
        assert len(bench.remover.asked) == before + 1
    assert bench.remover.asked == [IMAGES[2].image] * 12
    assert bench.sweeper.state(model()).reason == "RegistryUnavailable"


async def test_one_odd_image_does_not_hold_up_the_others(bench: Bench) -> None:
    bench.remover.failures = {IMAGES[1].image: ODD}
    await bench.want(model(), IMAGES[1:])
    state = bench.sweeper.state(model())
    assert state.gone == {IMAGES[2].image, IMAGES[3].image}
    assert state.message == str(ODD)


async def test_a_registry_that_forbids_is_not_asked_for_every_image(bench: Bench) -> None:
    bench.remover.failures = {item.image: FORBIDDEN for item in IMAGES}
    await bench.want(model(), IMAGES[1:])
    assert bench.sweeper.state(model()).is_final
    bench.sweeper.want(model(), IMAGES[1:])
    await asyncio.sleep(0)
    assert bench.remover.asked == [IMAGES[1].image]
    await bench.want(model(generation=2), IMAGES[1:])
    assert len(bench.remover.asked) == 2


async def test_success_clears_the_trouble(bench: Bench) -> None:
    bench.remover.failures = {IMAGES[3].image: FORBIDDEN}
    await bench.want(model(), IMAGES[3:])
    bench.remover.failures.clear()
    bench.now += LONGEST_RETRY
    await bench.want(model(), IMAGES[3:])
    state = bench.sweeper.state(model())
    assert (state.reason, state.failures, state.gone) == ("", 0, {IMAGES[3].image})


async def test_trouble_is_over_when_nothing_is_left_to_remove(bench: Bench) -> None:
    bench.remover.failures = {IMAGES[3].image: FORBIDDEN}
    await bench.want(model(), IMAGES[3:])
    bench.sweeper.want(model(), ())
    assert bench.sweeper.state(model()).reason == ""


async def test_it_logs_in_with_the_secret_that_pushes(bench: Bench) -> None:
    config = b'{"auths":{"registry.example.com":{"username":"robot","password":"s3cret"}}}'
    bench.cluster.secrets["push"] = {".dockerconfigjson": config}
    await bench.want(model(secret="push"), IMAGES[3:])
    assert bench.remover.credentials["registry.example.com"].username == "robot"


async def test_a_missing_secret_needs_a_person(bench: Bench) -> None:
    await bench.want(model(secret="missing"), IMAGES[3:])
    state = bench.sweeper.state(model())
    assert (state.reason, state.is_final) == ("SecretNotFound", True)
    assert not bench.remover.asked


async def test_an_api_server_without_an_answer_is_waited_for(bench: Bench) -> None:
    bench.cluster.is_down = True
    await bench.want(model(secret="push"), IMAGES[3:])
    assert not bench.sweeper.state(model()).is_final


async def test_a_bug_is_a_failure_like_others(bench: Bench) -> None:
    async def broken(*_: object) -> bool:
        raise ZeroDivisionError

    bench.remover.remove = broken  # type: ignore[method-assign,assignment]
    await bench.want(model(), IMAGES[3:])
    assert bench.sweeper.state(model()).reason == "InternalError"


async def test_a_model_that_is_gone_is_forgotten_in_the_middle(bench: Bench) -> None:
    bench.remover.hold = asyncio.Event()
    bench.sweeper.want(model(), IMAGES[1:])
    await asyncio.sleep(0)
    bench.sweeper.forget("plant", "line")
    bench.remover.hold.set()
    await asyncio.sleep(0)
    assert bench.sweeper.state(replace(model())).gone == frozenset()


@pytest.mark.parametrize("is_there", [True, False], ids=["model", "model that is gone"])
async def test_closing_waits_for_what_is_under_way(bench: Bench, *, is_there: bool) -> None:
    ended: list[bool] = []

    async def remove(*_: object) -> bool:
        try:
            return await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(True)

    bench.remover.remove = remove  # type: ignore[method-assign]
    bench.sweeper.want(model(), IMAGES[1:])
    for _ in range(3):
        await asyncio.sleep(0)
    if not is_there:
        bench.sweeper.forget("plant", "line")
    await bench.sweeper.close()
    assert ended == [True]
