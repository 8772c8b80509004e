"""What a pass reads of a cluster in which a kind is missing."""

from __future__ import annotations

import pytest

from edgemodel_operator.adapters.cluster import MODELS, Cluster
from edgemodel_operator.adapters.kube import KubeError
from support.kube_api import kube_api_server

CLASSES = f"{MODELS}/acceleratorclasses"
RANGES = "/apis/networking.k8s.io/v1/servicecidrs"


async def test_where_the_classes_are_gone_there_are_none_so_that_models_can_be_deleted() -> None:
    async with kube_api_server() as (server, api):
        server.refuse["GET", CLASSES] = 404
        assert await Cluster(api, "edgemodel-system", "test").list_classes() == {}


@pytest.mark.parametrize("status", [403, 500])
async def test_classes_that_cannot_be_read_are_no_empty_list(status: int) -> None:
    async with kube_api_server() as (server, api):
        server.refuse["GET", CLASSES] = status
        with pytest.raises(KubeError):
            await Cluster(api, "edgemodel-system", "test").list_classes()


@pytest.mark.parametrize("status", [403, 404])
async def test_a_cluster_without_ranges_of_services_tells_what_it_knows(status: int) -> None:
    async with kube_api_server() as (server, api):
        server.refuse["GET", RANGES] = status
        await server.put("/api/v1/nodes/edge-1", {"spec": {"podCIDRs": ["10.42.1.0/24"]}})
        await server.put(
            "/api/v1/namespaces/default/services/kubernetes", {"spec": {"clusterIP": "10.43.0.1"}}
        )
        found = await Cluster(api, "edgemodel-system", "test").list_networks()
    assert found == ("10.42.1.0/24", "10.43.0.1/32")
