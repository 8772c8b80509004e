"""The policies follow the cluster: list, watch, and a new list when the watch can say no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.policies import POLICIES_PATH, PolicyWatch
from edgemodel_operator.core.trust import Policy
from support.kube_api import KubeApiServer, kube_api_server

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"


def raw(name: str, **spec: Any) -> dict[str, Any]:
    authorities = [{"name": "plant", "keys": [{"data": PEM}]}]
    return {"metadata": {"name": name}, "spec": {"images": ["**"], "authorities": authorities} | spec}


def path(name: str) -> str:
    return f"{POLICIES_PATH}/{name}"


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as pair:
        yield pair


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another task brings about; the test's own limit ends it."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def named(watch: PolicyWatch) -> dict[str, str]:
    return {p.name: p.spec.mode for p in watch.policies if isinstance(p, Policy)}


async def test_policies_are_listed_then_followed(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    await server.put(path("one"), raw("one"))
    metrics = AdmissionMetrics()
    watch = PolicyWatch(api, metrics)
    assert not watch.synced
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    assert watch.synced
    assert named(watch) == {"one": "Enforce"}
    await server.put(path("two"), raw("two"))
    await server.put(path("one"), raw("one", mode="Audit"))
    await until(lambda: named(watch) == {"one": "Audit", "two": "Enforce"})
    await server.delete(path("one"))
    await until(lambda: named(watch) == {"two": "Enforce"})
    assert metrics.registry.get_sample_value("edgemodel_admission_policies") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_version_that_is_gone_leads_to_a_new_list(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    watch = PolicyWatch(api, AdmissionMetrics())
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    # A change that the watch never sees: it is in the list only.
    server.objects[path("hidden")] = raw("hidden") | {"metadata": {"name": "hidden", "resourceVersion": "1"}}
    await server.forget_history()
    await until(lambda: named(watch) == {"hidden": "Enforce"})
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_long_list_is_read_in_pages(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    server.page_size = 2
    for number in range(5):
        await server.put(path(f"p{number}"), raw(f"p{number}"))
    assert len((await api.list(POLICIES_PATH)).items) == 5


@pytest.mark.parametrize("status", [403, 404, 500, 503])
async def test_without_a_list_there_is_no_sync_and_the_failure_is_counted(
    kube: tuple[KubeApiServer, KubeApi], status: int
) -> None:
    server, api = kube
    server.refuse["GET", POLICIES_PATH] = status
    metrics = AdmissionMetrics()
    watch = PolicyWatch(api, metrics)
    task = asyncio.create_task(watch.run())
    failures = "edgemodel_admission_policy_watch_failures_total"
    await until(lambda: (metrics.registry.get_sample_value(failures) or 0) >= 1)
    assert not watch.synced
    server.refuse.clear()
    await until(lambda: watch.synced)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_an_outage_later_keeps_the_policies(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    await server.put(path("one"), raw("one"))
    metrics = AdmissionMetrics()
    watch = PolicyWatch(api, metrics)
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    server.refuse["GET", POLICIES_PATH] = 500
    await server.forget_history()
    failures = "edgemodel_admission_policy_watch_failures_total"
    await until(lambda: (metrics.registry.get_sample_value(failures) or 0) >= 1)
    assert named(watch) == {"one": "Enforce"}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_policy_that_is_not_understood_is_kept_and_counted(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    await server.put(path("newer"), raw("newer", threshold=2))
    metrics = AdmissionMetrics()
    watch = PolicyWatch(api, metrics)
    task = asyncio.create_task(watch.run())
    await server.wait_for_watcher()
    assert [policy.name for policy in watch.policies] == ["newer"]
    assert metrics.registry.get_sample_value("edgemodel_admission_broken_policies") == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
