"""What all pods use: listed in pages, followed by a watch, and nothing of the pods is kept besides."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.adapters.running_images import LIST_AGAIN_SECONDS, RunningImages
from support.kube_api import KubeApiServer, kube_api_server

LARGE = 300_000
"""Bytes of an annotation: more than aiohttp reads as one line, less than the API server takes."""


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as pair:
        yield pair


def pod(name: str, image: str, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "plant-a", "name": name, **metadata},
        "spec": {"containers": [{"name": "main", "image": image}]},
        "status": {"phase": "Running"},
    }


async def put(server: KubeApiServer, name: str, image: str, **metadata: Any) -> None:
    await server.put(f"/api/v1/pods/{name}", pod(name, image, **metadata))


@contextlib.asynccontextmanager
async def following(images: RunningImages) -> AsyncIterator[None]:
    task = asyncio.create_task(images.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


def seen(images: RunningImages) -> dict[str, str]:
    return {use.pod: use.image for use in images.uses}


async def test_pods_are_listed_page_by_page_then_followed(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    server.page_size = 2
    for number in range(5):
        await put(server, f"pod-{number}", "one")
    images = RunningImages(api)
    changes: list[int] = []
    images.changed = lambda: changes.append(1)
    assert not images.synced
    async with following(images):
        await server.wait_for_watcher()
        assert images.synced
        assert len(images.uses) == 5
        assert server.calls.count(("GET", "/api/v1/pods")) == 4  # three pages and the watch
        await put(server, "pod-0", "two")
        await server.delete("/api/v1/pods/pod-1")
        await put(server, "new", "three")
        await until(lambda: seen(images).get("new") == "three")
    assert seen(images) == {"pod-0": "two", "pod-2": "one", "pod-3": "one", "pod-4": "one", "new": "three"}
    assert len(changes) == 4


async def test_what_says_nothing_about_images_wakes_nobody(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    await put(server, "pod-0", "one")
    images = RunningImages(api)
    changes: list[int] = []
    async with following(images):
        await server.wait_for_watcher()
        images.changed = lambda: changes.append(1)
        await put(server, "pod-0", "one", labels={"a": "b"})
        await put(server, "marker", "one")
        await until(lambda: "marker" in seen(images))
    assert len(changes) == 1


async def test_a_large_pod_is_followed_as_well(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    images = RunningImages(api)
    async with following(images):
        await server.wait_for_watcher()
        await put(server, "large", "one", annotations={"a": "x" * LARGE})
        await until(lambda: "large" in seen(images))
    assert server.calls.count(("GET", "/api/v1/pods")) == 2


async def test_a_watch_that_is_too_old_leads_to_a_new_list(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemodel_operator.adapters.running_images.FIRST_RETRY_SECONDS", 0.0)
    server, api = kube
    await put(server, "pod-0", "one")
    images = RunningImages(api)
    async with following(images):
        await server.wait_for_watcher()
        await server.forget_history()
        await put(server, "pod-1", "two")
        await until(lambda: "pod-1" in seen(images))
    assert seen(images) == {"pod-0": "one", "pod-1": "two"}


async def test_what_was_read_stays_while_the_api_server_is_away(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    await put(server, "pod-0", "one")
    now = 0.0
    images = RunningImages(api, lambda: now)
    task = asyncio.create_task(images.round())
    await server.wait_for_watcher()
    task.cancel()
    server.refuse["GET", "/api/v1/pods"] = 503
    now = LIST_AGAIN_SECONDS
    with pytest.raises(KubeError):
        await images.round()
    assert images.synced
    assert seen(images) == {"pod-0": "one"}
