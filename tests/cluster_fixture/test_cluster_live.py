"""The test cluster's own promises, checked on a cluster that is up: what other tests stand on."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster, tool
from cluster.commands import run
from cluster.images import write_archive
from cluster.node_files import processor_files

LABELS = {"app": "echo"}


def pod_template(image: str, **spec: Any) -> dict[str, Any]:
    container = {
        "name": "echo",
        "image": image,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        **spec.pop("container", {}),
    }
    return {"metadata": {"labels": LABELS}, "spec": {"containers": [container], **spec}}


def echo_archive(folder: Path, name: str) -> Path:
    programs = {architecture: tool(f"testimage-{architecture}/echo") for architecture in ("amd64", "arm64")}
    return write_archive(folder / "echo.tar", name, programs)


def apply(cluster: Cluster, *documents: dict[str, Any]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text.encode())


def daemon_set(namespace: str, name: str, image: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": LABELS}, "template": pod_template(image, **spec)},
    }


def answer(cluster: Cluster, asker: str, url: str) -> dict[str, Any]:
    status, body = cluster.node(asker).get(url)
    assert status == 200
    parsed: dict[str, Any] = json.loads(body)
    return parsed


@pytest.fixture
def namespace(edge_cluster: Cluster) -> Iterator[str]:
    name = f"fixture-{uuid.uuid4().hex[:8]}"
    edge_cluster.kubectl("create", "namespace", name)
    yield name
    edge_cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def pushed_image(edge_cluster: Cluster, tmp_path: Path) -> str:
    name = f"{edge_cluster.registry}/fixture/echo:1"
    archive = echo_archive(tmp_path, name)
    target = f"docker://{edge_cluster.registry_on_host}/fixture/echo:1"
    run(["skopeo", "copy", "--quiet", "--all", "--dest-tls-verify=false", f"oci-archive:{archive}", target])
    return name


@dataclass(frozen=True)
class Echo:
    """A pod on each node and a Service before them."""

    cluster: Cluster
    namespace: str
    service: str

    def pod(self, node: str) -> str:
        """Return the URL of the pod on a node."""
        select = ["-n", self.namespace, "--field-selector", f"spec.nodeName={node}"]
        pods = self.cluster.kubectl_json("get", "pods", *select)
        return f"http://{pods['items'][0]['status']['podIP']}:8080/"


@pytest.fixture
def echo(edge_cluster: Cluster, namespace: str, pushed_image: str) -> Echo:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "echo", "namespace": namespace},
        "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    apply(edge_cluster, daemon_set(namespace, "echo", pushed_image), service)
    edge_cluster.kubectl("rollout", "status", "-n", namespace, "ds/echo", "--timeout=60s", timeout_s=70)
    found = edge_cluster.kubectl_json("get", "service", "echo", "-n", namespace)
    return Echo(edge_cluster, namespace, f"http://{found['spec']['clusterIP']}/")


@pytest.mark.needs("pods", "registry", "arm64")
def test_pods_run_on_every_node_with_its_architecture(edge_cluster: Cluster, echo: Echo) -> None:
    nodes = edge_cluster.kubectl_json("get", "nodes")["items"]
    want = {node["metadata"]["name"]: node["status"]["nodeInfo"]["architecture"] for node in nodes}
    got = {name: answer(edge_cluster, "edge-a", echo.pod(name)) for name in want}
    assert {name: reply["architecture"] for name, reply in got.items()} == want
    assert want["edge-c"] == "arm64"
    plain = {Path(name).parts[0] for name in processor_files(os.cpu_count() or 1)}
    assert set(got["edge-c"]["processors"]) == plain
    assert set(got["edge-a"]["processors"]) == set(os.listdir("/sys/devices/system/cpu"))  # noqa: PTH208 - names
    assert set(got["edge-a"]["processors"]) > plain


@pytest.mark.needs("pods", "registry")
def test_a_service_balances_over_its_pods(edge_cluster: Cluster, echo: Echo) -> None:
    hosts = {answer(edge_cluster, "edge-a", echo.service)["hostname"] for _ in range(60)}
    assert len(hosts) == len(edge_cluster.nodes())


@pytest.mark.needs("pods", "registry", "npu")
def test_a_device_is_allocated_once(edge_cluster: Cluster, namespace: str, pushed_image: str) -> None:
    resources = {"resources": {"limits": {"example.com/npu": "1"}}}
    template = pod_template(pushed_image, container=resources)
    pods = [
        {"apiVersion": "v1", "kind": "Pod", **template, "metadata": {"name": name, "namespace": namespace}}
        for name in ("first", "second")
    ]
    apply(edge_cluster, pods[0])
    edge_cluster.kubectl("wait", "-n", namespace, "pod/first", "--for=condition=Ready", "--timeout=60s")
    apply(edge_cluster, pods[1])
    unschedulable = "--for=condition=PodScheduled=false"
    edge_cluster.kubectl("wait", "-n", namespace, "pod/second", unschedulable, "--timeout=30s")
    first = edge_cluster.kubectl_json("get", "pod", "first", "-n", namespace)
    assert first["spec"]["nodeName"] == edge_cluster.node("edge-b").name
    reply = answer(edge_cluster, "edge-a", f"http://{first['status']['podIP']}:8080/")
    assert "EXAMPLE_COM_NPU_DEVICES=fake-0" in reply["environment"]


@pytest.mark.needs("pods", "registry", "cut")
def test_a_pod_serves_on_a_node_that_is_cut_off(edge_cluster: Cluster, echo: Echo) -> None:
    node = edge_cluster.node("edge-b")
    inside = echo.pod(node.name)
    node.cut()
    try:
        wait = ["wait", f"node/{node.name}", "--timeout=60s"]
        edge_cluster.kubectl(*wait, "--for=condition=Ready=unknown", timeout_s=70)
        assert answer(edge_cluster, "edge-b", inside)["path"] == "/"
        with pytest.raises(OSError, match=r"timed out|unreachable|No route"):
            edge_cluster.node("edge-a").get(inside, timeout=2)
    finally:
        node.restore()
    edge_cluster.kubectl(*wait, "--for=condition=Ready", timeout_s=70)
    assert answer(edge_cluster, "edge-a", inside)["path"] == "/"


@pytest.mark.needs("pods", "registry", "power")
def test_pods_come_back_after_a_power_failure(edge_cluster: Cluster, echo: Echo) -> None:
    node = edge_cluster.node("edge-c")
    wait = ["wait", f"node/{node.name}", "--timeout=90s"]
    node.power_off()
    try:
        with pytest.raises(ConnectionError, match="edge-c is off"):
            node.get(echo.service)
        edge_cluster.kubectl(*wait, "--for=condition=Ready=unknown", timeout_s=100)
    finally:
        node.power_on()
    edge_cluster.kubectl(*wait, "--for=condition=Ready", timeout_s=100)
    deadline = time.monotonic() + 60
    while not serves(echo, node.name):
        assert time.monotonic() < deadline, "the pod on edge-c does not come back"
        time.sleep(0.5)


def serves(echo: Echo, node: str) -> bool:
    try:
        return echo.cluster.node("edge-a").get(echo.pod(node), timeout=2)[0] == 200
    except (OSError, KeyError):
        return False


@pytest.mark.needs("pods", "images")
def test_an_image_runs_without_a_registry(edge_cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    name = "edgemodel.local/loaded:1"
    edge_cluster.load_image(echo_archive(tmp_path, name), edge_cluster.nodes())
    apply(edge_cluster, daemon_set(namespace, "loaded", name, container={"imagePullPolicy": "Never"}))
    edge_cluster.kubectl("rollout", "status", "-n", namespace, "ds/loaded", "--timeout=60s", timeout_s=70)


@pytest.mark.needs("pods", "cut")
def test_a_thin_link_is_thin_and_a_restored_one_is_not(edge_cluster: Cluster, tmp_path: Path) -> None:
    size = 400_000
    (tmp_path / "model.bin").write_bytes(bytes(size))
    url = edge_cluster.serve_files(tmp_path) + "/model.bin"
    node = edge_cluster.node("edge-a")
    node.throttle(800)
    try:
        with pytest.raises(OSError, match="timed out"):
            fetch_within(node.get, url, 1.0)
    finally:
        node.restore()
    status, body = node.get(url)
    assert (status, len(body)) == (200, size)


def fetch_within(get: Any, url: str, limit_s: float) -> None:
    """Fetch; a transfer that trickles for longer than the limit counts as timed out."""
    began = time.monotonic()
    get(url, timeout=10)
    if time.monotonic() - began > limit_s:
        raise TimeoutError("timed out")


@pytest.mark.needs("pods", "cut")
def test_a_link_that_loses_everything_answers_nothing(edge_cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "small").write_text("x")
    url = edge_cluster.serve_files(tmp_path) + "/small"
    node = edge_cluster.node("edge-a")
    node.loss(1.0)
    try:
        with pytest.raises(OSError, match="timed out"):
            node.get(url, timeout=1)
    finally:
        node.restore()
    assert node.get(url) == (200, b"x")


@pytest.mark.needs("registry")
def test_content_can_be_deleted_from_the_registry(edge_cluster: Cluster, pushed_image: str) -> None:
    target = f"docker://{edge_cluster.registry_on_host}/{pushed_image.partition('/')[2]}"
    run(["skopeo", "delete", "--tls-verify=false", target])
    with pytest.raises(Exception, match="manifest unknown"):
        run(["skopeo", "inspect", "--raw", "--tls-verify=false", target])


@pytest.mark.needs("api")
def test_the_version_is_that_of_the_modules(edge_cluster: Cluster) -> None:
    assert edge_cluster.version.startswith("v1.")
