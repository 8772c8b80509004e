"""A plant: a cluster with the product installed by its chart, and the few things that a user adds to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.base import Cluster
from cluster.commands import CommandFailed, run
from cluster.tools import tool
from demo.report import ClaimBroken

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "edgemodel-operator"
SYSTEM = "edgemodel-system"
RELEASE = "edgemodel"
SIGNING_KEY = "edgemodel-signing-key"
PUBLIC_KEY = "edgemodel-signing-public"
Json = dict[str, Any]


def build_images(cluster: Cluster) -> dict[str, str]:
    """Build the project's images, push them, and give them by digest as nodes name them."""
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "images.json"
        subprocess.run(
            [sys.executable, "-m", "imagebuild", "--push", f"{cluster.registry_on_host}/edgemodel",
             "--out", str(lock)],
            check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(ROOT / "hack")},
        )  # fmt: skip
        images = json.loads(lock.read_text())
    return {
        name: image.replace(cluster.registry_on_host, cluster.registry, 1) for name, image in images.items()
    }


class Site:
    """Commands against one cluster, as a platform engineer would give them."""

    def __init__(self, cluster: Cluster, images: dict[str, str], **values: Any) -> None:
        """Work with a cluster and images by name; `values` replace the chart values of `values()`."""
        self.cluster = cluster
        self.images = images
        self._values = values

    # --- installing ----------------------------------------------------------------------------------

    def install(self, chart: Path = CHART) -> None:
        """Install or upgrade the chart and make a signing key, unless there is one."""
        self.helm(
            "upgrade", "--install", RELEASE, str(chart), "--namespace", SYSTEM, "--create-namespace",
            "--values", "-", "--wait", "--timeout", "180s", stdin=json.dumps(self.values()),
        )  # fmt: skip
        if not self.exists("secret", SIGNING_KEY, SYSTEM):
            self.make_signing_key()

    def values(self) -> Json:
        """Give the values of the chart for this site."""
        repository, _, digest = self.images["operator"].partition("@")
        return {
            "image": {"repository": repository, "digest": digest},
            "runtimes": {
                name.removeprefix("runtime-"): image
                for name, image in self.images.items()
                if name.startswith("runtime-")
            },
            "registries": {"plainHttp": [self.cluster.registry]},
            # On the emulated node these would only be slow.
            "operator": {"nodeSelector": {"kubernetes.io/arch": "amd64"}},
            "signer": {"nodeSelector": {"kubernetes.io/arch": "amd64"}},
            "admission": {"nodeSelector": {"kubernetes.io/arch": "amd64"}},
            **self._values,
        }

    def make_signing_key(self) -> None:
        """Make the key pair as `edgemodel keygen` prints it."""
        secret = run(
            [sys.executable, "-m", "edgemodel_operator", "cli", "keygen", "--name", SIGNING_KEY,
             "--public-name", PUBLIC_KEY, "--namespace", SYSTEM]
        )  # fmt: skip
        self.cluster.kubectl("create", "-f", "-", stdin=secret.encode())

    def uninstall(self) -> None:
        """Uninstall the chart."""
        self.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "120s")

    def helm(self, *arguments: str, stdin: str = "") -> str:
        """Run helm against the cluster."""
        argv = [str(tool("helm")), f"--kubeconfig={self.cluster.kubeconfig}", *arguments]
        return run(argv, stdin=stdin.encode(), timeout_s=300)

    def can_i(self, verb: str, resource: str, account: str, *options: str) -> str:
        """Ask the API server whether an account may do something: `yes` or `no`."""
        argv = [
            str(tool("kubectl")), f"--kubeconfig={self.cluster.kubeconfig}",
            "auth", "can-i", verb, resource, "--as", account, *options,
        ]  # fmt: skip
        asked = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return asked.stdout.strip().split()[0]

    # --- objects -------------------------------------------------------------------------------------

    def apply(self, *documents: Json) -> str:
        """Apply documents as a user does."""
        text = "\n---\n".join(json.dumps(document) for document in documents)
        return self.cluster.kubectl("apply", "-f", "-", stdin=text.encode())

    def get(self, kind: str, name: str, namespace: str = "") -> Json:
        """Read one object."""
        place = ("--namespace", namespace) if namespace else ()
        document: Json = self.cluster.kubectl_json("get", kind, name, *place)
        return document

    def exists(self, kind: str, name: str, namespace: str = "") -> bool:
        """Say whether an object exists."""
        try:
            self.get(kind, name, namespace)
        except CommandFailed as error:
            if "NotFound" in str(error):
                return False
            raise
        return True

    def wait(
        self,
        what: str,
        look: Callable[[], Json],
        holds: Callable[[Json], bool],
        timeout_s: float = 180,
    ) -> Json:
        """Look until a condition holds; raises ClaimBroken with what was seen last."""
        ends = time.monotonic() + timeout_s
        while True:
            seen = look()
            if holds(seen):
                return seen
            if time.monotonic() > ends:
                shown = json.dumps(seen.get("status", seen), indent=1)[:6000]
                raise ClaimBroken(f"not within {timeout_s:.0f} s: {what}; seen last:\n{shown}")
            time.sleep(0.2)

    def wait_model(
        self, name: str, namespace: str, what: str, holds: Callable[[Json], bool], timeout_s: float = 180
    ) -> Json:
        """Wait until the status of an EdgeModel, observed for its newest generation, is as wanted."""

        def is_current(model: Json) -> bool:
            status = model.get("status") or {}
            current = status.get("observedGeneration") == model["metadata"]["generation"]
            return current and holds(status)

        return self.wait(
            f"{what} ({namespace}/{name})",
            lambda: self.get("edgemodel", name, namespace),
            is_current,
            timeout_s,
        )

    def ask(
        self, node: str, service: Json, model: str, body: bytes, headers: dict[str, str], timeout: float = 20
    ) -> tuple[int, bytes]:
        """Send an inference request from a node to the Service of a model."""
        url = f"{service_url(service)}/v2/models/{model}/infer"
        return self.cluster.node(node).get(url, timeout=timeout, data=body, headers=headers)


def service_url(service: Json) -> str:
    """Give the URL of a Service as every node can reach it."""
    spec = service["spec"]
    return f"http://{spec['clusterIP']}:{spec['ports'][0]['port']}"


def condition(status: Json, kind: str) -> Json:
    """Give a condition of a status; empty if it is not there."""
    found: Json = next((item for item in status.get("conditions", ()) if item["type"] == kind), {})
    return found


def is_true(status: Json, kind: str) -> bool:
    """Say whether a condition is True."""
    return bool(condition(status, kind).get("status") == "True")
