"""Requests to pods and Services through the API server, for clusters whose network is not this host's."""

from __future__ import annotations

import subprocess
import urllib.parse
from collections.abc import Mapping
from typing import Any

from typing_extensions import override

from cluster.base import Cluster, Node
from cluster.forwarder import free_port
from cluster.tools import tool
from cluster.transfer import request


def proxy_path(pods: Any, services: Any, host: str, port: int) -> str:
    """Return the API server's path to what has the address `host`, from the lists of all pods and Services.

    Raises ConnectionError when nothing has that address.
    """
    for kind, listed, address in (("services", services, "clusterIP"), ("pods", pods, "podIP")):
        for item in listed["items"]:
            part = item["spec"] if kind == "services" else item.get("status", {})
            if part.get(address) == host:
                meta = item["metadata"]
                return f"/api/v1/namespaces/{meta['namespace']}/{kind}/{meta['name']}:{port}/proxy"
    raise ConnectionError(f"no pod and no Service has the address {host}")


class ProxiedNode(Node):
    """A node whose `get` goes through the API server: the answer is the pod's, the way is not the node's."""

    def __init__(self, name: str, cluster: Cluster, base_url: str) -> None:
        super().__init__(name)
        self._cluster = cluster
        self._base_url = base_url
        self._known: dict[tuple[str, int], str] = {}

    @override
    def get(
        self,
        url: str,
        timeout: float = 5,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        parts = urllib.parse.urlsplit(url)
        target = (parts.hostname or "", parts.port or 80)
        if target not in self._known:
            pods = self._cluster.kubectl_json("get", "pods", "--all-namespaces")
            services = self._cluster.kubectl_json("get", "services", "--all-namespaces")
            self._known[target] = proxy_path(pods, services, *target)
        query = f"?{parts.query}" if parts.query else ""
        return request(f"{self._base_url}{self._known[target]}{parts.path}{query}", timeout, data, headers)


class ApiProxy:
    """`kubectl proxy` on a loopback port, for as long as this object is not closed."""

    def __init__(self, cluster: Cluster) -> None:
        self._port = free_port(0)
        argv = [str(tool("kubectl")), f"--kubeconfig={cluster.kubeconfig}", "proxy", f"--port={self._port}"]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        if self._process.stdout is None or not self._process.stdout.readline():
            self.close()
            raise ConnectionError("`kubectl proxy` does not start")

    @property
    def url(self) -> str:
        """The address of the API server, without any need for credentials."""
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """End the program."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
