"""tritonclient and KServe's clients, unmodified, over REST and gRPC: every datatype, and refusals."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from serving import ModelMaker, ServerProcess, StartServer

PROJECT = Path(__file__).parent / "clients"


@pytest.fixture(scope="module")
def root(models: ModelMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    models.write_manifest(models.identities(root / "all" / "model.onnx").parent, "all", "3")
    models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense")
    return root


@pytest.fixture(scope="module")
def server(root: Path, module_servers: StartServer) -> ServerProcess:
    server = module_servers("--model-root", root, "--grpc-port", 0)
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert server.process.poll() is None
    return server


def run_client(script: str, server: ServerProcess) -> dict[str, Any]:
    """Run a script in the clients' own environment, which is made first if it is not there."""
    ports = [str(server.port), str(server.wait_for("listening")["grpc_port"])]
    command = ["uv", "run", "--frozen", "--quiet", "--project", str(PROJECT), "python", str(PROJECT / script)]
    done = subprocess.run([*command, *ports], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def triton(server: ServerProcess) -> dict[str, Any]:
    return run_client("ask_triton.py", server)


@pytest.fixture(scope="module")
def kserve(server: ServerProcess) -> dict[str, Any]:
    return run_client("ask_kserve.py", server)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_tritonclient(triton: dict[str, Any], protocol: str) -> None:
    answer = triton[protocol]
    assert (answer["live"], answer["ready"], answer["model_ready"]) == (True, True, True)
    assert (answer["server"], answer["model"]) == ("edgemodel-server", "onnxruntime_onnx")
    index = answer["index"]["models"] if protocol == "grpc" else answer["index"]
    assert [(entry["name"], entry["state"]) for entry in index] == [("all", "READY"), ("dense", "READY")]
    assert answer["outputs"] == triton["arrays"]
    assert answer["outputs_wanted"] == ["y"]
    assert answer["missing_model"].endswith('] there is no model "rose"')
    assert answer["missing_input"].endswith('] missing input "in_BYTES"')


def test_tritonclient_with_json_tensors(triton: dict[str, Any]) -> None:
    assert triton["http_json"] == triton["arrays"]


def test_tritonclient_with_a_stream(triton: dict[str, Any], root: Path) -> None:
    session = ort.InferenceSession(root / "dense" / "model.onnx")
    (y,) = session.run(None, {"x": np.ones((1, 4), np.float32)})
    assert triton["stream"] == [y.tobytes().hex(), y.tobytes().hex(), 'there is no model "rose"']


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_kserve(triton: dict[str, Any], kserve: dict[str, Any], protocol: str) -> None:
    answer = kserve[protocol]
    assert (answer["live"], answer["ready"], answer["model_ready"]) == (True, True, True)
    assert answer["id"] == "seven"
    assert answer["outputs"] == triton["arrays"]
    assert 'there is no model "rose"' in answer["missing_model"]
