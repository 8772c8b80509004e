"""Nodes: a network, mount and host name of their own each, with containerd, kubelet and kube-proxy in it."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from cluster.certificates import Authority
from cluster.cgroups import create_group, kill_group
from cluster.commands import ClusterError, system_environment, try_run
from cluster.control_plane import SERVER_INSIDE
from cluster.images import write_archive
from cluster.kernel import COVERED_FOLDERS
from cluster.namespaces import CONTROL_PLANE, create_namespaces, inside, run_inside
from cluster.node_files import (
    PAUSE_IMAGE,
    cni_config,
    containerd_config,
    kubelet_config,
    masked_spec,
    processor_files,
    registry_hosts,
    resolver_config,
    static_pods,
)
from cluster.places import (
    CONTROL_PLANE_ADDRESS,
    NODES,
    PKI,
    POD_RANGE,
    REGISTRY,
    REGISTRY_ALIAS,
    SITE,
    SITE_LABEL,
    STATE,
    NodePlan,
)
from cluster.processes import Unit, pid_of, start
from cluster.tools import tool

_VOLATILE = ("run/containerd", "run/netns")
"""What a real machine keeps in memory, and loses with its power."""


def write_node_identity(authority: Authority, node: NodePlan) -> None:
    """Write the certificates of a node: a client of the API server, and a server for logs and exec."""
    user = f"system:node:{node.name}"
    authority.kubeconfig(PKI / f"{node.name}.kubeconfig", SERVER_INSIDE, user, groups=["system:nodes"])
    authority.issue(f"{node.name}-server", user, hosts=[node.name, node.address])


def start_node(node: NodePlan) -> None:
    """Switch a node on; returns once its programs are started, before the node is Ready.

    Calling it for a node that is on starts only what does not run.
    """
    create_group(node.name)
    fresh = pid_of(Unit(node.name, "holder")) is None
    pid = create_namespaces(node.name, mounts=True)
    if fresh:
        _forget_volatile(node)
        _plug_in(node, pid)
        _mount_disk(node)
    _write_files(node)
    _start_containerd(node)
    _import_pause(node)
    _start_kubelet(node)
    _start_kube_proxy(node)
    if node.npus:
        _start_device_plugin(node)


def stop_node(node: NodePlan) -> None:
    """Cut a node's power: everything on it ends at once, and only its disk stays."""
    kill_group(node.name)
    try_run(inside(CONTROL_PLANE, ["ip", "link", "del", node.cable]))


def programs(node: NodePlan) -> list[str]:
    """Return the names of the programs that run on a node that is on."""
    common = ["holder", "containerd", "kubelet", "kube-proxy"]
    return [*common, "device-plugin"] if node.npus else common


def import_image(node: NodePlan, archive: Path) -> None:
    """Load an image archive (OCI or Docker) into a node's containerd, without a registry."""
    platform = f"linux/{node.architecture}"
    argv = [
        str(tool("ctr")),
        "--namespace",
        "k8s.io",
        "images",
        "import",
        "--platform",
        platform,
        str(archive),
    ]
    run_inside(node.name, argv, mounts=True, timeout_s=300)


def _forget_volatile(node: NodePlan) -> None:
    for name in _VOLATILE:
        shutil.rmtree(node.disk / name, ignore_errors=True)


def _plug_in(node: NodePlan, pid: int) -> None:
    """Connect the node to the control plane's bridge and teach both sides where the pods are."""
    try_run(inside(CONTROL_PLANE, ["ip", "link", "del", node.cable]))
    plug = f"""
        ip link add {node.cable} type veth peer name eth0 netns {pid}
        ip link set {node.cable} master br0 up
        ip route replace {node.pod_range} via {node.address}
    """
    run_inside(CONTROL_PLANE, ["/bin/sh", "-ec", plug])
    others = "\n".join(
        f"ip route add {other.pod_range} via {other.address}" for other in NODES if other.name != node.name
    )
    # The default route leads nowhere: without one, packets to a ClusterIP are refused before kube-proxy sees
    # them.
    network = f"""
        hostname {node.name}
        ip link set lo up
        ip addr add {node.address}/24 dev eth0
        ip link set eth0 up
        ip route add default via {CONTROL_PLANE_ADDRESS}
        {others}
        echo 1 > /proc/sys/net/ipv4/ip_forward
        test ! -e /proc/sys/net/bridge || echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables
    """
    run_inside(node.name, ["/bin/sh", "-ec", network], mounts=True)


