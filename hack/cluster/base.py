"""What a test may ask of a cluster, whichever backend provides it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cluster.commands import ClusterError, run
from cluster.tools import tool

CAPABILITIES = frozenset(
    {"api", "control", "nodes", "pods", "images", "cut", "power", "arm64", "registry", "npu"}
)
"""What a test may need.

api: an API server. control: controllers and scheduler. nodes, pods: kubelets that run containers, `Node.get`.
images: `load_image`. cut, power: faults of a node's link and power, and `Node.run`. arm64: a node of that
architecture. registry: one that the host can push to and nodes can pull from. npu: a node that offers
`example.com/npu`.
"""

MAX_BODY_BYTES = 64 * 1024 * 1024


class Unsupported(ClusterError):  # noqa: N818 (reads as a sentence where it is raised)
    """This backend cannot do that; a test says with its marker what it needs, and is skipped."""


class Node(ABC):
    """One node: its name in Kubernetes, faults, and requests from where it stands."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def get(
        self,
        url: str,
        timeout: float = 5,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, bytes]:
        """Send an HTTP request from the node's network and return status and body.

        It is a POST when there is `data`. ClusterIPs and pod addresses work. Raises OSError when there is no
        answer.
        """

    def run(self, argv: Sequence[str], *, timeout_s: float = 60) -> str:
        """Run a program of this host in the node's network and return its output. Raises CommandFailed."""
        raise Unsupported(f"this cluster cannot run {argv[0]} in the network of {self.name}")

    def cut(self) -> None:
        """Pull the network cable; pods on the node go on running."""
        raise Unsupported(f"this cluster cannot cut the link of {self.name}")

    def restore(self) -> None:
        """Take away every fault of the link; power is `power_on`."""
        return

    def power_off(self) -> None:
        """End everything on the node at once, as a power failure does; its disk stays."""
        raise Unsupported(f"this cluster cannot switch off {self.name}")

    def power_on(self) -> None:
        """Boot the node; returns before it is Ready."""
        raise Unsupported(f"this cluster cannot switch on {self.name}")

    def throttle(self, kbit: int) -> None:
        """Limit the link to so many kilobits per second in each direction, until `restore`."""
        raise Unsupported(f"this cluster cannot throttle the link of {self.name} to {kbit} kbit/s")

    def loss(self, p: float) -> None:
        """Drop the share `p` (0 to 1) of the packets that reach the node, until `restore`."""
        raise Unsupported(f"this cluster cannot drop {p:.0%} of the packets of {self.name}")


class Cluster(ABC):
    """A cluster that is up; leaving the `with` block undoes every fault and gives it back."""

    name: str
    kubeconfig: Path
    caps: frozenset[str]
    kubectl_cache: Path | None = None
    """Where kubectl remembers what the API serves; None: where it does by default. A cluster that is made
    anew at the same address must not be asked with the memory of the one before."""
    registry: str = ""
    """`host:port` of the registry as nodes and pods name it (plain HTTP); empty without the capability."""
    kept: bool = False
    """Whether the cluster stays up when it is closed."""
    registry_on_host: str = ""
    """`host:port` of the same registry on this host."""

    @property
    def version(self) -> str:
        """The API server's version, as `v1.36.4`."""
        return str(json.loads(self.kubectl("get", "--raw", "/version"))["gitVersion"])

    def kubectl(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 60) -> str:
        """Run kubectl against this cluster and return its output. Raises CommandFailed."""
        argv = [str(tool("kubectl")), f"--kubeconfig={self.kubeconfig}"]
        if self.kubectl_cache is not None:
            argv.append(f"--cache-dir={self.kubectl_cache}")
        argv.extend(arguments)
        return run(argv, stdin=stdin, timeout_s=timeout_s)

    def kubectl_json(self, *arguments: str) -> Any:
        """Run kubectl with `-o json` and return the parsed answer."""
        return json.loads(self.kubectl(*arguments, "-o", "json"))

    @abstractmethod
    def nodes(self) -> tuple[str, ...]:
        """Return the names of the nodes, as `node` takes them."""

    @abstractmethod
    def node(self, name: str) -> Node:
        """Return one node. Raises ClusterError for a name that does not exist."""

    def load_image(self, tar: Path, nodes: Sequence[str]) -> None:
        """Put an image archive (OCI or Docker) on nodes without a registry."""
        raise Unsupported(f"this cluster cannot load {tar.name} on {', '.join(nodes)}")

    def serve_files(self, directory: Path) -> str:
        """Serve a folder over HTTP until the cluster is closed and return its URL as pods see it."""
        raise Unsupported(f"this cluster cannot serve {directory} to its pods")

    def serve_http(self, handler: Callable[..., BaseHTTPRequestHandler], port: int = 0) -> str:
        """Answer HTTP requests of pods by a handler until the cluster is closed and return the URL.

        `port` 0 takes any that is free.
        """
        raise Unsupported(f"this cluster cannot let {handler!r} answer its pods on port {port}")

    def run_in_cp(self, argv: Sequence[str], *, timeout_s: float = 60) -> str:
        """Run a program of this host inside the control plane's network and return its output."""
        raise Unsupported(f"this cluster cannot run {argv[0]} beside its control plane")

    def keep(self) -> None:
        """Leave the cluster up when it is closed, although this object may have started it."""
        self.kept = True

    @abstractmethod
    def close(self) -> None:
        """Undo every fault and give back what this object holds."""

    def explain(self) -> str:
        """Return the ends of the logs of the cluster's own programs, as far as they are at hand."""
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
