"""The verdicts in their Secret: read at the start, shared between replicas, and not believed when damaged."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.admission import verdict_store
from edgemodel_operator.admission.metrics import AdmissionMetrics
from edgemodel_operator.admission.verdict_book import VerdictBook, group_of, image_hash, load_book
from edgemodel_operator.admission.verdict_store import FIELD, VerdictStore
from support.kube_api import KubeApiServer, kube_api_server

PATH = "/api/v1/namespaces/edgemodel-system/secrets/edgemodel-admission-verdicts"
NOW = 1_800_000_000.0
GROUP, OTHER_GROUP = group_of("demand"), group_of("another demand")
IMAGE, OTHER_IMAGE = image_hash("one"), image_hash("two")
FAILURES = "edgemodel_admission_verdict_store_failures_total"


@pytest.fixture
async def kube() -> AsyncIterator[tuple[KubeApiServer, KubeApi]]:
    async with kube_api_server() as (server, api):
        await server.put(PATH, {"type": "Opaque", "metadata": {"labels": {"app": "x"}}})
        yield server, api


def new_store(api: KubeApi, metrics: AdmissionMetrics | None = None) -> tuple[VerdictStore, VerdictBook]:
    book = VerdictBook()
    return VerdictStore(api, PATH, book, metrics or AdmissionMetrics(), lambda: NOW), book


def stored(server: KubeApiServer) -> VerdictBook:
    return load_book(base64.b64decode(server.objects[PATH]["data"][FIELD]))


def writes(server: KubeApiServer) -> int:
    return sum(method == "PUT" for method, _ in server.calls)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another task brings about."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_one_replica_verified_the_next_one_knows(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    store, book = new_store(api)
    await store.load()
    book.trust(GROUP, IMAGE, ("plant=sha256:aa",), NOW)
    await store.save()
    assert server.objects[PATH]["metadata"]["labels"] == {"app": "x"}
    assert server.objects[PATH]["type"] == "Opaque"
    again, known = new_store(api)
    await again.load()
    entry = known.look_up(GROUP, IMAGE)
    assert entry is not None
    assert entry.by == ("plant=sha256:aa",)


async def test_nothing_is_written_without_news(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    store, book = new_store(api)
    await store.load()
    await store.save()
    assert writes(server) == 0
    book.trust(GROUP, IMAGE, (), NOW)
    for _ in range(3):
        await store.save()
    book.use(GROUP, IMAGE, NOW + 60)
    await store.save()
    await store.save_at_end()
    assert writes(server) == 1


async def test_replicas_that_write_at_once_lose_nothing(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    stores = [new_store(api) for _ in range(4)]
    for number, (_, book) in enumerate(stores):
        book.trust(GROUP, image_hash(str(number)), (), NOW)
    await asyncio.gather(*(store.save() for store, _ in stores))
    assert len(stored(server)) == 4


async def test_a_refuted_verdict_does_not_come_back_from_another_replica(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    (store, book), (other_store, other_book) = new_store(api), new_store(api)
    for each in (book, other_book):
        each.trust(GROUP, IMAGE, (), NOW - 3600)
    await store.save()
    book.refute(GROUP, IMAGE, NOW)
    await store.save()
    other_book.changed = True
    await other_store.save()
    for each in (stored(server), other_book):
        entry = each.look_up(GROUP, IMAGE)
        assert entry is not None
        assert entry.refuted


async def test_verdicts_of_changed_policies_are_dropped(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    store, book = new_store(api)
    book.trust(GROUP, IMAGE, (), NOW)
    book.trust(OTHER_GROUP, IMAGE, (), NOW)
    await store.save(None)
    assert len(stored(server)) == 2
    await store.save({GROUP})
    assert len(stored(server)) == 1
    assert stored(server).look_up(GROUP, IMAGE) is not None


@pytest.mark.parametrize(
    "data",
    [
        {FIELD: "!!"},
        {FIELD: base64.b64encode(b"not json").decode()},
        {FIELD: base64.b64encode(b'{"version": 9, "groups": {}}').decode()},
        {FIELD: 7},
        {"other": "eA=="},
        None,
    ],
)
async def test_a_damaged_secret_means_no_verdicts_and_is_written_anew(
    kube: tuple[KubeApiServer, KubeApi], data: Any
) -> None:
    server, api = kube
    await server.put(PATH, {"data": data})
    store, book = new_store(api)
    await store.load()
    assert store.loaded
    assert len(book) == 0
    book.trust(GROUP, IMAGE, (), NOW)
    await store.save()
    assert len(stored(server)) == 1


async def test_without_the_secret_verdicts_stay_in_memory(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    await server.delete(PATH)
    metrics = AdmissionMetrics()
    store, book = new_store(api, metrics)
    await store.load()
    assert store.loaded
    book.trust(GROUP, IMAGE, (), NOW)
    await store.save()
    assert PATH not in server.objects
    assert book.look_up(GROUP, IMAGE) is not None
    assert metrics.registry.get_sample_value(FAILURES) == 2


async def test_without_the_right_to_read_the_program_goes_on_without(
    kube: tuple[KubeApiServer, KubeApi],
) -> None:
    server, api = kube
    server.refuse["GET", PATH] = 403
    metrics = AdmissionMetrics()
    store, book = new_store(api, metrics)
    await store.load()
    assert store.loaded
    assert len(book) == 0
    assert metrics.registry.get_sample_value(FAILURES) == 1


async def test_what_could_not_be_written_is_written_later(kube: tuple[KubeApiServer, KubeApi]) -> None:
    server, api = kube
    store, book = new_store(api)
    await store.load()
    book.trust(GROUP, IMAGE, (), NOW)
    server.refuse["PUT", PATH] = 500
    with pytest.raises(KubeError):
        await store.save()
    assert book.changed
    await store.save_at_end()  # says so, and raises nothing
    server.refuse.clear()
    await store.save_at_end()
    assert len(stored(server)) == 1


async def test_the_loop_reads_first_then_writes_what_is_new_and_takes_in_what_others_wrote(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_store, "WRITE_EVERY_S", 0.01)
    monkeypatch.setattr(verdict_store, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(verdict_store, "READ_EVERY_S", 0.05)
    server, api = kube
    server.refuse["GET", PATH] = 503
    metrics = AdmissionMetrics()
    store, book = new_store(api, metrics)

    async def everything() -> None:
        return None

    task = asyncio.create_task(store.run(everything))
    await until(lambda: (metrics.registry.get_sample_value(FAILURES) or 0) >= 1)
    assert not store.loaded
    server.refuse.clear()
    await until(lambda: store.loaded)
    book.trust(GROUP, IMAGE, (), NOW)
    await until(lambda: writes(server) == 1)
    other_store, other_book = new_store(api)
    other_book.trust(GROUP, OTHER_IMAGE, (), NOW)
    await other_store.save()
    await until(lambda: book.look_up(GROUP, OTHER_IMAGE) is not None)
    assert writes(server) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_a_stop_keeps_from_being_written_is_written_at_the_end(
    kube: tuple[KubeApiServer, KubeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, api = kube
    store, book = new_store(api)
    await store.load()
    book.trust(GROUP, IMAGE, (), NOW)

    def stopped(_: VerdictBook) -> VerdictBook:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(VerdictBook, "copy", stopped)
        with pytest.raises(asyncio.CancelledError):
            await store.save()
    assert book.changed
    await store.save_at_end()
    assert len(stored(server)) == 1
