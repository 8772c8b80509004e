"""What becomes of a build when it is cancelled or killed, and what does not depend on the machine."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from edgemodel_operator.build.failures import BuildError, Reason, Step
from edgemodel_operator.build.protocol import decode_message, encode_request
from edgemodel_operator.build.request import BuildRequest, BuildResult, Login, Progress
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import (
    SourceServer,
    hang,
    make_onnx,
    make_request,
    missing_parts,
    sha256,
    source_server,
    with_image,
)
from support.images import push_index
from support.registry import Fault, FaultyRegistry, RegistryServer

MODEL = make_onnx(64)
MIB = 1024 * 1024


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def runtime(client: RegistryClient, registry: RegistryServer) -> str:
    ref = parse_reference(f"{registry.host}/runtimes/lifecycle:1")
    return str(ref.with_digest((await push_index(client, ref)).digest))


@pytest.fixture
def build_request(
    server: SourceServer, runtime: str, registry: RegistryServer, request: pytest.FixtureRequest
) -> BuildRequest:
    repository = f"{registry.host}/lifecycle/{sha256(request.node.name.encode())[:12]}"
    return make_request(server.url(), MODEL, runtime=runtime, repository=repository)


def workers() -> list[int]:
    """Give the process ids of our children that are build workers."""
    children = [
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    return [pid for pid in children if b"edgemodel_operator.build" in _proc(pid, "cmdline")]


def _proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


class Hanging:
    """A source that never ends; tells when a download has begun and when its client has gone."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.gone = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.begun.set()
        try:
            return await hang(request)
        finally:
            self.gone.set()


@pytest.fixture
def hanging(server: SourceServer) -> Hanging:
    handler = Hanging()
    server.answer(handler)
    return handler


async def test_cancelling_a_build_ends_its_worker(
    build_request: BuildRequest, hanging: Hanging, tmp_path: Path
) -> None:
    build = asyncio.create_task(run_build(build_request, work_root=tmp_path))
    await asyncio.wait_for(hanging.begun.wait(), 30)
    (pid,) = workers()
    build.cancel()
    with pytest.raises(asyncio.CancelledError):
        await build
    assert workers() == []
    assert not Path(f"/proc/{pid}").exists()
    await asyncio.wait_for(hanging.gone.wait(), 10)
    assert list(tmp_path.iterdir()) == []


async def test_a_build_beyond_its_time_is_ended(
    build_request: BuildRequest, hanging: Hanging, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as caught:
        await run_build(build_request, work_root=tmp_path, timeout=1.5)
    assert (caught.value.failure.reason, caught.value.failure.retryable) == (Reason.BUILD_TIMEOUT, True)
    assert workers() == []
    assert list(tmp_path.iterdir()) == []


async def test_a_worker_that_is_killed_is_reported(
    build_request: BuildRequest, hanging: Hanging, tmp_path: Path
) -> None:
    build = asyncio.create_task(run_build(build_request, work_root=tmp_path))
    await asyncio.wait_for(hanging.begun.wait(), 30)
    os.kill(workers()[0], signal.SIGKILL)
    with pytest.raises(BuildError, match="killed by signal 9") as caught:
        await build
    assert (caught.value.failure.reason, caught.value.failure.retryable) == (Reason.WORKER_DIED, True)
    assert list(tmp_path.iterdir()) == []


OPERATOR = """
import asyncio, sys
from pathlib import Path
from edgemodel_operator.build.protocol import decode_request
from edgemodel_operator.build.worker import run_build
asyncio.run(run_build(decode_request(sys.stdin.buffer.readline()), work_root=Path(sys.argv[1])))
"""


async def test_the_worker_dies_with_the_operator(
    server: SourceServer, build_request: BuildRequest, hanging: Hanging, tmp_path: Path
) -> None:
    operator = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OPERATOR, str(tmp_path), stdin=asyncio.subprocess.PIPE
    )
    assert operator.stdin is not None
    operator.stdin.write(encode_request(build_request))
    await asyncio.wait_for(hanging.begun.wait(), 30)
    operator.kill()
    await operator.wait()
    await asyncio.wait_for(hanging.gone.wait(), 10)
    assert len(list(tmp_path.iterdir())) == 1
    server.serve(MODEL)
    assert (await run_build(build_request, work_root=tmp_path)).platforms == ("linux/amd64", "linux/arm64")
    assert list(tmp_path.iterdir()) == []


async def test_secrets_are_neither_arguments_nor_environment(
    build_request: BuildRequest, hanging: Hanging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "correct-horse")
    login = Login.model_validate({"host": "registry.example.com", "username": "u", "password": "hunter2"})
    request = build_request.model_copy(update={"credentials": (login,)})
    build = asyncio.create_task(run_build(request, work_root=tmp_path))
    await asyncio.wait_for(hanging.begun.wait(), 30)
    (pid,) = workers()
    shown = _proc(pid, "cmdline") + _proc(pid, "environ")
    build.cancel()
    await asyncio.gather(build, return_exceptions=True)
    assert b"--parent" in shown
    assert b"PATH=" in shown
    assert b"hunter2" not in shown
    assert b"correct-horse" not in shown


