"""A real Kubernetes on one machine, for tests and the demo: see `docs/cluster.md`."""

from cluster.base import CAPABILITIES, Cluster, Node, Unsupported
from cluster.commands import ClusterError, CommandFailed
from cluster.fixture import open_cluster
from cluster.tools import tool

__all__ = [
    "CAPABILITIES",
    "Cluster",
    "ClusterError",
    "CommandFailed",
    "Node",
    "Unsupported",
    "open_cluster",
    "tool",
]
