"""One EdgeModel of each format, applied at once: right answers over REST and gRPC from every node."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.base import Cluster
from demo import objects
from demo.site import Site, is_true, service_url
from support.formats import make_files, weights_of

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry")

Json = dict[str, Any]
NAMESPACE = "formats"
TESTS = Path(__file__).resolve().parents[1]
WIDTH = 16
TOLERANCE = 1e-5
FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "openvino": "OpenVINO"}
SERVING: dict[str, Json] = {
    "onnx": {"ports": {"http": 9080, "grpc": 9081}, "batching": {"maxDelayMilliseconds": 1}},
    "tflite": {"batching": {"mode": "Disabled"}, "idleUnloadSeconds": 5},
    "openvino": {"maxCPUPercent": 80},
}
"""Every option of the server is given to one of them."""
QUESTION = np.linspace(-1, 1, 2 * WIDTH, dtype=np.float32).reshape(2, WIDTH)


@dataclass(frozen=True)
class Served:
    """A model that is ready, and its Service."""

    name: str
    service: Json

    def port(self, name: str) -> str:
        """Give `host:port` of a port of the Service."""
        spec = self.service["spec"]
        return f"{spec['clusterIP']}:{next(item['port'] for item in spec['ports'] if item['name'] == name)}"


@pytest.fixture(scope="module")
def served(site: Site, edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Served]:
    """Apply all of them, and wait until they are ready on every node."""
    folder = tmp_path_factory.mktemp("formats")
    url = edge_cluster.serve_files(folder)
    models = [_edge_model(name, folder, url, edge_cluster.registry) for name in FORMATS]
    site.apply(objects.namespace(NAMESPACE), *models)
    for name in FORMATS:
        site.wait_model(name, NAMESPACE, f"{name} is ready", _is_everywhere, timeout_s=300)
    return {name: Served(name, site.get("service", name, NAMESPACE)) for name in FORMATS}


def _is_everywhere(status: Json) -> bool:
    return is_true(status, "Ready") and status["nodes"]["updated"] == status["nodes"]["total"] == 3


def _edge_model(name: str, folder: Path, url: str, registry: str) -> Json:
    sources = []
    for number, content in enumerate(make_files(FORMATS[name], WIDTH)):
        (folder / f"{name}-{number}").write_bytes(content)
        sources.append(
            {"url": f"{url}/{name}-{number}", "sha256": hashlib.sha256(content).hexdigest()},
        )
    model, *weights = sources
    http = model | {"insecure": True} | ({"weights": weights[0]} if weights else {})
    return {
        "apiVersion": objects.API,
        "kind": "EdgeModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"format": FORMATS[name], "version": "1", "source": {"http": http}},
            "image": {"repository": f"{registry}/models/formats-{name}"},
            "targets": [{"accelerator": "cpu"}],
            "health": {"probationSeconds": 0},
            "rollout": {"waves": [{"percent": 100}]},
            "serving": SERVING[name],
        },
    }


def _claim_right(answer: Any) -> None:
    np.testing.assert_allclose(np.array(answer), QUESTION @ weights_of(WIDTH), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", FORMATS)
def test_every_node_answers_over_rest(served: dict[str, Served], edge_cluster: Cluster, name: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, WIDTH], "data": QUESTION.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    url = f"{service_url(served[name].service)}/v2/models/{name}/infer"
    assert len(edge_cluster.nodes()) == 3
    for node in edge_cluster.nodes():
        status, answer = edge_cluster.node(node).get(url, timeout=30, data=body)
        assert status == 200, (node, answer)
        (output,) = json.loads(answer)["outputs"]
        assert output["shape"] == [2, WIDTH]
        _claim_right(np.array(output["data"]).reshape(2, WIDTH))


@pytest.mark.parametrize("name", FORMATS)
def test_every_node_answers_over_grpc(served: dict[str, Served], edge_cluster: Cluster, name: str) -> None:
    shape = [str(size) for size in QUESTION.shape]
    numbers = [repr(float(number)) for number in QUESTION.flat]
    for node in edge_cluster.nodes():
        program = ["env", f"PYTHONPATH={TESTS}", sys.executable, "-m", "support.grpc_infer"]
        asked = [served[name].port("grpc"), name, "x", *shape, *numbers]
        _claim_right(json.loads(edge_cluster.node(node).run([*program, *asked])))


def test_pods_run_the_runtime_of_their_format(served: dict[str, Served], edge_cluster: Cluster) -> None:
    found = edge_cluster.kubectl_json("get", "edgemodels", "--namespace", NAMESPACE)["items"]
    variants = {
        model["metadata"]["name"]: model["status"]["images"][0]["variant"]
        for model in found
        if model["metadata"]["name"] in served
    }
    assert variants == {"onnx": "onnxruntime-cpu", "tflite": "litert-cpu", "openvino": "openvino"}