def _mount_disk(node: NodePlan) -> None:
    """Put the node's own folders over the machine's, in the node's mount namespace only."""
    steps = ["mount --make-rshared /"]
    for folder in COVERED_FOLDERS:
        own = node.disk / folder.strip("/")
        own.mkdir(parents=True, exist_ok=True)
        steps += [f"mount --bind {own} {folder}", f"mount --make-rshared {folder}"]
    resolver = node.disk / "resolv.conf"
    resolver.write_text(resolver_config(), encoding="utf-8")
    steps.append(f"mount --bind {resolver} {Path('/etc/resolv.conf').resolve()}")
    run_inside(node.name, ["/bin/sh", "-ec", "\n".join(steps)], mounts=True)


def _write_files(node: NodePlan) -> None:
    base_spec, files = None, {}
    if _is_foreign(node):
        base_spec, processors = node.disk / "container-spec.json", node.disk / "processors"
        default = run_inside(node.name, [str(tool("ctr")), "oci", "spec"])
        files = {processors / name: text for name, text in processor_files(os.cpu_count() or 1).items()}
        files[base_spec] = masked_spec(default, processors)
    files |= {
        node.disk / "containerd.toml": containerd_config(node, base_spec),
        **{
            node.disk / "certs.d" / name / "hosts.toml": registry_hosts(name)
            for name in (REGISTRY, REGISTRY_ALIAS)
        },
        node.disk / "etc/cni/net.d/10-edge.conflist": cni_config(node),
        node.disk / "kubelet.yaml": kubelet_config(node),
    }
    static_pods(node).mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _is_foreign(node: NodePlan) -> bool:
    """Say whether the node's images are not of this machine's architecture, and so are emulated."""
    return node.architecture != "amd64"


def _start_containerd(node: NodePlan) -> None:
    """Start containerd; one that has to choose foreign images is a build of its own, with the usual shim."""
    containerd = tool("containerd-arm64/containerd" if _is_foreign(node) else "containerd")
    shim_folder = tool("containerd-shim-runc-v2").parent
    environment = {"PATH": f"{shim_folder}:{system_environment()['PATH']}"}
    if _is_foreign(node):
        environment["CONTAINERD_PLATFORM"] = f"linux/{node.architecture}"
    _start(node, "containerd", [str(containerd), "--config", str(node.disk / "containerd.toml")], environment)
    deadline = time.monotonic() + 30
    ask = inside(node.name, [str(tool("ctr")), "version"], mounts=True)
    while not try_run(ask):
        if time.monotonic() > deadline or pid_of(Unit(node.name, "containerd")) is None:
            raise ClusterError(f"containerd on {node.name} does not answer")
        time.sleep(0.1)


def _import_pause(node: NodePlan) -> None:
    """Give the node the image of its sandboxes: labeled with the node's architecture, in truth native."""
    programs = {node.architecture: tool("testimage-amd64/pause")}
    import_image(node, write_archive(STATE / "images" / f"pause-{node.name}.tar", PAUSE_IMAGE, programs))


def _start_kubelet(node: NodePlan) -> None:
    kubelet = tool("kubelet-arm64/kubelet" if _is_foreign(node) else "kubelet")
    flags = [
        f"--config={node.disk / 'kubelet.yaml'}",
        f"--kubeconfig={PKI / f'{node.name}.kubeconfig'}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--node-labels={SITE_LABEL}={SITE}",
        "--root-dir=/var/lib/kubelet",
        "--cert-dir=/var/lib/kubelet/pki",
    ]
    _start(node, "kubelet", [str(kubelet), *flags])


def _start_kube_proxy(node: NodePlan) -> None:
    flags = [
        f"--kubeconfig={PKI / 'kube-proxy.kubeconfig'}",
        f"--hostname-override={node.name}",
        "--proxy-mode=iptables",
        f"--cluster-cidr={POD_RANGE}",
        "--iptables-min-sync-period=0s",
        # The rest keeps its hands off what belongs to the whole machine.
        "--conntrack-max-per-core=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--oom-score-adj=0",
    ]
    _start(node, "kube-proxy", [str(tool("kube-proxy")), *flags])


def _start_device_plugin(node: NodePlan) -> None:
    argv = [str(tool("device-plugin")), "--resource=example.com/npu", f"--count={node.npus}"]
    _start(node, "device-plugin", argv)


def _start(node: NodePlan, program: str, argv: list[str], env: dict[str, str] | None = None) -> None:
    environment = {**(env or {}), "HOSTNAME": node.name, "HOME": os.environ.get("HOME", "/root")}
    start(Unit(node.name, program), inside(node.name, argv, mounts=True), env=environment)
