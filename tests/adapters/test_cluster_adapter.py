"""The Lease and the writes to nodes and children, against a real API server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from cluster.base import Cluster as TestCluster
from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.kube import KubeApi, KubeError, connect
from edgemodel_operator.adapters.lease import Lease, LeaseLost
from edgemodel_operator.api.names import LABEL_MODEL

pytestmark = pytest.mark.needs("api")


@pytest.fixture
async def kube(edge_cluster: TestCluster) -> AsyncIterator[KubeApi]:
    async with connect(str(edge_cluster.kubeconfig)) as api:
        yield api


@pytest.fixture
def namespace(edge_cluster: TestCluster) -> Iterator[str]:
    name = f"adapter-{secrets.token_hex(4)}"
    edge_cluster.kubectl("create", "namespace", name)
    yield name
    edge_cluster.kubectl("delete", "namespace", name, "--wait=false")


def now() -> datetime:
    return datetime.now(UTC)


async def test_one_instance_holds_the_lease_and_the_next_gets_it_when_it_is_given_back(
    kube: KubeApi, namespace: str
) -> None:
    first = Lease(kube, namespace, "operator", "pod-1", now)
    second = Lease(kube, namespace, "operator", "pod-2", now)
    await first.acquire()
    assert await second._take() is False
    assert await first._take() is True
    await first.release()
    assert await second._take() is True
    assert await first._take() is False
    with pytest.raises(LeaseLost):
        await asyncio.wait_for(first.keep(), 30)


async def test_the_cluster_tells_the_networks_of_its_services_and_pods(kube: KubeApi, namespace: str) -> None:
    name = f"node-{namespace}"
    ranges = {"podCIDR": "10.199.241.0/24", "podCIDRs": ["10.199.241.0/24"]}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": ranges}
    await kube.create("/api/v1/nodes", node)
    try:
        found = [ip_network(text) for text in await Cluster(kube, namespace, "test").list_networks()]
    finally:
        await kube.delete(f"/api/v1/nodes/{name}")
    service = await kube.get("/api/v1/namespaces/default/services/kubernetes")
    assert service is not None
    address = ip_address(service["spec"]["clusterIP"])
    # The whole range of the Services, not the one address alone.
    assert any(address in network and network.num_addresses > 1 for network in found)
    assert ip_network("10.199.241.0/24") in found


async def test_label_changes_of_one_node_that_come_together_are_one_write(
    kube: KubeApi, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, merge = 0, kube.merge

    async def counted(*arguments: Any, **options: Any) -> dict[str, Any]:
        nonlocal writes
        writes += 1
        return await merge(*arguments, **options)

    monkeypatch.setattr(kube, "merge", counted)
    name = f"node-{namespace}"
    node: dict[str, Any] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    created = await kube.create("/api/v1/nodes", node)
    try:
        cluster = Cluster(kube, namespace, "test")
        changes = [{f"example.com/{number}": str(number)} for number in range(10)]
        await asyncio.gather(*(cluster.label_node(name, change) for change in changes))
        seen = await kube.get(f"/api/v1/nodes/{name}")
        assert seen is not None
        assert {key for key in seen["metadata"]["labels"] if key.startswith("example.com/")} == {
            key for change in changes for key in change
        }
        assert writes == 1

        await cluster.label_node(name, {"example.com/1": None})
        after = await kube.get(f"/api/v1/nodes/{name}")
        assert after is not None
        assert "example.com/1" not in after["metadata"]["labels"]
        assert after["metadata"]["uid"] == created["metadata"]["uid"]
    finally:
        await kube.delete(f"/api/v1/nodes/{name}")


async def test_a_label_that_cannot_be_written_is_an_error_for_everybody_who_waits(
    kube: KubeApi, namespace: str
) -> None:
    cluster = Cluster(kube, namespace, "test")
    results = await asyncio.gather(
        cluster.label_node("no-such-node", {"example.com/a": "1"}),
        cluster.label_node("no-such-node", {"example.com/b": "1"}),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [KubeError, KubeError]


async def test_applying_twice_writes_once_and_takes_back_what_others_changed(
    kube: KubeApi, namespace: str, edge_cluster: TestCluster
) -> None:
    cluster = Cluster(kube, namespace, "test")
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "copy", "namespace": namespace, "labels": {LABEL_MODEL: "abc"}},
        "data": {"golden.json": "{}"},
    }
    await cluster.apply(document)
    (first,) = await cluster.list_children("ConfigMap", namespace, "abc")
    await cluster.apply(document)
    (second,) = await cluster.list_children("ConfigMap", namespace, "abc")
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]

    edge_cluster.kubectl(
        "patch",
        "configmap",
        "copy",
        "--namespace",
        namespace,
        "--patch",
        '{"data":{"golden.json":"changed"}}',
    )
    await cluster.apply(document)
    assert await cluster.get_config_map(namespace, "copy") == {"golden.json": "{}"}

    await cluster.delete("ConfigMap", namespace, "copy")
    await cluster.delete("ConfigMap", namespace, "copy")
    assert await cluster.get_config_map(namespace, "copy") is None
