"""Fixtures: models made on the spot and server processes."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc_client import GrpcClient
from hypothesis import HealthCheck, settings
from serving import ModelMaker, ServerProcess, StartServer, running_servers

# How long an example takes says something about the machine, nothing about the code.
settings.register_profile("server", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("server")


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    with running_servers() as start:
        yield start


@pytest.fixture(scope="module")
def module_servers() -> Iterator[StartServer]:
    with running_servers() as start:
        yield start


@pytest.fixture(scope="session")
def models() -> ModelMaker:
    return ModelMaker()


@pytest.fixture(scope="session")
def dense_server(models: ModelMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the dense model, version 7, as ``dense``; tests leave it as they found it."""
    folder = models.dense(tmp_path_factory.mktemp("dense") / "model.onnx").parent
    with running_servers() as start:
        yield start("--model", models.write_manifest(folder, "dense"))


@pytest.fixture(scope="session")
def grpc_models(models: ModelMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models: all, dense, deep, echo, slow, and one that is broken."""
    root = tmp_path_factory.mktemp("models")
    models.write_manifest(models.identities(root / "all" / "model.onnx").parent, "all", "3")
    models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense")
    models.write_manifest(models.deep(root / "deep" / "model.onnx").parent, "deep")
    models.write_manifest(models.identity(root / "echo" / "model.onnx", "FP32", ["n"]).parent, "echo")
    models.write_manifest(models.slow(root / "slow" / "model.onnx").parent, "slow")
    (root / "broken").mkdir()
    (root / "broken" / "model.onnx").write_bytes(b"no model")
    models.write_manifest(root / "broken", "broken")
    return root


@pytest.fixture(scope="session")
def grpc_server(grpc_models: Path) -> Iterator[ServerProcess]:
    """A server of those models with a gRPC port and one thread; tests leave it as they found it."""
    with running_servers() as start:
        server = start("--model-root", grpc_models, "--grpc-port", 0, "--access-log", 1, "--threads", 1)
        while sum(line["event"] in ("model ready", "model not ready") for line in server.log) < 6:
            assert server.process.poll() is None
            time.sleep(0.05)
        yield server


@pytest.fixture(scope="session")
def grpc_client(grpc_server: ServerProcess) -> Iterator[GrpcClient]:
    with GrpcClient(grpc_server) as client:
        yield client
