"""The k3s backend: one node from a k3s binary that the user has (EDGE_K3S_BIN), in namespaces of its own.

It belongs to the same machine-wide owner record and control groups as the local cluster: `python -m cluster
down` removes it too, and there is only ever one of the two.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from cluster import local, registry
from cluster.backends.api_proxy import ApiProxy, ProxiedNode
from cluster.base import Cluster, Node
from cluster.commands import ClusterError
from cluster.forwarder import Route, free_port, start_forwarder
from cluster.images import write_archive
from cluster.kernel import change_kernel
from cluster.namespaces import CONTROL_PLANE, create_namespaces, inside, run_inside
from cluster.node_files import PAUSE_IMAGE, registry_hosts
from cluster.ownership import changing, make_owner, read_owner, write_owner
from cluster.packages import install_packages
from cluster.places import API_PORT, CONTROL_PLANE_ADDRESS, KUBECONFIG, REGISTRY, SITE, SITE_LABEL, STATE
from cluster.processes import Unit, start
from cluster.progress import Progress
from cluster.tools import tool

_NODE = "edge-a"
_DATA = STATE / "k3s"


def reason_against() -> str:
    """Return why this backend cannot be used here, or the empty string when it can."""
    binary = os.environ.get("EDGE_K3S_BIN")
    if not binary:
        return "EDGE_K3S_BIN is not set"
    if not os.access(binary, os.X_OK):
        return f"EDGE_K3S_BIN names {binary}, which is not a program"
    return "" if os.geteuid() == 0 else "it needs root"


class K3sCluster(Cluster):
    """A single k3s node, started and removed by this object."""

    caps = frozenset({"api", "control", "nodes", "pods", "images", "registry"})

    def __init__(self, progress: Progress) -> None:
        self.name = "k3s"
        self._progress = progress
        self.kubeconfig = KUBECONFIG
        install_packages(progress)
        with changing():
            owner = read_owner()
            if owner is not None:
                raise ClusterError(f"a cluster of {owner.checkout} runs: take it down before k3s is started")
            self._start()
        self._proxy = ApiProxy(self)

    def _start(self) -> None:
        STATE.mkdir(parents=True, exist_ok=True)
        owner = make_owner(free_port(local.PREFERRED_API_PORT), free_port(local.PREFERRED_REGISTRY_PORT))
        write_owner(owner)
        change_kernel()
        self.registry, self.registry_on_host = REGISTRY, f"127.0.0.1:{owner.registry_port}"
        pid = create_namespaces(CONTROL_PLANE, mounts=True)
        network = f"""
            mount --make-rshared /
            ip link set lo up
            ip link add eth0 type dummy
            ip addr add {CONTROL_PLANE_ADDRESS}/24 dev eth0
            ip link set eth0 up
            ip route add default dev eth0
        """
        run_inside(CONTROL_PLANE, ["/bin/sh", "-ec", network], mounts=True)
        registry.start_registry()
        self._start_k3s()
        host, port = REGISTRY.split(":")
        routes = [
            Route(owner.api_port, CONTROL_PLANE_ADDRESS, API_PORT),
            Route(owner.registry_port, host, int(port)),
        ]
        start_forwarder(pid, routes)
        with self._progress.step("waiting for k3s"):
            local.await_program(Unit(CONTROL_PLANE, "k3s"), KUBECONFIG.is_file)
            text = KUBECONFIG.read_text(encoding="utf-8")
            KUBECONFIG.write_text(text.replace(f":{API_PORT}", f":{owner.api_port}"), encoding="utf-8")
            self.kubectl("wait", f"node/{_NODE}", "--for=create", "--timeout=120s", timeout_s=130)
            self.kubectl("wait", f"node/{_NODE}", "--for=condition=Ready", "--timeout=120s", timeout_s=130)

    def _start_k3s(self) -> None:
        archive = _DATA / "agent/images/pause.tar"
        write_archive(archive, PAUSE_IMAGE, {"amd64": tool("testimage-amd64/pause")})
        hosts = _DATA / "agent/etc/containerd/certs.d" / REGISTRY / "hosts.toml"
        hosts.parent.mkdir(parents=True, exist_ok=True)
        hosts.write_text(registry_hosts(REGISTRY), encoding="utf-8")
        argv = [
            os.environ["EDGE_K3S_BIN"],
            "server",
            f"--data-dir={_DATA}",
            f"--write-kubeconfig={KUBECONFIG}",
            "--write-kubeconfig-mode=600",
            f"--https-listen-port={API_PORT}",
            f"--node-name={_NODE}",
            f"--node-ip={CONTROL_PLANE_ADDRESS}",
            f"--node-label={SITE_LABEL}={SITE}",
            f"--pause-image={PAUSE_IMAGE}",
            "--disable=traefik,servicelb,metrics-server,local-storage,coredns",
            "--snapshotter=overlayfs",
        ]
        start(Unit(CONTROL_PLANE, "k3s"), inside(CONTROL_PLANE, argv, mounts=True))

    @override
    def nodes(self) -> tuple[str, ...]:
        return (_NODE,)

    @override
    def node(self, name: str) -> Node:
        if name != _NODE:
            raise ClusterError(f"there is no node {name!r}; there is {_NODE}")
        return ProxiedNode(name, self, self._proxy.url)

    @override
    def load_image(self, tar: Path, nodes: Sequence[str]) -> None:
        for name in nodes:
            self.node(name)
        argv = [
            os.environ["EDGE_K3S_BIN"],
            "ctr",
            "--namespace",
            "k8s.io",
            "images",
            "import",
            str(tar.resolve()),
        ]
        run_inside(CONTROL_PLANE, argv, mounts=True, timeout_s=300)

    @override
    def run_in_cp(self, argv: Sequence[str], *, timeout_s: float = 60) -> str:
        return run_inside(CONTROL_PLANE, list(argv), timeout_s=timeout_s)

    @override
    def close(self) -> None:
        self._proxy.close()
        if not self.kept:
            local.down(self._progress)

    @override
    def explain(self) -> str:
        return local.explain()
