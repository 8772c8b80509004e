"""The control plane: etcd, API server, controllers, scheduler and DNS, in one network namespace."""

from __future__ import annotations

from pathlib import Path

from cluster.certificates import Authority, write_service_account_keys
from cluster.namespaces import CONTROL_PLANE, create_namespaces, inside, run_inside
from cluster.places import (
    API_PORT,
    API_SERVICE_ADDRESS,
    CLUSTER_DOMAIN,
    CONTROL_PLANE_ADDRESS,
    KUBECONFIG,
    PKI,
    POD_RANGE,
    REGISTRY_ALIAS,
    SERVICE_RANGE,
    STATE,
)
from cluster.processes import Unit, start
from cluster.tools import tool

SERVER_INSIDE = f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"
"""The API server's address as nodes see it."""

PROGRAMS = ("holder", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")


def start_network() -> None:
    """Create the control plane's network: a bridge that the cables of the nodes are plugged into."""
    create_namespaces(CONTROL_PLANE, mounts=False)
    network = f"""
        ip link set lo up
        ip link add br0 type bridge
        ip addr add {CONTROL_PLANE_ADDRESS}/24 dev br0
        ip link set br0 up
        echo 1 > /proc/sys/net/ipv4/ip_forward
    """
    run_inside(CONTROL_PLANE, ["/bin/sh", "-ec", network])


def write_identities(api_port_on_host: int) -> Authority:
    """Write all certificates of the control plane and the administrator's kubeconfig."""
    authority = Authority(PKI)
    names = (
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    )
    hosts = (*names, "localhost", "127.0.0.1", CONTROL_PLANE_ADDRESS, API_SERVICE_ADDRESS)
    authority.issue("apiserver", "kube-apiserver", hosts=hosts)
    authority.issue("apiserver-kubelet-client", "kube-apiserver", groups=["system:masters"])
    write_service_account_keys(PKI)
    for program in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        authority.kubeconfig(PKI / f"{program}.kubeconfig", SERVER_INSIDE, f"system:{program}")
    # CoreDNS only reads, but Kubernetes has no built-in role for it.
    authority.kubeconfig(PKI / "coredns.kubeconfig", SERVER_INSIDE, "coredns", groups=["system:masters"])
    server = f"https://127.0.0.1:{api_port_on_host}"
    authority.kubeconfig(KUBECONFIG, server, "edgemodel-admin", groups=["system:masters"])
    return authority


def start_etcd() -> None:
    """Start etcd; it keeps its files out of the page cache's way, since nothing here survives `down`."""
    _start(
        "etcd",
        f"--data-dir={STATE / 'etcd'}",
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--unsafe-no-fsync",
        "--log-level=warn",
    )


def start_apiserver() -> None:
    """Start the API server."""
    _start(
        "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={CONTROL_PLANE_ADDRESS}",
        f"--secure-port={API_PORT}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        # No node runs here, so no ClusterIP is routed here either: webhooks are called by the pod's own
        # address.
        "--enable-aggregator-routing=true",
        "--default-not-ready-toleration-seconds=10",
        "--default-unreachable-toleration-seconds=10",
        "--max-requests-inflight=1000",
        "--max-mutating-requests-inflight=500",
        "--profiling=false",
        f"--client-ca-file={PKI / 'ca.crt'}",
        f"--tls-cert-file={PKI / 'apiserver.crt'}",
        f"--tls-private-key-file={PKI / 'apiserver.key'}",
        f"--kubelet-certificate-authority={PKI / 'ca.crt'}",
        f"--kubelet-client-certificate={PKI / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={PKI / 'apiserver-kubelet-client.key'}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={PKI / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={PKI / 'service-accounts.key'}",
    )


def start_controllers() -> None:
    """Start the controllers and the scheduler, quick to notice that a node is gone."""
    kubeconfig = PKI / "kube-controller-manager.kubeconfig"
    _start(
        "kube-controller-manager",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--use-service-account-credentials=true",
        "--leader-elect=false",
        "--node-monitor-period=2s",
        "--node-monitor-grace-period=12s",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
        f"--cluster-cidr={POD_RANGE}",
        "--allocate-node-cidrs=false",
        f"--root-ca-file={PKI / 'ca.crt'}",
        f"--cluster-signing-cert-file={PKI / 'ca.crt'}",
        f"--cluster-signing-key-file={PKI / 'ca.key'}",
        f"--service-account-private-key-file={PKI / 'service-accounts.key'}",
    )
    kubeconfig = PKI / "kube-scheduler.kubeconfig"
    _start(
        "kube-scheduler",
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    )


def start_dns() -> None:
    """Start the DNS: Services, the registry's other name, and a quick "no such name" for all else."""
    corefile = STATE / "Corefile"
    corefile.write_text(
        f"""\
{CLUSTER_DOMAIN}:53 {{
    bind {CONTROL_PLANE_ADDRESS}
    errors
    kubernetes {CLUSTER_DOMAIN} {{
        kubeconfig {PKI / "coredns.kubeconfig"}
        ttl 5
    }}
}}
.:53 {{
    bind {CONTROL_PLANE_ADDRESS}
    errors
    hosts {{
        {CONTROL_PLANE_ADDRESS} {REGISTRY_ALIAS.partition(":")[0]}
    }}
}}
""",
        encoding="utf-8",
    )
    _start("coredns", "-conf", str(corefile), "-quiet")


def _start(program: str, *flags: str) -> None:
    path: Path = tool(program)
    start(Unit(CONTROL_PLANE, program), inside(CONTROL_PLANE, [str(path), *flags]))
