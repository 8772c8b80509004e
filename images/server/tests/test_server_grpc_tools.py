"""Two tools of others against the gRPC port: h2spec's conformance tests, and grpcurl by reflection alone."""

import base64
import json
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from serving import ServerProcess

from cluster.tools import tool


@pytest.fixture(scope="module")
def address(grpc_server: ServerProcess) -> str:
    return f"127.0.0.1:{grpc_server.wait_for('listening')['grpc_port']}"


def test_http2_conforms(address: str, tmp_path: Path) -> None:
    """All of h2spec, strict cases and those for HPACK and for HTTP/2 in general, and none of them skipped."""
    report = tmp_path / "report.xml"
    port = address.rpartition(":")[2]
    command = [
        str(tool("h2spec")),
        "--strict",
        "--port",
        port,
        "--timeout",
        "10",
        "--junit-report",
        str(report),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=500, check=False)
    cases = ElementTree.parse(report).getroot().findall(".//testcase")  # noqa: S314 - h2spec's own file
    bad = [case.attrib for case in cases if len(case)]
    assert not bad, done.stdout
    assert done.returncode == 0
    assert len(cases) >= 140


def grpcurl(address: str, *words: str, options: tuple[str, ...] = ()) -> str:
    command = [str(tool("grpcurl")), "-plaintext", *options, address, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(address: str, method: str, request: Any) -> Any:
    return json.loads(grpcurl(address, method, options=("-d", json.dumps(request), "-emit-defaults")))


def test_services_are_listed_and_described(address: str) -> None:
    assert grpcurl(address, "list").split() == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
    ]
    described = grpcurl(address, "describe", "inference.ModelInferRequest")
    assert "repeated bytes raw_input_contents = 7;" in described
    for symbol in (
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.InferInputTensor",
        "grpc.health.v1.HealthCheckResponse.ServingStatus",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflectionRequest",
    ):
        assert grpcurl(address, "describe", symbol).startswith(symbol)


def test_a_symbol_that_is_not_there(address: str) -> None:
    command = [str(tool("grpcurl")), "-plaintext", address, "describe", "no.Such"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "no.Such" in done.stderr


def test_health_and_inference_by_hand(address: str) -> None:
    assert call(address, "grpc.health.v1.Health/Check", {"service": "dense"}) == {"status": "SERVING"}
    x = [0.5, -1.0, 2.0, 0.25]
    request = {
        "model_name": "echo",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [4], "contents": {"fp32_contents": x}}],
    }
    answer = call(address, "inference.GRPCInferenceService/ModelInfer", request)
    assert answer["model_name"] == "echo"
    (raw,) = answer["raw_output_contents"]
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(raw), "<f4"), x)
