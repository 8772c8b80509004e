"""Fixtures: models made on the spot and server processes."""

from collections.abc import Iterator

import pytest
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