def kill_worker(when: Callable[[web.Request], bool]) -> Fault:
    """Make a fault that kills the worker when it sends a request, which then gets no answer."""

    async def fault(request: web.Request) -> web.Response | None:
        if not when(request):
            return None
        os.kill(workers()[0], signal.SIGKILL)
        return web.Response(status=500)

    return fault


async def test_a_build_killed_anywhere_ends_the_same(
    client: RegistryClient, faulty: FaultyRegistry, build_request: BuildRequest, tmp_path: Path
) -> None:
    def into(repository: str) -> BuildRequest:
        hosts = (*build_request.plain_http, faulty.host)
        there = with_image(build_request, repository=f"{faulty.host}/{repository}")
        return there.model_copy(update={"plain_http": hosts})

    def is_number(number: int) -> Callable[[web.Request], bool]:
        return lambda request: len(faulty.seen) == number

    def stores_the_index(request: web.Request) -> bool:
        return request.method == "PUT" and request.path.endswith(f"/manifests/{tag}")

    undisturbed = await run_build(into("killed/never"), work_root=tmp_path)
    total, tag = len(faulty.seen), index_tag(undisturbed.build_key)
    assert total > 15
    chosen = sorted(random.Random(7).sample(range(1, total), 8))
    moments = {f"at-{number}": is_number(number) for number in [*chosen, total]}
    for name, when in (moments | {"at-the-index": stores_the_index}).items():
        request = into(f"killed/{name}")
        here = parse_reference(request.image.repository.replace(faulty.host, build_request.plain_http[0]))
        faulty.seen.clear()
        faulty.faults[:] = [kill_worker(when)]
        with pytest.raises(BuildError, match="WorkerDied"):
            await run_build(request, work_root=tmp_path)
        faulty.faults.clear()
        if await client.head_manifest(here.with_tag(tag)) is not None:
            assert when is not stores_the_index
            assert await missing_parts(client, here.with_tag(tag)) == []
        result = await run_build(request, work_root=tmp_path)
        assert result.index_digest == undisturbed.index_digest
        assert await missing_parts(client, here.with_digest(result.index_digest)) == []


async def run_directly(request: BuildRequest, environment: dict[str, str], umask: int) -> BuildResult:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "edgemodel_operator.build",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
        umask=umask,
    )
    output, _ = await process.communicate(encode_request(request))
    final = decode_message(output.splitlines()[-1])
    assert isinstance(final, BuildResult), final
    return final


async def test_the_digest_does_not_depend_on_the_process(
    registry: RegistryServer, build_request: BuildRequest, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    here = {"TZ": "UTC", "LC_ALL": "C", "PYTHONHASHSEED": "1", "HOME": "/"}
    there = {
        "TZ": "Pacific/Auckland",
        "LC_ALL": "C.UTF-8",
        "PYTHONHASHSEED": "4242",
        "HOME": str(tmp_path / "home"),
    }
    there["TMPDIR"] = str(tmp_path)
    one = await run_directly(_into(build_request, f"{registry.host}/same/one"), here, 0o022)
    two = await run_directly(_into(build_request, f"{registry.host}/same/two"), there, 0o077)
    assert one.index_digest == two.index_digest


def _into(request: BuildRequest, repository: str) -> BuildRequest:
    return with_image(request, repository=repository)


async def test_memory_stays_flat_for_a_model_of_25_megabytes(
    server: SourceServer, build_request: BuildRequest, tmp_path: Path
) -> None:
    model = make_onnx(2500)
    assert len(model) >= 25_000_000
    request = make_request(
        server.serve(model, "/large"),
        model,
        runtime=build_request.runtime,
        repository=build_request.image.repository,
    )
    peaks: list[int] = []

    def measure(progress: Progress) -> None:
        for pid in workers():
            fields = dict(
                line.split(":", 1) for line in _proc(pid, "status").decode().splitlines() if ":" in line
            )
            if "VmHWM" in fields:
                peaks.append(int(fields["VmHWM"].split()[0]) * 1024)

    await run_build(request, on_progress=measure, work_root=tmp_path)
    assert max(peaks) <= 128 * MIB


async def test_progress_counts_bytes(build_request: BuildRequest, tmp_path: Path) -> None:
    told: list[Progress] = []
    await run_build(
        _into(build_request, build_request.image.repository + "/counted"),
        on_progress=told.append,
        work_root=tmp_path,
    )
    downloads = [progress for progress in told if progress.step is Step.DOWNLOAD]
    assert downloads[-1].done == downloads[-1].total == len(MODEL)
