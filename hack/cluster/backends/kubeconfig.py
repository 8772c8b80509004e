"""The kubeconfig backend: any cluster, named by EDGE_KUBECONFIG and never by the user's default file.

Its capabilities are what the cluster shows. Nothing is cut or switched off there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from typing_extensions import override

from cluster.backends.api_proxy import ApiProxy, ProxiedNode
from cluster.base import Cluster, Node
from cluster.commands import ClusterError


def probed_capabilities(nodes: Any, *, has_registry: bool) -> frozenset[str]:
    """Return what a cluster can do, judged by the list of its nodes."""
    ready = [node for node in nodes["items"] if _is_ready(node)]
    found = {"api"}
    if ready:
        found |= {"control", "nodes", "pods"}
    if any(node["metadata"]["labels"].get("kubernetes.io/arch") == "arm64" for node in ready):
        found.add("arm64")
    if any(node["status"].get("allocatable", {}).get("example.com/npu", "0") != "0" for node in ready):
        found.add("npu")
    if ready and has_registry:
        found.add("registry")
    return frozenset(found)


def _is_ready(node: Any) -> bool:
    conditions = node["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


class KubeconfigCluster(Cluster):
    """Somebody's cluster; EDGE_REGISTRY and EDGE_REGISTRY_ON_HOST name its registry, if it has one."""

    def __init__(self, kubeconfig: Path) -> None:
        if not kubeconfig.is_file():
            raise ClusterError(f"EDGE_KUBECONFIG names {kubeconfig}, which is not a file")
        self.name = "kubeconfig"
        self.kubeconfig = kubeconfig
        self.registry = os.environ.get("EDGE_REGISTRY", "")
        self.registry_on_host = os.environ.get("EDGE_REGISTRY_ON_HOST", self.registry)
        listed = self.kubectl_json("get", "nodes")
        self.caps = probed_capabilities(listed, has_registry=bool(self.registry))
        self._names = tuple(sorted(node["metadata"]["name"] for node in listed["items"]))
        self._proxy: ApiProxy | None = None

    @override
    def nodes(self) -> tuple[str, ...]:
        return self._names

    @override
    def node(self, name: str) -> Node:
        if name not in self._names:
            raise ClusterError(f"there is no node {name!r}; there are {', '.join(self._names) or 'none'}")
        if self._proxy is None:
            self._proxy = ApiProxy(self)
        return ProxiedNode(name, self, self._proxy.url)

    @override
    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
