"""The kind backend: nodes are containers of the Docker daemon, described in kind-config.yaml.

Nodes are called edge-a, edge-b and edge-c here as everywhere; in Kubernetes they have the names that kind
gives them (`Node.name`). edge-a carries the control plane, so only the others can be cut off or switched off.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from cluster.backends.api_proxy import ApiProxy, ProxiedNode
from cluster.base import Cluster, Node
from cluster.commands import ClusterError, run, try_run
from cluster.places import CHECKOUT, cache_folder
from cluster.progress import Progress
from cluster.tools import tool

CLUSTER = "edgemodel"
_CONTAINERS = {
    "edge-a": f"{CLUSTER}-control-plane",
    "edge-b": f"{CLUSTER}-worker",
    "edge-c": f"{CLUSTER}-worker2",
}
_REGISTRY = "edgemodel-registry"
_REGISTRY_PORT = 35001
_NETWORK = "kind"


def reason_against() -> str:
    """Return why this backend cannot be used here, or the empty string when it can."""
    if shutil.which("kind") is None:
        return "there is no `kind` on the PATH"
    if shutil.which("docker") is None or not try_run(["docker", "info"], timeout_s=10):
        return "`docker info` does not answer"
    return ""


class KindNode(ProxiedNode):
    """A node that is a container; its faults are done to the container."""

    def __init__(self, container: str, cluster: Cluster, base_url: str) -> None:
        super().__init__(container, cluster, base_url)
        self._address = ""

    @override
    def cut(self) -> None:
        self._refuse_control_plane()
        template = f"{{{{(index .NetworkSettings.Networks {_NETWORK!r}).IPAddress}}}}".replace("'", '"')
        self._address = run(["docker", "inspect", "--format", template, self.name]).strip()
        run(["docker", "network", "disconnect", _NETWORK, self.name])

    @override
    def restore(self) -> None:
        if self._address:
            # The same address as before: the API server knows the node by it.
            run(["docker", "network", "connect", "--ip", self._address, _NETWORK, self.name])
            self._address = ""

    @override
    def power_off(self) -> None:
        self._refuse_control_plane()
        run(["docker", "kill", self.name])

    @override
    def power_on(self) -> None:
        run(["docker", "start", self.name])

    def heal(self) -> None:
        """Bring the node back to how it was started."""
        self.restore()
        self.power_on()

    def _refuse_control_plane(self) -> None:
        if self.name == _CONTAINERS["edge-a"]:
            raise ClusterError("with kind, edge-a carries the control plane: cut edge-b or edge-c")


class KindCluster(Cluster):
    """A kind cluster named `edgemodel`, created if it does not exist, and then deleted again at the end."""

    caps = frozenset({"api", "control", "nodes", "pods", "images", "cut", "power", "registry", "npu"})

    def __init__(self, progress: Progress) -> None:
        self.name = "kind"
        self.kubeconfig = cache_folder() / "kind.kubeconfig"
        self.registry, self.registry_on_host = f"{_REGISTRY}:5000", f"127.0.0.1:{_REGISTRY_PORT}"
        self.kubeconfig.parent.mkdir(parents=True, exist_ok=True)
        self._started_here = CLUSTER not in run(["kind", "get", "clusters"]).split()
        if self._started_here:
            with progress.step("creating the kind cluster"):
                self._create()
        run(["kind", "export", "kubeconfig", "--name", CLUSTER, "--kubeconfig", str(self.kubeconfig)])
        self._proxy = ApiProxy(self)
        self._nodes = {
            name: KindNode(container, self, self._proxy.url) for name, container in _CONTAINERS.items()
        }

    @override
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    @override
    def node(self, name: str) -> Node:
        if name not in self._nodes:
            raise ClusterError(f"there is no node {name!r}; there are {', '.join(self._nodes)}")
        return self._nodes[name]

    @override
    def load_image(self, tar: Path, nodes: Sequence[str]) -> None:
        containers = ",".join(self.node(name).name for name in nodes)
        run(
            ["kind", "load", "image-archive", str(tar), "--name", CLUSTER, "--nodes", containers],
            timeout_s=300,
        )

    @override
    def close(self) -> None:
        for node in self._nodes.values():
            node.heal()
        self._proxy.close()
        if self._started_here and not self.kept:
            delete()

    def _create(self) -> None:
        delete()
        config = CHECKOUT / "kind-config.yaml"
        create = ["kind", "create", "cluster", "--name", CLUSTER, "--config", str(config), "--wait", "180s"]
        run([*create, "--kubeconfig", str(self.kubeconfig)], timeout_s=900)
        publish = f"127.0.0.1:{_REGISTRY_PORT}:5000"
        delete_enabled = "REGISTRY_STORAGE_DELETE_ENABLED=true"
        registry = ["docker", "run", "--detach", "--name", _REGISTRY, "--network", _NETWORK]
        run([*registry, "--publish", publish, "--env", delete_enabled, "registry:2"], timeout_s=300)
        for container in _CONTAINERS.values():
            self._trust_registry(container)
        plugin, target = str(tool("device-plugin")), _CONTAINERS["edge-b"]
        run(["docker", "cp", plugin, f"{target}:/usr/local/bin/device-plugin"])
        run(["docker", "exec", "--detach", target, "/usr/local/bin/device-plugin"])

    def _trust_registry(self, container: str) -> None:
        """Tell a node's containerd that the registry speaks plain HTTP."""
        folder = f"/etc/containerd/certs.d/{self.registry}"
        run(["docker", "exec", container, "mkdir", "-p", folder])
        hosts = f'[host."http://{self.registry}"]\n'.encode()
        run(["docker", "exec", "--interactive", container, "tee", f"{folder}/hosts.toml"], stdin=hosts)


def delete() -> None:
    """Delete the kind cluster and its registry, as far as they exist."""
    run(["kind", "delete", "cluster", "--name", CLUSTER], timeout_s=300)
    try_run(["docker", "rm", "--force", _REGISTRY])
