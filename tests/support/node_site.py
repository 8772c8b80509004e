"""A plant whose nodes verify what containerd pulls: images, a key that signs them, and the nodes' side."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

from typing_extensions import override

from cluster.base import Cluster
from cluster.commands import run
from cluster.images import write_archive
from cluster.namespaces import CONTROL_PLANE, NetworkThreads, inside
from cluster.places import NODES, NodePlan
from cluster.tools import tool
from edgemodel_operator.node.client import ORPHANED, RECORD
from edgemodel_operator.node.hook import NAME
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support import cri

STATE = "/var/lib/edgemodel-node"
BIN = "/opt/containerd/image-verifier/bin"
Json = dict[str, Any]
_T = TypeVar("_T")


@dataclass
class NodeSide:
    """One node as somebody sees it who is root there."""

    plan: NodePlan

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def _socket(self) -> Path:
        return self.plan.disk / "run/containerd/containerd.sock"

    def pull(self, image: str) -> str:
        """Pull as `crictl pull` does; gives why it was refused, or nothing."""
        try:
            cri.pull(self._socket, image)
        except cri.PullFailed as failed:
            return str(failed)
        return ""

    def forget(self, image: str) -> None:
        """Remove an image from the node, so that the next pull is one."""
        cri.remove(self._socket, image)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a program on the node, whatever its exit status."""
        return subprocess.run(
            inside(self.name, list(argv), mounts=True),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def ask(self, image: str) -> subprocess.CompletedProcess[str]:
        """Start the installed program as containerd does, for an image by digest."""
        digest = image.partition("@")[2]
        return self.run(f"{BIN}/{NAME}", "-name", image, "-digest", digest, "-stdin-media-type", "x")

    def digests(self, repository: str) -> set[str]:
        """Give the digests under which the node holds images of a repository."""
        argv = [str(tool("ctr")), "-n", "k8s.io", "images", "ls", "-q"]
        listed = self.run(*argv).stdout.split()
        return {name.partition("@")[2] for name in listed if name.startswith(f"{repository}@")}

    @property
    def programs(self) -> list[str]:
        """What containerd starts before each pull."""
        folder = self.plan.disk / BIN.lstrip("/")
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []

    @property
    def state(self) -> Path:
        """What the agent keeps."""
        return self.plan.disk / STATE.lstrip("/")

    @property
    def marker(self) -> Path:
        """The mark that says since when the agent's pod is away."""
        return self.state / ORPHANED

    def clean(self) -> None:
        """Take away what an agent left that was ended without being told."""
        (self.plan.disk / BIN.lstrip("/") / NAME).unlink(missing_ok=True)
        # The agent may be at it just now.
        for path in list(self.state.iterdir()):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def record(self) -> Json:
        """What the node remembers."""
        document: Json = json.loads((self.state / RECORD).read_text())
        return document


@dataclass
class NodeSite:
    """Images under `{registry}/{prefix}/`, and the policy that covers what lies below `models/` there."""

    cluster: Cluster
    folder: Path
    key: LocalKey
    prefix: str
    nodes: dict[str, NodeSide] = field(default_factory=lambda: {plan.name: NodeSide(plan) for plan in NODES})

    def push(self, repository: str, *, tag: str = "1") -> str:
        """Push an image with content of its own that runs, and give it by digest.

        Its archive stays in `folder`, under the digest.
        """
        name = f"{self.cluster.registry}/{self.prefix}/{repository}"
        unique = hashlib.sha256(f"{name}:{tag}:{time.time_ns()}".encode()).digest()
        programs = {}
        for architecture in ("amd64", "arm64"):
            folder = self.folder / unique.hex()[:12] / architecture
            folder.mkdir(parents=True)
            programs[architecture] = folder / "echo"
            shutil.copyfile(tool(f"testimage-{architecture}/echo"), folder / "echo")
            with (folder / "echo").open("ab") as program:
                program.write(unique)
        archive = write_archive(self.folder / f"{unique.hex()[:12]}.tar", f"{name}:{tag}", programs)
        target = f"docker://{self.cluster.registry_on_host}/{self.prefix}/{repository}:{tag}"
        run(["skopeo", "copy", "-q", "--all", "--dest-tls-verify=false", f"oci-archive:{archive}", target])
        raw = run(["skopeo", "inspect", "--raw", "--tls-verify=false", target])
        digest = hashlib.sha256(raw.encode()).hexdigest()
        archive.rename(self.archive(f"{name}@sha256:{digest}"))
        return f"{name}@sha256:{digest}"

    def archive(self, image: str) -> Path:
        """Give the archive of an image that was pushed."""
        return self.folder / f"{image.rpartition(':')[2]}.tar"

    def sign(self, image: str) -> None:
        """Sign an image by digest under the name by which nodes know it."""
        self.at_registry(image, lambda client, reference: sign_image(client, reference, [self.key]))

    def unsign(self, image: str) -> None:
        """Take every signature of an image out of the registry."""

        async def remove(client: RegistryClient, reference: Reference) -> None:
            name = str(reference.digest).replace(":", "-")
            for tag in (f"{name}.sig", name):
                listed = await client.head_manifest(reference.with_tag(tag))
                if listed is not None:
                    await client.delete_manifest(reference.with_digest(listed.digest))

        self.at_registry(image, remove)

    def at_registry(
        self, image: str, work: Callable[[RegistryClient, Reference], Coroutine[Any, Any, _T]]
    ) -> _T:
        """Do something at the registry, inside the network of the plant."""
        reference = parse_reference(image)

        async def connected() -> _T:
            async with new_session() as session:
                client = RegistryClient(session, plain_http={reference.registry})
                return await work(client, reference)

        threads = NetworkThreads(CONTROL_PLANE, size=1)
        try:
            return threads.pool().submit(asyncio.run, connected()).result()
        finally:
            threads.close()

    def policy(self, name: str, *images: str, **spec: Any) -> Json:
        """Give a policy that trusts the key for some images."""
        keys = [{"data": self.key.public_key.pem.decode()}]
        return {
            "apiVersion": "edgemodel.dev/v1alpha1",
            "kind": "TrustPolicy",
            "metadata": {"name": name},
            "spec": {"images": list(images), "authorities": [{"name": "plant", "keys": keys}], **spec},
        }


@contextmanager
def poisoned_mirror(site: NodeSite, node: NodeSide, evil: Mapping[str, str]) -> Iterator[list[str]]:
    """Send a node's containerd to a mirror whose tags lie while the block runs; gives what it was asked.

    `evil` maps repositories to the digest that every tag means there; the image lies in `{repository}-evil`.
    """
    asked: list[str] = []

    class Mirror(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status, headers, body = _from_evil(site, self.path, evil)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - as http.server wants it

        @override
        def log_message(self, *_: object) -> None:
            """Say nothing: `asked` says it all."""

    url = site.cluster.serve_http(Mirror)
    hosts = node.plan.disk / "certs.d" / site.cluster.registry / "hosts.toml"
    before = hosts.read_text()
    server, _, _ = before.partition("[host.")
    hosts.write_text(f'{server}[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')
    try:
        yield asked
    finally:
        hosts.write_text(before)


def _from_evil(site: NodeSite, path: str, evil: Mapping[str, str]) -> tuple[int, dict[str, str], bytes]:
    """Answer for the mirror: from the evil repository, or 404, after which the true registry is asked."""
    for repository, digest in evil.items():
        start = f"/v2/{site.prefix}/{repository}/"
        if not path.startswith(start):
            continue
        rest = path.removeprefix(start).partition("?")[0]
        kind, _, name = rest.partition("/")
        name = name if name.startswith("sha256:") else digest
        accept = {
            "Accept": "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json"
        }
        url = f"http://{site.cluster.registry_on_host}/v2/{site.prefix}/{repository}-evil/{kind}/{name}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=accept), timeout=10) as answer:
                body = answer.read()
                return (
                    200,
                    {
                        "Content-Type": answer.headers["Content-Type"],
                        "Content-Length": str(len(body)),
                        "Docker-Content-Digest": name,
                    },
                    body,
                )
        except urllib.error.HTTPError:
            break
    return 404, {"Content-Length": "0"}, b""


def utc_now() -> datetime:
    """Give the time with its zone, as the agent asks for it."""
    return datetime.now(UTC)


def until(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait for something that others bring about; fails with `what`."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
