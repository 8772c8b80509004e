"""The configuration files of a node, as text: pure functions of what the node is to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from cluster.cgroups import kubelet_root
from cluster.places import CLUSTER_DOMAIN, CONTROL_PLANE_ADDRESS, PKI, NodePlan

PAUSE_IMAGE = "edgemodel.local/pause:1"
"""The image that holds the namespaces of a pod; imported into every node, never pulled."""

VERIFIERS = "/opt/containerd/image-verifier/bin"
"""Where containerd looks for programs that verify images (its docs/image-verification.md)."""


def static_pods(node: NodePlan) -> Path:
    """Return the folder from which the kubelet takes static pods."""
    return node.disk / "manifests"


def containerd_config(node: NodePlan, base_spec: Path | None) -> str:
    """Return containerd's configuration (TOML); every container of the node starts from `base_spec`."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    runc = f"{cri}.containerd.runtimes.runc"
    base = f'  base_runtime_spec = "{base_spec}"' if base_spec else ""
    return f"""\
version = 2
root = "{node.disk / "containerd"}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing"]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.nri.v1.nri"]
  disable = true

# As by default: before a pull, containerd asks every program in this folder of the node. It is empty.
[plugins."io.containerd.image-verifier.v1.bindir"]
  bin_dir = "{VERIFIERS}"

[{cri}]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without the right to lower an OOM score no sandbox would start.
  restrict_oom_score_adj = true
  [{cri}.cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
  [{cri}.registry]
    config_path = "{node.disk / "certs.d"}"
  [{cri}.containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"

[{runc}]
  runtime_type = "io.containerd.runc.v2"
{base}
  [{runc}.options]
    BinaryName = "/usr/sbin/runc"
    Root = "/run/containerd/runc"
    SystemdCgroup = false
"""


def registry_hosts(registry: str) -> str:
    """Return containerd's `hosts.toml` for a registry that speaks plain HTTP."""
    return (
        f'server = "http://{registry}"\n\n[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    )


def resolver_config() -> str:
    """Return the node's `resolv.conf`."""
    return f"nameserver {CONTROL_PLANE_ADDRESS}\n"


def masked_spec(default_spec: str, processors: Path) -> str:
    """Return the runtime's default container specification with other processors than the machine's.

    An arm64 program under qemu sees the x86 machine's /sys/devices/system/cpu, and the CPU detection of
    ONNX Runtime crashes on what it says; that of OpenVINO crashes when it says nothing. So containers get the
    folder `processors` there (see `processor_files`).
    """
    spec: dict[str, Any] = json.loads(default_spec)
    options = ["rbind", "ro", "nosuid", "nodev", "noexec"]
    source = str(processors)
    mask = {"destination": "/sys/devices/system/cpu", "type": "bind", "source": source, "options": options}
    spec["mounts"] = [*spec["mounts"], mask]
    return json.dumps(spec)


def processor_files(count: int) -> dict[str, str]:
    """Return what a kernel says below /sys/devices/system/cpu of `count` plain cores, by path.

    Format: the kernel's Documentation/admin-guide/cputopology.rst.
    """
    everyone = f"{(1 << count) - 1:x}"
    files = dict.fromkeys(("present", "possible", "online"), f"0-{count - 1}" if count > 1 else "0")
    for number in range(count):
        files |= {
            f"cpu{number}/topology/core_id": str(number),
            f"cpu{number}/topology/physical_package_id": "0",
            f"cpu{number}/topology/thread_siblings": f"{1 << number:x}",
            f"cpu{number}/topology/core_siblings": everyone,
        }
    return {path: f"{text}\n" for path, text in files.items()}


def cni_config(node: NodePlan) -> str:
    """Return the network configuration of the node's pods: a bridge in the node's range, host ports."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": node.pod_range}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "1.0.0", "name": "edge", "plugins": plugins})


def kubelet_config(node: NodePlan) -> str:
    """Return the kubelet's configuration: quick to act, and content with the rights of a small machine."""
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": node.address,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(PKI / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(PKI / f"{node.name}-server.crt"),
            "tlsPrivateKeyFile": str(PKI / f"{node.name}-server.key"),
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": kubelet_root(node.name),
            "failCgroupV1": False,
            "failSwapOn": False,
            "enforceNodeAllocatable": ["pods"],
            "oomScoreAdj": 0,
            "resolvConf": "",
            "clusterDNS": [CONTROL_PLANE_ADDRESS],
            "clusterDomain": CLUSTER_DOMAIN,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "staticPodPath": str(static_pods(node)),
            "evictionHard": {
                "memory.available": "10Mi",
                "nodefs.available": "0%",
                "nodefs.inodesFree": "0%",
                "imagefs.available": "0%",
            },
            "imageGCHighThresholdPercent": 100,
            "nodeStatusUpdateFrequency": "2s",
            "nodeLeaseDurationSeconds": 8,
            "syncFrequency": "10s",
            "serializeImagePulls": False,
            "maxParallelImagePulls": 3,
            "registryPullQPS": 0,
            "kubeAPIQPS": 100,
            "kubeAPIBurst": 200,
            "eventRecordQPS": 0,
            # An image that was loaded must run although one with the same content was also pulled.
            "imagePullCredentialsVerificationPolicy": "NeverVerify",
            "crashLoopBackOff": {"maxContainerRestartPeriod": "10s"},
            "featureGates": {"KubeletCrashLoopBackOffMax": True},
        },
        sort_keys=False,
    )
