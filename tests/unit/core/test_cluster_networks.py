"""Which networks are the cluster's own, from what the API says."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.core.cluster_networks import cluster_networks

API = {"spec": {"clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1", "fd00:43::1"]}}


def node(*networks: str) -> dict[str, Any]:
    return {"spec": {"podCIDR": networks[0], "podCIDRs": list(networks)}}


def test_ranges_of_services_and_pods_are_joined_where_they_touch() -> None:
    nodes = [node("10.42.0.0/24", "fd00:42::/64"), node("10.42.1.0/24"), node("10.42.7.0/24")]
    ranges = [{"spec": {"cidrs": ["10.43.0.0/16", "fd00:43::/112"]}}]
    assert cluster_networks(nodes, ranges, API) == (
        "10.42.0.0/23",
        "10.42.7.0/24",
        "10.43.0.0/16",
        "fd00:42::/64",
        "fd00:43::/112",
    )


def test_without_ranges_the_addresses_of_the_api_server_count() -> None:
    assert cluster_networks([], [], API) == ("10.43.0.1/32", "fd00:43::1/128")
    assert cluster_networks([], [], {"spec": {"clusterIP": "10.43.0.1"}}) == ("10.43.0.1/32",)


@pytest.mark.parametrize("api", [None, {}, {"spec": {"clusterIP": "None"}}])
def test_what_the_api_does_not_say_is_not_made_up(api: dict[str, Any] | None) -> None:
    assert cluster_networks([{}, {"spec": {}}], [{}], api) == ()


def test_a_node_of_an_old_api_names_one_range() -> None:
    assert cluster_networks([{"spec": {"podCIDR": "10.42.3.0/24"}}], [], None) == ("10.42.3.0/24",)
