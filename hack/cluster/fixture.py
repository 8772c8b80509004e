"""`open_cluster`: the one door through which tests and the demo get a cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

from cluster.backends import k3s, kind
from cluster.backends import local as local_backend
from cluster.backends.kubeconfig import KubeconfigCluster
from cluster.base import CAPABILITIES, Cluster
from cluster.commands import ClusterError
from cluster.progress import Progress


def open_cluster(want: Collection[str], progress: Progress | None = None) -> Cluster:
    """Return a cluster, started if necessary: use it as a context manager.

    `want` is what will be asked of it (names from CAPABILITIES): fewer wishes may start fewer nodes, but a
    cluster may also lack some, so look at `caps`. The backend is EDGE_CLUSTER (kubeconfig, kind, local, k3s)
    when that is set, else the first of: the file in EDGE_KUBECONFIG, the binary in EDGE_K3S_BIN, kind where
    Docker answers, this machine. Raises ClusterError, with all reasons, when none can be had.
    """
    unknown = set(want) - CAPABILITIES
    if unknown:
        raise ClusterError(f"there is no capability {', '.join(sorted(unknown))}")
    progress = progress or Progress()
    wanted = frozenset(want)
    openers: dict[str, tuple[Callable[[], str], Callable[[], Cluster]]] = {
        "kubeconfig": (_reason_against_kubeconfig, _open_kubeconfig),
        "k3s": (k3s.reason_against, lambda: k3s.K3sCluster(progress)),
        "kind": (kind.reason_against, lambda: kind.KindCluster(progress)),
        "local": (local_backend.reason_against, lambda: local_backend.LocalCluster(wanted, progress)),
    }
    chosen = os.environ.get("EDGE_CLUSTER")
    if chosen and chosen not in openers:
        raise ClusterError(f"EDGE_CLUSTER is {chosen!r}; it must be one of {', '.join(openers)}")
    reasons = {}
    for name, (reason_against, opener) in openers.items():
        if chosen in (None, "", name):
            reasons[name] = reason_against()
            if not reasons[name]:
                progress.say(f"cluster backend: {name}")
                return opener()
    raise ClusterError("no cluster: " + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()))


def _reason_against_kubeconfig() -> str:
    return "" if os.environ.get("EDGE_KUBECONFIG") else "EDGE_KUBECONFIG is not set"


def _open_kubeconfig() -> Cluster:
    return KubeconfigCluster(Path(os.environ["EDGE_KUBECONFIG"]))
