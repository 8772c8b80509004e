"""The networks of the cluster itself, in which no model source may lie: those of its Services and pods."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network
from typing import Any

Raw = Mapping[str, Any]


def cluster_networks(nodes: Iterable[Raw], service_ranges: Iterable[Raw], api: Raw | None) -> tuple[str, ...]:
    """Give the CIDRs that the objects of a cluster name, joined where they lie side by side.

    `nodes` and `service_ranges` are Nodes and ServiceCIDRs as the API gives them; `api` is the Service of the
    API server, whose own addresses count where a cluster (before Kubernetes 1.33) has no ServiceCIDRs. A
    network plugin that hands out addresses by itself may name none: then nothing is known of its pods.
    """
    v4: list[IPv4Network] = []
    v6: list[IPv6Network] = []
    for text in (*_of_nodes(nodes), *_of_services(service_ranges), *_of_service(api)):
        network = ipaddress.ip_network(text, strict=False)
        if isinstance(network, IPv4Network):
            v4.append(network)
        else:
            v6.append(network)
    return (*map(str, ipaddress.collapse_addresses(v4)), *map(str, ipaddress.collapse_addresses(v6)))


def _of_nodes(nodes: Iterable[Raw]) -> Iterator[str]:
    for node in nodes:
        spec = node.get("spec") or {}
        yield from spec.get("podCIDRs") or filter(None, (spec.get("podCIDR"),))


def _of_services(ranges: Iterable[Raw]) -> Iterator[str]:
    for one in ranges:
        yield from (one.get("spec") or {}).get("cidrs") or ()


def _of_service(service: Raw | None) -> Iterator[str]:
    spec = (service or {}).get("spec") or {}
    addresses = spec.get("clusterIPs") or filter(None, (spec.get("clusterIP"),))
    yield from (address for address in addresses if address != "None")
