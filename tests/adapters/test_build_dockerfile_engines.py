"""A Docker Engine behind TCP: who it is, and who may use it, is proved by certificates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.certificates import Authority
from edgemodel_operator.build.dockerfile.docker_build import build_runtime
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from edgemodel_operator.settings import DockerSettings
from support.docker_engine import DockerEngine, start_engine
from support.dockerfiles import ContextFolder, only, push_shell_runtime
from support.images import AMD64
from support.registry import free_port

DOCKERFILE = "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE}\nCOPY Dockerfile /opt/\n"
EMPTY: dict[str, list[object]] = {"images": [], "containers": []}


@dataclass(frozen=True)
class SecuredEngine:
    """An engine that also listens on TCP, for whoever has a certificate of its authority."""

    engine: DockerEngine
    port: int
    authority: Authority

    def settings(self, certificates: Path, host: str = "127.0.0.1") -> DockerSettings:
        engines = {"linux/amd64": f"tcp://{host}:{self.port}"}
        return DockerSettings.model_validate({"engines": engines, "tlsSecretDir": str(certificates)})


def client_files(folder: Path, authority: Authority, trusted: Authority) -> Path:
    """Write the files of a client, as the Secret has them."""
    folder.mkdir()
    certificate, key = authority.issue(f"{folder.name}-client", "operator")
    for name, source in (("cert.pem", certificate), ("key.pem", key), ("ca.pem", trusted.certificate)):
        (folder / name).write_bytes(source.read_bytes())
    return folder


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredEngine]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    certificate, key = authority.issue("engine", "engine", hosts=["127.0.0.1"])
    port = free_port()
    options = (
        f"--host=tcp://127.0.0.1:{port}",
        "--tlsverify",
        f"--tlscacert={authority.certificate}",
        f"--tlscert={certificate}",
        f"--tlskey={key}",
    )
    with start_engine(*options) as engine:
        yield SecuredEngine(engine, port, authority)


@pytest.fixture
async def runtime(tmp_path: Path) -> PublishedRuntime:
    runtime = await push_shell_runtime(LayoutStore(), parse_location(f"oci:{tmp_path}/runtime:1"))
    return only(runtime, AMD64)


@pytest.fixture
def context(tmp_path: Path) -> ContextFolder:
    (tmp_path / "context").mkdir()
    return ContextFolder(tmp_path / "context")


async def test_an_engine_at_tcp_is_used_with_certificates(
    secured: SecuredEngine, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    certificates = client_files(tmp_path / "tls", secured.authority, secured.authority)
    settings = secured.settings(certificates)
    (child,) = await build_runtime(context.build(DOCKERFILE), runtime, settings, tmp_path)
    assert len(child.blobs) == 1
    assert secured.engine.content() == EMPTY


async def test_an_engine_that_cannot_prove_who_it_is_gets_nothing(
    secured: SecuredEngine, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path / "stranger")
    certificates = client_files(tmp_path / "tls", secured.authority, stranger)
    with pytest.raises(BuildError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        await build_runtime(context.build(DOCKERFILE), runtime, secured.settings(certificates), tmp_path)
    assert caught.value.failure.reason is Reason.ENGINE_UNAVAILABLE


async def test_an_engine_refuses_a_stranger(
    secured: SecuredEngine, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    certificates = client_files(tmp_path / "tls", Authority(tmp_path / "stranger"), secured.authority)
    with pytest.raises(BuildError) as caught:
        await build_runtime(context.build(DOCKERFILE), runtime, secured.settings(certificates), tmp_path)
    assert caught.value.failure.reason is Reason.ENGINE_UNAVAILABLE


async def test_missing_certificates_are_named(
    secured: SecuredEngine, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    with pytest.raises(BuildError, match="TLS configurations") as caught:
        await build_runtime(
            context.build(DOCKERFILE), runtime, secured.settings(tmp_path / "nothing"), tmp_path
        )
    assert caught.value.failure.reason is Reason.ENGINE_UNAVAILABLE
