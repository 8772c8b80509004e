"""The local backend: a real control plane, kubelets and containerd in namespaces of this machine."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from typing_extensions import override

from cluster import faults, local
from cluster.base import Cluster, Node
from cluster.commands import ClusterError
from cluster.namespaces import CONTROL_PLANE, NetworkThreads, run_inside
from cluster.nodes import import_image, start_node, stop_node
from cluster.ownership import Owner, Use
from cluster.places import CHECKOUT, CONTROL_PLANE_ADDRESS, KUBECONFIG, NODES, REGISTRY, NodePlan
from cluster.progress import Progress
from cluster.transfer import FileServer, Handler, Server, request

_WITHOUT_NODES = frozenset({"api", "control", "registry"})
_WITH_ONE_NODE = _WITHOUT_NODES | {"nodes", "pods", "images", "cut", "power"}
_WITH_ALL_NODES = _WITH_ONE_NODE | {"arm64", "npu"}


def reason_against() -> str:
    """Return why this backend cannot be used here, or the empty string when it can."""
    if sys.platform != "linux":
        return "it needs Linux"
    if os.geteuid() != 0:
        return "it needs root"
    if (
        shutil.which("go") is None
        and not Path("/usr/local/go/bin/go").exists()
        and shutil.which("uv") is None
    ):
        return "it needs Go, or uv to install it"
    return ""


class LocalNode(Node):
    """A node of the local cluster."""

    def __init__(self, plan: NodePlan) -> None:
        super().__init__(plan.name)
        self._plan = plan
        self._threads = NetworkThreads(plan.name)

    @override
    def get(
        self,
        url: str,
        timeout: float = 5,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        return self._threads.pool().submit(request, url, timeout, data, headers).result()

    @override
    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> str:
        return run_inside(self.name, list(argv), timeout_s=timeout_s)

    @override
    def cut(self) -> None:
        faults.cut(self._plan)

    @override
    def restore(self) -> None:
        faults.mend(self._plan)

    @override
    def power_off(self) -> None:
        self._threads.close()
        stop_node(self._plan)

    @override
    def power_on(self) -> None:
        start_node(self._plan)

    @override
    def throttle(self, kbit: int) -> None:
        faults.throttle(self._plan, kbit)

    @override
    def loss(self, p: float) -> None:
        faults.lose(self._plan, p)

    def heal(self) -> None:
        """Bring the node back to how it was started, whatever was done to it."""
        if not local.node_is_on(self._plan):
            self.power_on()
        self.restore()

    def await_ready(self) -> None:
        """Wait until the API server calls the node Ready."""
        local.await_node(self._plan)

    def close(self) -> None:
        """End the threads that live in the node's network."""
        self._threads.close()


class LocalCluster(Cluster):
    """The machine's local cluster, started if it was not up, and then taken down again at the end."""

    def __init__(self, want: frozenset[str], progress: Progress) -> None:
        count = 0 if want <= _WITHOUT_NODES else 1 if want <= _WITH_ONE_NODE else len(NODES)
        before = local.status()
        self._started_here = before.owner is None
        self._progress = progress
        self._use = Use()
        try:
            owner = _owner_of_enough(before, count) or local.up(count, progress)
            running = local.status().nodes
            self._nodes = {plan.name: LocalNode(plan) for plan in running}
            self._servers: list[Server] = []
            self._threads = NetworkThreads(CONTROL_PLANE, size=2)
            self.name = "local"
            self.kubeconfig = KUBECONFIG
            self.kubectl_cache = KUBECONFIG.parent / "kubectl-cache"
            self.registry, self.registry_on_host = REGISTRY, f"127.0.0.1:{owner.registry_port}"
            levels = (_WITHOUT_NODES, _WITH_ONE_NODE, _WITH_ALL_NODES)
            self.caps = levels[min(len(running), 1) + (len(running) == len(NODES))]
            if self._use.is_alone():
                self._heal()
            self._use.share()
        except BaseException:
            # Also Ctrl-C: what was started for this object, half-way or wholly, goes with it.
            self._use.end()
            if self._started_here:
                local.down(progress)
            raise

    @override
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    @override
    def node(self, name: str) -> LocalNode:
        if name not in self._nodes:
            raise ClusterError(f"there is no node {name!r}; there are {', '.join(self._nodes) or 'none'}")
        return self._nodes[name]

    @override
    def load_image(self, tar: Path, nodes: Sequence[str]) -> None:
        plans = {plan.name: plan for plan in NODES}
        for name in nodes:
            import_image(plans[self.node(name).name], tar.resolve())

    @override
    def serve_files(self, directory: Path) -> str:
        make = self._threads.pool().submit(FileServer, directory.resolve(), CONTROL_PLANE_ADDRESS)
        return self._serve(make.result())

    @override
    def serve_http(self, handler: Handler, port: int = 0) -> str:
        make = self._threads.pool().submit(Server, handler, CONTROL_PLANE_ADDRESS, port)
        return self._serve(make.result())

    def _serve(self, server: Server) -> str:
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, name=f"serve-{server.url}", daemon=True).start()
        return server.url

    @override
    def run_in_cp(self, argv: Sequence[str], *, timeout_s: float = 60) -> str:
        return run_inside(CONTROL_PLANE, list(argv), timeout_s=timeout_s)

    @override
    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()
        try:
            alone = self._use.is_alone()
            if self._started_here and alone and not self.kept:
                local.down(self._progress)
            elif alone:
                self._heal()
        finally:
            for node in self._nodes.values():
                node.close()
            self._threads.close()
            self._use.end()

    @override
    def explain(self) -> str:
        return local.explain()

    def _heal(self) -> None:
        for node in self._nodes.values():
            node.heal()
        for node in self._nodes.values():
            node.await_ready()


def _owner_of_enough(status: local.Status, count: int) -> Owner | None:
    """Return the owner of a cluster of this working tree that is up and large enough, whatever is cut off."""
    if status.owner is None or not status.core_is_alive or len(status.nodes) < count:
        return None
    return status.owner if status.owner.checkout == str(CHECKOUT) else None
