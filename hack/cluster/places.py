"""Where the local cluster keeps its files, and the addresses it uses.

Everything that only a running cluster needs is machine-wide, because cgroups, mount points and sysctls are;
built programs are per user and survive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

STATE = Path("/var/lib/edgemodel-cluster")
"""Node disks, certificates, logs: gone after `down`."""

RUN = Path("/run/edgemodel-cluster")
"""Lock, owner record: gone after `down`, and worthless after a reboot."""

LOGS = STATE / "logs"
KUBECONFIG = STATE / "admin.kubeconfig"
PKI = STATE / "pki"

SOURCES = Path(__file__).absolute().parent
"""This package's folder; its `gomod` folder holds the modules of the Go programs."""

CHECKOUT = SOURCES.parent.parent
"""The working tree that this package belongs to: the identity of a cluster's owner."""

CONTROL_PLANE_ADDRESS = "10.199.0.1"
API_PORT = 6443
REGISTRY = f"{CONTROL_PLANE_ADDRESS}:5000"
"""The registry as nodes and pods name it."""

REGISTRY_ALIAS = "registry.plant-a.local:5000"
"""Another name of the same registry, for manifests that people read; the cluster's DNS knows it."""

CLUSTER_DOMAIN = "cluster.local"

POD_RANGE = "10.200.0.0/16"
SERVICE_RANGE = "10.201.0.0/16"
API_SERVICE_ADDRESS = "10.201.0.1"

SITE_LABEL = "edgemodel.dev/site"
SITE = "plant-a"


def cache_folder() -> Path:
    """Return the folder of everything that is built or downloaded once and kept."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "edgemodel"


@dataclass(frozen=True)
class NodePlan:
    """What one node of the cluster is to be.

    `number` is 1 to 9 and gives the node its addresses; `npus` is how many made-up devices it offers as
    `example.com/npu`.
    """

    name: str
    number: int
    architecture: str = "amd64"
    npus: int = 0

    @property
    def address(self) -> str:
        """The node's own address."""
        return f"10.199.0.1{self.number}"

    @property
    def pod_range(self) -> str:
        """The addresses of the node's pods."""
        return f"10.200.{self.number}.0/24"

    @property
    def disk(self) -> Path:
        """The folder that stands for the node's disk."""
        return STATE / "nodes" / self.name

    @property
    def cable(self) -> str:
        """The control plane's end of the node's network link (at most 15 characters)."""
        return f"v-{self.name}"


NODES = (
    NodePlan("edge-a", 1),
    NodePlan("edge-b", 2, npus=1),
    NodePlan("edge-c", 3, architecture="arm64"),
)
"""The nodes in the order in which they are added: `--nodes 1` gives the first."""
