"""Whole builds by the real worker process against a real registry and a real source server."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from edgemodel_operator.api.image import PlatformName
from edgemodel_operator.api.references import SecretName
from edgemodel_operator.api.source import HttpSource, Source
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step
from edgemodel_operator.build.request import BuildRequest, Login, Progress
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor
from edgemodel_operator.oci.image import graft, make_index, parse_index
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import SourceSettings
from support.build import (
    LOOPBACK,
    SourceServer,
    make_onnx,
    make_request,
    missing_parts,
    sha256,
    source_server,
    with_image,
)
from support.images import make_layer, push_index
from support.registry import FaultyRegistry, RegistryServer, fail_times, free_port, start_registry

MODEL = make_onnx()


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def runtime(client: RegistryClient, registry: RegistryServer) -> str:
    """Push a runtime image of two platforms and give its reference by digest."""
    ref = parse_reference(f"{registry.host}/runtimes/cpu:1")
    return str(ref.with_digest((await push_index(client, ref)).digest))


@pytest.fixture
def target(registry: RegistryServer, request: pytest.FixtureRequest) -> Reference:
    return parse_reference(f"{registry.host}/models/{sha256(request.node.name.encode())[:12]}")


@pytest.fixture
def build_request(server: SourceServer, runtime: str, target: Reference) -> BuildRequest:
    return make_request(server.url(), MODEL, runtime=runtime, repository=target.name)


async def failure_of(request: BuildRequest, folder: Path) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await run_build(request, work_root=folder)
    assert list(folder.iterdir()) == []
    return caught.value.failure


def tag_of(request: BuildRequest) -> Reference:
    return request.target_reference.with_tag(index_tag(request.build_key))


async def test_a_build_ends_with_a_complete_index(
    client: RegistryClient, build_request: BuildRequest, target: Reference, tmp_path: Path
) -> None:
    steps: list[Progress] = []
    result = await run_build(build_request, on_progress=steps.append, work_root=tmp_path)
    index = parse_reference(result.image)
    assert index == target.with_digest(result.index_digest)
    assert result.platforms == ("linux/amd64", "linux/arm64")
    assert [(file.sha256, file.size) for file in result.report.files] == [(sha256(MODEL), len(MODEL))]
    assert result.build_key == build_request.build_key
    assert await missing_parts(client, index) == []
    tagged = await client.head_manifest(tag_of(build_request))
    assert tagged is not None
    assert tagged.digest == result.index_digest
    announced = list(dict.fromkeys(progress.step for progress in steps))
    steps_of_all = [step for step in Step if step not in {Step.DOCKERFILE, Step.CONVERT}]
    assert announced == steps_of_all
    assert set(result.seconds) == {step.value for step in steps_of_all}
    assert list(tmp_path.iterdir()) == []


async def test_every_platform_has_a_tag_of_its_own(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    result = await run_build(build_request, work_root=tmp_path)
    index = parse_index((await client.get_manifest(parse_reference(result.image))).body)
    for child in index.manifests:
        tag = f"{index_tag(build_request.build_key)}-{str(child.platform).replace('/', '-')}"
        stored = await client.head_manifest(build_request.target_reference.with_tag(tag))
        assert stored is not None
        assert stored.digest == child.digest


async def test_within_a_registry_only_the_model_is_sent(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    result = await run_build(build_request, work_root=tmp_path)
    assert result.bytes_pushed <= len(MODEL) + 3000  # its manifest, and two configurations


async def test_from_registry_to_registry_the_runtime_is_sent_once(
    client: RegistryClient, http_session: aiohttp.ClientSession, build_request: BuildRequest, tmp_path: Path
) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "work").mkdir()
    with start_registry(tmp_path / "registry") as other:
        there = RegistryClient(http_session, plain_http={other.host})
        hosts = {"plain_http": (*build_request.plain_http, other.host)}
        request = with_image(build_request, repository=f"{other.host}/models/line").model_copy(update=hosts)
        first = await run_build(request, work_root=tmp_path / "work")
        assert await missing_parts(there, parse_reference(first.image)) == []
        newer = request.model.model_copy(update={"version": "8"})
        second_version = request.model_copy(update={"model": newer})
        second = await run_build(second_version, work_root=tmp_path / "work")
    here = await run_build(build_request, work_root=tmp_path / "work")
    assert here.index_digest == first.index_digest
    assert first.bytes_pushed > second.bytes_pushed


async def test_building_again_sends_nothing(build_request: BuildRequest, tmp_path: Path) -> None:
    first = await run_build(build_request, work_root=tmp_path)
    again = await run_build(build_request, work_root=tmp_path)
    assert (again.index_digest, again.bytes_pushed) == (first.index_digest, 0)
    assert (again.platforms, again.report) == (first.platforms, first.report)


async def test_a_planted_image_is_replaced(
    client: RegistryClient, build_request: BuildRequest, target: Reference, tmp_path: Path
) -> None:
    """Someone with push rights puts an image with our annotations and one file more under our tag."""
    honest = await run_build(build_request, work_root=tmp_path)
    index = parse_index((await client.get_manifest(parse_reference(honest.image))).body)
    evil, blob = make_layer("opt/content", b"evil")
    await client.put_blob(target, blob, evil.descriptor)
    children: list[Descriptor] = []
    for child in index.manifests:
        manifest = await client.get_manifest(target.with_digest(child.digest))
        config = await client.get_blob(target, manifest.json()["config"]["digest"], max_bytes=1 << 20)
        image = graft(manifest.body, config, [evil])
        await client.put_blob(target, image.config, image.config_descriptor)
        await client.put_manifest(
            target.with_digest(image.descriptor.digest), image.manifest, image.descriptor.media_type
        )
        children.append(image.descriptor)
    await client.put_manifest(tag_of(build_request), make_index(children, index.annotations), OCI_INDEX)

    again = await run_build(build_request, work_root=tmp_path)
    assert again.index_digest == honest.index_digest
    tagged = await client.head_manifest(tag_of(build_request))
    assert tagged is not None
    assert tagged.digest == honest.index_digest


async def test_an_image_that_lost_a_blob_is_completed(
    client: RegistryClient,
    registry: RegistryServer,
    build_request: BuildRequest,
    target: Reference,
    tmp_path: Path,
) -> None:
    first = await run_build(build_request, work_root=tmp_path)
    index = parse_index((await client.get_manifest(parse_reference(first.image))).body)
    manifest = await client.get_manifest(target.with_digest(index.manifests[1].digest))
    lost = manifest.json()["config"]["digest"].removeprefix("sha256:")
    link = registry.storage / f"docker/registry/v2/repositories/{target.repository}/_layers/sha256/{lost}"
    shutil.rmtree(link)
    assert await missing_parts(client, parse_reference(first.image)) == [f"sha256:{lost}"]
    again = await run_build(build_request, work_root=tmp_path)
    assert again.index_digest == first.index_digest
    assert await missing_parts(client, parse_reference(first.image)) == []


async def test_one_platform_alone(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    request = with_image(build_request, platforms=(PlatformName.LINUX_ARM64,))
    result = await run_build(request, work_root=tmp_path)
    assert result.platforms == ("linux/arm64",)
    assert result.build_key != build_request.build_key


async def test_another_tool_finds_the_image_whole(build_request: BuildRequest, tmp_path: Path) -> None:
    skopeo = shutil.which("skopeo")
    if skopeo is None:
        pytest.skip("skopeo is not installed")
    result = await run_build(build_request, work_root=tmp_path)
    copy = [skopeo, "copy", "--all", "--preserve-digests", "--src-tls-verify=false"]
    process = await asyncio.create_subprocess_exec(
        *copy, f"docker://{result.image}", f"oci:{tmp_path}/layout:copied", stderr=subprocess.PIPE
    )
    _, complaints = await process.communicate()
    assert process.returncode == 0, complaints
    layout = json.loads((tmp_path / "layout" / "index.json").read_text())
    assert layout["manifests"][0]["digest"] == result.index_digest


# --- bad input -----------------------------------------------------------------------------------------


async def redirect_to_metadata(request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "http://169.254.169.254/latest/"})


@dataclass(frozen=True)
class BadSource:
    path: str
    content: bytes
    reason: Reason
    step: Step


@pytest.mark.parametrize(
    "bad",
    [
        BadSource("/missing", MODEL, Reason.SOURCE_NOT_FOUND, Step.DOWNLOAD),
        BadSource("/metadata", MODEL, Reason.SOURCE_FORBIDDEN_ADDRESS, Step.DOWNLOAD),
        BadSource("/other", MODEL, Reason.SOURCE_DIGEST_MISMATCH, Step.DOWNLOAD),
        BadSource("/large", bytes(100_000), Reason.SOURCE_TOO_LARGE, Step.DOWNLOAD),
        BadSource("/page", b"<html>Please log in</html>", Reason.INVALID_MODEL, Step.INSPECT),
    ],
    ids=lambda bad: bad.reason,
)
async def test_a_bad_source_leaves_nothing_behind(
    client: RegistryClient,
    server: SourceServer,
    build_request: BuildRequest,
    tmp_path: Path,
    bad: BadSource,
) -> None:
    server.serve(b"something else", "/other")
    server.serve(bad.content, "/large")
    server.serve(bad.content, "/page")
    server.answer(redirect_to_metadata, "/metadata")
    source = Source(http=HttpSource(url=server.url(bad.path), sha256=sha256(bad.content), insecure=True))
    limits = SourceSettings(allowed_networks=LOOPBACK, max_bytes=50_000)
    model = build_request.model.model_copy(update={"source": source})
    request = build_request.model_copy(update={"model": model, "source_limits": limits})
    failure = await failure_of(request, tmp_path)
    assert (failure.reason, failure.step) == (bad.reason, bad.step)
    assert await client.head_manifest(tag_of(request)) is None


async def test_a_build_beyond_its_disk_leaves_nothing_behind(
    server: SourceServer, build_request: BuildRequest, tmp_path: Path
) -> None:
    async def send_endlessly(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(bytes(1 << 16))

    server.answer(send_endlessly)
    with pytest.raises(BuildError) as caught:
        await run_build(build_request, work_root=tmp_path, disk_bytes=4 << 20)
    assert (caught.value.failure.reason, caught.value.failure.retryable) == (Reason.NO_SPACE, True)
    assert list(tmp_path.iterdir()) == []


async def test_a_source_without_an_exception_is_guarded(build_request: BuildRequest, tmp_path: Path) -> None:
    request = build_request.model_copy(update={"source_limits": SourceSettings()})
    failure = await failure_of(request, tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_FORBIDDEN_ADDRESS, False)


async def test_the_registry_is_down(build_request: BuildRequest, tmp_path: Path) -> None:
    host = f"127.0.0.1:{free_port()}"
    hosts = {"plain_http": (*build_request.plain_http, host)}
    request = with_image(build_request, repository=f"{host}/models/line").model_copy(update=hosts)
    failure = await failure_of(request, tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.REGISTRY_UNAVAILABLE, True)
    assert failure.step is Step.RESOLVE
    assert host.partition(":")[0] in failure.message


@pytest.fixture
def through_proxy(build_request: BuildRequest, faulty: FaultyRegistry) -> BuildRequest:
    """Push through the proxy, so that it can refuse; the runtime image comes from the registry itself."""
    there = with_image(
        build_request,
        repository=f"{faulty.host}/{build_request.target_reference.repository}",
        push_secret=SecretName(name="site-registry"),
    )
    hosts = {
        "plain_http": (*build_request.plain_http, faulty.host),
        "credentials": (Login(host=faulty.host, username="robot", password=SecretStr("hunter2")),),
    }
    return there.model_copy(update=hosts)


async def test_the_registry_refuses_the_push(
    client: RegistryClient,
    faulty: FaultyRegistry,
    through_proxy: BuildRequest,
    target: Reference,
    tmp_path: Path,
) -> None:
    faulty.faults.append(fail_times(100, 403, method="POST"))
    failure = await failure_of(through_proxy, tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.REGISTRY_DENIED, False)
    assert failure.step is Step.PUSH
    assert "'site-registry'" in failure.message
    assert "hunter2" not in failure.message
    assert await client.head_manifest(target.with_tag(index_tag(through_proxy.build_key))) is None


async def test_the_registry_refuses_the_index_alone(
    client: RegistryClient,
    faulty: FaultyRegistry,
    through_proxy: BuildRequest,
    target: Reference,
    tmp_path: Path,
) -> None:
    tag = index_tag(through_proxy.build_key)

    async def refuse(request: web.Request) -> web.Response | None:
        refused = request.method == "PUT" and request.path.endswith(f"/manifests/{tag}")
        return web.Response(status=405) if refused else None

    faulty.faults.append(refuse)
    failure = await failure_of(through_proxy, tmp_path)
    assert (failure.reason, failure.step) == (Reason.REGISTRY_REFUSED, Step.PUSH)
    assert await client.head_manifest(target.with_tag(tag)) is None
    faulty.faults.clear()
    result = await run_build(through_proxy, work_root=tmp_path)
    assert await missing_parts(client, target.with_digest(result.index_digest)) == []


async def test_a_registry_that_stumbles_is_asked_again(
    faulty: FaultyRegistry, through_proxy: BuildRequest, tmp_path: Path
) -> None:
    faulty.faults.append(fail_times(1, 503, method="POST"))
    faulty.faults.append(fail_times(1, 500, method="PUT"))
    result = await run_build(through_proxy, work_root=tmp_path)
    assert result.bytes_pushed > 0


async def test_the_runtime_image_is_missing(build_request: BuildRequest, tmp_path: Path) -> None:
    runtime = build_request.runtime_reference.with_digest(f"sha256:{'0' * 64}")
    failure = await failure_of(build_request.model_copy(update={"runtime": str(runtime)}), tmp_path)
    assert (failure.reason, failure.step) == (Reason.RUNTIME_IMAGE_MISSING, Step.RESOLVE)
    assert str(runtime) in failure.message


async def test_the_runtime_image_lacks_a_platform(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    ref = build_request.runtime_reference
    index = parse_index((await client.get_manifest(ref)).body)
    half = await client.put_manifest(ref.with_tag("half"), make_index(index.manifests[:1]), OCI_INDEX)
    request = with_image(build_request, platforms=(PlatformName.LINUX_AMD64, PlatformName.LINUX_ARM64))
    changes = {"runtime": str(ref.with_digest(half.descriptor.digest))}
    failure = await failure_of(request.model_copy(update=changes), tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.PLATFORM_MISSING, False)
    assert "not there for linux/arm64; it has linux/amd64" in failure.message


async def test_a_repository_that_is_none(build_request: BuildRequest, tmp_path: Path) -> None:
    failure = await failure_of(with_image(build_request, repository="models/line"), tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.INVALID_REQUEST, False)
    assert "write host[:port]/path" in failure.message
