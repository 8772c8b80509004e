"""A whole build with `builder: Docker`: from a model and a context on a server to an image in a registry."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.image import Builder, Dockerfile, PlatformName
from edgemodel_operator.api.source import Archive, HttpSource, Source
from edgemodel_operator.build.failures import BuildError, Reason, Step
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.oci.image import parse_index
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import DockerSettings
from support.archives import pack
from support.build import (
    SourceServer,
    make_onnx,
    make_request,
    missing_parts,
    sha256,
    source_server,
    with_image,
)
from support.docker_engine import DockerEngine, start_engine
from support.dockerfiles import push_shell_runtime
from support.registry import RegistryServer

MODEL = make_onnx(16)
FROM = "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE}\nUSER 0\n"
EMPTY: dict[str, list[object]] = {"images": [], "containers": []}


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with start_engine() as engine:
        yield engine


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def plain(
    server: SourceServer,
    client: RegistryClient,
    registry: RegistryServer,
    engine: DockerEngine,
    request: pytest.FixtureRequest,
) -> BuildRequest:
    """Give a request without a Dockerfile, for the architecture of this machine."""
    runtime = await push_shell_runtime(client, parse_reference(f"{registry.host}/runtimes/worker-shell:1"))
    repository = f"{registry.host}/dockerfiles/{sha256(request.node.name.encode())[:12]}"
    settings = DockerSettings.model_validate({"engines": {"linux/amd64": engine.url}})
    wanted = make_request(
        server.url(), MODEL, runtime=str(runtime.reference), repository=repository, docker=settings
    )
    return with_image(wanted, platforms=(PlatformName.LINUX_AMD64,))


def with_dockerfile(
    request: BuildRequest, server: SourceServer, content: bytes, **changes: Any
) -> BuildRequest:
    """Serve the archive of a context and give the request that builds it."""
    url = server.serve(content, "/context.tar.gz")
    http = HttpSource(url=url, sha256=sha256(content), insecure=True)
    dockerfile = Dockerfile(context=Source(http=http, archive=Archive()), **changes)
    return with_image(request, builder=Builder.DOCKER, dockerfile=dockerfile)


async def test_a_dockerfile_comes_below_the_model(
    plain: BuildRequest, server: SourceServer, client: RegistryClient, engine: DockerEngine, tmp_path: Path
) -> None:
    lines = "ARG SITE\nCOPY x /opt/x\nRUN echo $SITE >/opt/site\nUSER 65532\n"
    content = pack({"docker/Dockerfile": (FROM + lines).encode(), "x": b"x"}, "tar.gz")
    request = with_dockerfile(plain, server, content, path="docker/Dockerfile", args={"SITE": "north"})
    built = await run_build(request, work_root=tmp_path)
    without = await run_build(plain, work_root=tmp_path)
    image = parse_reference(built.image)
    assert await missing_parts(client, image) == []
    (child,) = parse_index((await client.get_manifest(image)).body).manifests
    layers = (await client.get_manifest(image.with_digest(child.digest))).json()["layers"]
    (bare,) = parse_index((await client.get_manifest(parse_reference(without.image))).body).manifests
    below = (await client.get_manifest(image.with_digest(bare.digest))).json()["layers"]
    # Two layers of the runtime, two of the Dockerfile, and the very same model on top.
    assert (len(below), len(layers)) == (3, 5)
    assert layers[:2] == below[:2]
    assert layers[-1]["size"] > 0
    assert built.bytes_pushed < layers[0]["size"]
    assert engine.content() == EMPTY
    assert list(tmp_path.iterdir()) == []
    assert built.build_key != without.build_key


async def test_arguments_and_context_are_part_of_the_build_key(
    plain: BuildRequest, server: SourceServer
) -> None:
    content = pack({"Dockerfile": FROM.encode()}, "tar")
    other = pack({"Dockerfile": FROM.encode() + b"#\n"}, "tar")
    keys = {
        plain.build_key,
        with_dockerfile(plain, server, content).build_key,
        with_dockerfile(plain, server, content, args={"A": "1"}).build_key,
        with_dockerfile(plain, server, content, args={"A": "2"}).build_key,
        with_dockerfile(plain, server, content, path="other").build_key,
        with_dockerfile(plain, server, other).build_key,
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    ("files", "reason", "said"),
    [
        ({"Dockerfile": FROM.encode() + b"RUN exit 3\n"}, Reason.DOCKERFILE_FAILED, "line 4 (RUN exit 3)"),
        ({"other": b""}, Reason.DOCKERFILE_INVALID, "The context holds no 'Dockerfile'"),
        ({"Dockerfile": FROM.encode(), "../up": b""}, Reason.SOURCE_INVALID, "'../up' is not a plain"),
        ({"Dockerfile": FROM.encode(), "a": b"", "A": b""}, Reason.SOURCE_INVALID, "both 'a' and 'A'"),
    ],
)
async def test_what_is_wrong_with_it_is_told(
    plain: BuildRequest, server: SourceServer, files: dict[str, bytes], reason: Reason, said: str
) -> None:
    with pytest.raises(BuildError) as caught:
        await run_build(with_dockerfile(plain, server, pack(files, "tar")))
    assert (caught.value.failure.reason, said in caught.value.failure.message) == (reason, True)
    assert caught.value.failure.step is Step.DOCKERFILE


def _worker() -> int:
    """Find the process of the only build that runs."""
    tasks = Path("/proc/self/task").iterdir()
    children = [int(pid) for task in tasks for pid in (task / "children").read_text().split()]
    (pid,) = [
        pid for pid in children if b"edgemodel_operator.build" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return pid


async def _containers_but(
    engine: DockerEngine, known: set[str], build: asyncio.Task[BuildResult]
) -> set[str]:
    """Wait until the build has a container, and give all that are there."""
    while True:
        assert not build.done(), build.exception()
        found = {container["Id"] for container in (await asyncio.to_thread(engine.content))["containers"]}
        if found - known:
            return found
        await asyncio.sleep(0.05)


async def test_what_a_killed_worker_left_is_removed_by_the_next_try(
    plain: BuildRequest, server: SourceServer, client: RegistryClient, engine: DockerEngine, tmp_path: Path
) -> None:
    content = pack({"Dockerfile": f"{FROM}RUN sleep 1000\n".encode()}, "tar")
    waiting = with_dockerfile(plain, server, content)
    build = asyncio.create_task(run_build(waiting, work_root=tmp_path))
    before = await _containers_but(engine, set(), build)
    os.kill(_worker(), signal.SIGKILL)
    with pytest.raises(BuildError) as caught:
        await build
    assert caught.value.failure.reason is Reason.WORKER_DIED
    target = waiting.target_reference.with_tag(index_tag(waiting.build_key))
    assert await client.head_manifest(target) is None

    again = asyncio.create_task(run_build(waiting, work_root=tmp_path))
    after = await _containers_but(engine, before, again)
    assert after.isdisjoint(before)
    again.cancel()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert list(tmp_path.iterdir()) == []
