"""Collections are followed by list and watch, and what was read stays while the API server is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from edgemodel_operator.adapters import kube as kube_module
from edgemodel_operator.adapters import watched
from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.adapters.watched import Watched
from support.kube_api import KubeApiServer, kube_api_server

PATH = "/apis/edgemodel.dev/v1alpha1/trustpolicies"


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as pair:
        yield pair


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def put(server: KubeApiServer, name: str, value: int = 0) -> None:
    await server.put(f"{PATH}/{name}", {"metadata": {"name": name}, "spec": {"value": value}})


def values(watch: Watched) -> dict[str, Any]:
    return {name: raw["spec"]["value"] for name, raw in watch.objects.items()}


async def test_objects_are_listed_then_followed_and_every_news_is_told(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    await put(server, "one")
    told: list[dict[str, Any]] = []
    watch = Watched(api, PATH, changed=lambda: told.append(values(watch)))
    assert not watch.synced
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    assert watch.synced
    await put(server, "two", 2)
    await put(server, "one", 1)
    await server.delete(f"{PATH}/two")
    await until(lambda: values(watch) == {"one": 1})
    assert told[0] == {"one": 0}
    assert told[-1] == {"one": 1}
    task.cancel()


async def test_what_was_read_stays_while_the_api_server_is_away(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "FIRST_RETRY_S", 0.01)
    server, api = kube
    await put(server, "one")
    failures: list[int] = []
    watch = Watched(api, PATH, failed=lambda: failures.append(1))
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    server.refuse[("GET", PATH)] = 503
    await server.forget_history()
    await until(lambda: len(failures) > 1)
    assert values(watch) == {"one": 0}
    assert watch.synced
    server.refuse.clear()
    await put(server, "one", 7)
    await until(lambda: values(watch) == {"one": 7})
    task.cancel()


async def test_a_first_list_that_fails_says_nothing(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    server.refuse[("GET", PATH)] = 403
    watch = Watched(api, PATH, changed=lambda: pytest.fail("there is no news"))
    with pytest.raises(KubeError, match="403"):
        await watch.round()
    assert not watch.synced


async def test_the_selector_goes_with_list_and_watch() -> None:
    queries: list[dict[str, str]] = []

    class Answers:
        """Stands for the connection: an empty list, and a watch that ends at once."""

        async def param_serialize(
            self, method: str, path: str, *, query_params: list[tuple[str, str]], **_: Any
        ) -> tuple[Any, ...]:
            queries.append(dict(query_params))
            raise OSError("enough")

    watch = Watched(KubeApi(Answers()), PATH, fields="metadata.name=x")
    with pytest.raises(KubeError):
        await watch.round()
    with pytest.raises(KubeError):
        await anext(KubeApi(Answers()).watch(PATH, "1", fields="metadata.name=x"))
    assert [query["fieldSelector"] for query in queries] == ["metadata.name=x"] * 2


async def test_a_watch_that_says_nothing_for_too_long_ends(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, api = kube
    await put(server, "a")
    listing = await api.list(PATH)
    monkeypatch.setattr(kube_module, "_WATCH_TIMEOUT", aiohttp.ClientTimeout(total=60, sock_read=0.05))
    async with asyncio.timeout(20):
        assert [event async for event in api.watch(PATH, listing.resource_version)] == []
