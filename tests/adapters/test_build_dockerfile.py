"""Dockerfiles on a real Docker Engine: from a context and a published runtime image to our own image."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import docker
import pytest

from edgemodel_operator.build.dockerfile.docker_build import build_runtime
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.dockerfile.saved_image import decompressed
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST
from edgemodel_operator.oci.image import graft, make_index
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.settings import DockerSettings
from support.build import missing_parts
from support.docker_engine import DockerEngine, start_engine
from support.dockerfiles import LABELS, RUNTIME_LABEL, ContextFolder, only, push_shell_runtime
from support.images import AMD64, ARM64, make_layer
from support.registry import RegistryServer, free_port
from support.rootfs import unpack_layers

FROM = "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE}\n"
EMPTY: dict[str, list[object]] = {"images": [], "containers": []}


@pytest.fixture(scope="module")
def engine() -> Iterator[DockerEngine]:
    with start_engine() as engine:
        yield engine


@pytest.fixture
def settings(engine: DockerEngine) -> DockerSettings:
    return DockerSettings.model_validate({"engines": {"linux/amd64": engine.url}})


@pytest.fixture
async def both(client: RegistryClient, registry: RegistryServer) -> PublishedRuntime:
    return await push_shell_runtime(client, parse_reference(f"{registry.host}/runtimes/shell:1"))


@pytest.fixture
def runtime(both: PublishedRuntime) -> PublishedRuntime:
    return only(both, AMD64)


@pytest.fixture
def context(tmp_path: Path) -> ContextFolder:
    (tmp_path / "context").mkdir()
    return ContextFolder(tmp_path / "context")


def files_of(child: RuntimeChild) -> dict[str, tarfile.TarInfo]:
    """List what the new layers of an image hold."""
    found: dict[str, tarfile.TarInfo] = {}
    for layer in child.layers:
        if layer.digest in child.blobs:
            with ExitStack() as stack:
                plain = decompressed(stack, partial(child.blobs[layer.digest].open, "rb"))
                archive = stack.enter_context(tarfile.open(fileobj=io.BytesIO(plain.read())))
                found |= {member.name: member for member in archive}
    return found


def content_of(child: RuntimeChild, root: Path) -> Path:
    """Unpack the new layers of an image."""
    unpack_layers([child.blobs[layer.digest] for layer in child.layers if layer.digest in child.blobs], root)
    return root


async def failure(*arguments: object) -> BuildError:
    with pytest.raises(BuildError) as caught:
        await build_runtime(*arguments)  # type: ignore[arg-type]
    return caught.value


async def test_what_a_dockerfile_adds_stands_on_the_layers_of_the_runtime(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    dockerfile = (
        f"{FROM}ARG GREETING=none\nENV MOOD=fine\nUSER 0\nCOPY *.txt /opt/\nCOPY tool /opt/tool\n"
        "RUN echo $GREETING $(id -u) >/opt/made && rm /opt/base && chmod 0750 /opt/made\nUSER 65532:65532\n"
    )
    files = {"a.txt": "a", "b.txt": "b", "tool": "#!/bin/sh\n", ".dockerignore": "b.*\n"}
    build = context.build(dockerfile, files, arguments={"GREETING": "hello"})
    build.files["tool"].chmod(0o755)
    (child,) = await build_runtime(build, runtime, settings, tmp_path)

    (base,) = runtime.children
    assert child.platform == AMD64
    assert child.layers[: len(base.layers)] == base.layers
    assert set(child.blobs) == {layer.digest for layer in child.layers[len(base.layers) :]}
    found = files_of(child)
    assert {name for name, member in found.items() if member.isfile()} == {
        "opt/a.txt",
        "opt/tool",
        "opt/made",
        "opt/.wh.base",
    }
    assert {member.mtime for member in found.values()} == {0}
    assert (found["opt/tool"].mode, found["opt/made"].mode, found["opt/a.txt"].mode) == (0o755, 0o750, 0o644)
    assert (content_of(child, tmp_path / "root") / "opt/made").read_text() == "hello 0\n"
    config = json.loads(child.config)
    assert set(config) == {"architecture", "config", "created", "os", "rootfs"}
    assert config["config"]["Entrypoint"] == ["/bin/serve"]
    assert config["config"]["User"] == "65532:65532"
    assert sorted(config["config"]["Env"]) == ["MOOD=fine", "PATH=/bin"]
    # What the published image says of its packages is no longer true of this one.
    assert config["config"]["Labels"] == {RUNTIME_LABEL: LABELS[RUNTIME_LABEL]}
    assert any("RUN echo" in line for line in context.lines)
    assert engine.content() == EMPTY


async def test_the_same_files_give_the_same_image_whenever_they_are_made(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    build = context.build(f"{FROM}USER 0\nCOPY a /opt/a\nRUN touch /opt/b\nUSER 65532:65532\n", {"a": "a"})
    first = await build_runtime(build, runtime, settings, tmp_path / "1")
    second = await build_runtime(build, runtime, settings, tmp_path / "2")
    assert [child.digest for child in first] == [child.digest for child in second]


async def test_a_command_that_writes_chance_gives_another_image(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    build = context.build(f"{FROM}USER 0\nRUN cat /proc/sys/kernel/random/uuid >/opt/id\nUSER 65532:65532\n")
    first = await build_runtime(build, runtime, settings, tmp_path / "1")
    second = await build_runtime(build, runtime, settings, tmp_path / "2")
    assert [child.digest for child in first] != [child.digest for child in second]


async def test_a_dockerfile_that_changes_settings_alone_adds_no_layer(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    (child,) = await build_runtime(context.build(f"{FROM}ENV MOOD=fine\n"), runtime, settings, tmp_path)
    assert (child.blobs, child.layers) == ({}, runtime.children[0].layers)
    assert json.loads(child.config)["config"]["Labels"] == LABELS


async def test_the_result_is_grafted_pushed_and_pulled_by_others(
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    client: RegistryClient,
    registry: RegistryServer,
    tmp_path: Path,
) -> None:
    build = context.build(f"{FROM}USER 0\nRUN echo made >/opt/made\nUSER 65532:65532\n")
    (child,) = await build_runtime(build, runtime, settings, tmp_path)
    model, blob = make_layer("models/m/model.onnx", b"model")
    image = graft(child.manifest, child.config, [model])
    target = parse_reference(f"{registry.host}/dockerfiles/grafted:1")
    for layer in child.layers:
        if layer.digest in child.blobs:
            await client.put_blob(target, child.blobs[layer.digest], layer)
        else:
            await client.put_blob(target, b"", layer, mount_from=runtime.reference.repository)
    await client.put_blob(target, blob, model.descriptor)
    await client.put_blob(target, image.config, image.config_descriptor)
    await client.put_manifest(target.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
    await client.put_manifest(target, make_index([image.descriptor]), OCI_INDEX)

    assert await missing_parts(client, target) == []
    layout = tmp_path / "layout"
    copy = ["skopeo", "copy", "--all", "--src-tls-verify=false", f"docker://{target}", f"oci:{layout}:1"]
    await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True)
    unpack_layers(
        [layout / "blobs" / layer.digest.replace(":", "/") for layer in child.layers], tmp_path / "root"
    )
    assert (tmp_path / "root/opt/made").read_text() == "made\n"
    assert (tmp_path / "root/opt/base").read_text() == "base"


async def test_stages_bring_files_and_leave_nothing(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    dockerfile = (
        "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE} AS tools\nUSER 0\nRUN mkdir /out && echo x >/out/x\n"
        "FROM scratch AS unused\nCOPY Dockerfile /\n"
        "FROM ${RUNTIME_IMAGE}\nCOPY --from=tools --chown=65532:65532 /out /opt/out\n"
    )
    (child,) = await build_runtime(context.build(dockerfile), runtime, settings, tmp_path)
    found = files_of(child)
    assert (found["opt/out/x"].uid, found["opt/out/x"].gid) == (65532, 65532)
    assert engine.content() == EMPTY


async def test_commands_reach_no_network(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    build = context.build(f"{FROM}USER 0\nRUN ls /sys/class/net >/opt/networks\nUSER 65532:65532\n")
    (child,) = await build_runtime(build, runtime, settings, tmp_path)
    assert (content_of(child, tmp_path / "root") / "opt/networks").read_text().split() == ["lo"]


async def test_a_failing_command_is_named_with_what_it_said(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    dockerfile = f"{FROM}ARG API_TOKEN\nARG SITE\n\n# why\nRUN echo $SITE $API_TOKEN; \\\n  exit 7\n"
    build = context.build(dockerfile, arguments={"API_TOKEN": "t0ps3cret", "SITE": "north"})
    error = await failure(build, runtime, settings, tmp_path)
    assert error.failure.reason is Reason.DOCKERFILE_FAILED
    assert "linux/amd64 in line 7 (RUN echo $SITE $API_TOKEN; exit 7)" in error.failure.message
    assert "non-zero code: 7" in error.failure.message
    assert "north ***" in error.failure.message
    assert "t0ps3cret" not in error.failure.message + "".join(context.lines)
    assert engine.content() == EMPTY


@pytest.mark.parametrize("line", ["RUN exit 1", "USER 65532"])
async def test_a_dockerfile_that_calls_its_images_anothers_leaves_nothing(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    line: str,
) -> None:
    labels = "LABEL edgemodel.dev/dockerfile-build=other edgemodel.dev/dockerfile-deadline=99999999999"
    build = context.build(
        f"{FROM}USER 0\n{labels}\nRUN touch /a\nFROM scratch\n{labels}\n{FROM}{labels}\n{line}\n"
    )
    with suppress(BuildError):
        await build_runtime(build, runtime, settings, context.folder.parent)
    assert engine.content() == EMPTY


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("FRM x\n", "has no FROM"),
        (f"{FROM}RNU x\n", "RNU"),
        (f"{FROM}COPY missing /opt/\n", "line 3 (COPY missing /opt/)"),
        (f"{FROM}COPY ../../etc/passwd /opt/\n", "line 3 (COPY ../../etc/passwd /opt/)"),
        (
            f"{FROM}ADD http://169.254.169.254/ /opt/\n",
            "Line 3 of the Dockerfile adds something from elsewhere",
        ),
        (f"{FROM}RUN --mount=type=cache,target=/c true\n", "line 3"),
        (f"{FROM}USER root\n", "its user is 'root': end the Dockerfile with `USER 65532:65532`"),
        (f"{FROM}USER 0\n", "its user is '0'"),
        (f"{FROM}ENTRYPOINT []\n", "it has no entrypoint"),
        (f"{FROM}LABEL {RUNTIME_LABEL}=other\n", f"it lacks the label {RUNTIME_LABEL}=shell"),
        (f"{FROM}VOLUME /models\n", "its volume /models would hide the model"),
        (f"{FROM}COPY Dockerfile /models/m/x\n", "The Dockerfile writes /models/m"),
        (f"{FROM}USER 0\nRUN mknod /opt/p p\nUSER 65532\n", "/opt/p is a device or a pipe"),
        ("FROM scratch\nCOPY Dockerfile /\nUSER 65532\n", "it has no entrypoint"),
    ],
)
async def test_what_cannot_be_a_runtime_image_is_refused_in_a_sentence(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    dockerfile: str,
    said: str,
) -> None:
    error = await failure(context.build(dockerfile), runtime, settings, context.folder.parent)
    assert said in error.failure.message
    assert error.failure.reason in {Reason.DOCKERFILE_FAILED, Reason.DOCKERFILE_INVALID}
    assert not error.failure.retryable
    assert engine.content() == EMPTY


async def test_an_engine_that_is_not_there_is_asked_again_later(
    runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    engines = {"linux/amd64": f"tcp://127.0.0.1:{free_port()}"}
    settings = DockerSettings.model_validate({"engines": engines})
    error = await failure(context.build(FROM), runtime, settings, tmp_path)
    assert (error.failure.reason, error.failure.retryable) == (Reason.ENGINE_UNAVAILABLE, True)
    assert engines["linux/amd64"] in error.failure.message


@pytest.mark.parametrize(
    ("engines", "said"),
    [
        ({}, "No Docker Engine is configured for linux/amd64 (there is none)"),
        ({"linux/amd64": "tcp://10.0.0.1:2375"}, "without TLS"),
    ],
)
async def test_an_engine_must_be_configured(
    runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path, engines: dict[str, str], said: str
) -> None:
    settings = DockerSettings.model_validate({"engines": engines})
    error = await failure(context.build(FROM), runtime, settings, tmp_path)
    assert error.failure.reason is Reason.ENGINE_NOT_CONFIGURED
    assert said in error.failure.message


async def test_an_engine_of_another_architecture_is_refused_unless_emulation_is_allowed(
    engine: DockerEngine, both: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    engines = {"engines": {"linux/arm64": engine.url}}
    build = context.build(f"{FROM}COPY Dockerfile /opt/\n")
    error = await failure(build, only(both, ARM64), DockerSettings.model_validate(engines), tmp_path)
    assert error.failure.reason is Reason.ENGINE_UNSUITABLE
    assert "runs on amd64" in error.failure.message
    emulating = DockerSettings.model_validate({**engines, "emulation": True})
    (child,) = await build_runtime(build, only(both, ARM64), emulating, tmp_path)
    assert json.loads(child.config)["architecture"] == "arm64"


async def test_a_dockerfile_beyond_its_time_is_ended(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    limited = settings.model_copy(update={"timeout_seconds": 2})
    error = await failure(context.build(f"{FROM}RUN echo on it; sleep 1000\n"), runtime, limited, tmp_path)
    assert error.failure.reason is Reason.BUILD_TIMEOUT
    assert "on it" in error.failure.message
    assert engine.content() == EMPTY


async def test_a_command_beyond_its_memory_is_ended(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    limited = settings.model_copy(update={"memory_bytes": 64 * 1024**2})
    eating = "RUN x=0123456789abcdef; while true; do x=$x$x; done\n"
    error = await failure(context.build(f"{FROM}{eating}"), runtime, limited, tmp_path)
    assert "non-zero code: 137" in error.failure.message


async def test_an_image_beyond_its_size_is_refused(
    settings: DockerSettings, runtime: PublishedRuntime, context: ContextFolder, tmp_path: Path
) -> None:
    limited = settings.model_copy(update={"max_image_bytes": 100_000})
    error = await failure(context.build(FROM), runtime, limited, tmp_path)
    assert "has more than 100000 bytes" in error.failure.message


async def test_cancelling_ends_the_build_on_the_engine(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    began = asyncio.Event()
    loop = asyncio.get_running_loop()

    def listen(line: str) -> None:
        if "begun" in line and "RUN" not in line:
            loop.call_soon_threadsafe(began.set)

    build = context.build(f"{FROM}RUN echo begun; sleep 1000\n", on_line=listen)
    running = asyncio.create_task(build_runtime(build, runtime, settings, tmp_path))
    await asyncio.wait_for(began.wait(), 60)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert engine.content() == EMPTY


_WORKER = """
import asyncio, sys
from pathlib import Path
from edgemodel_operator.build.dockerfile.docker_build import build_runtime
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.settings import DockerSettings
from support.dockerfiles import ContextFolder

async def main(image, engine, context, dockerfile):
    async with new_session() as session:
        reference = parse_reference(image)
        client = RegistryClient(session, plain_http={reference.registry})
        runtime = PublishedRuntime(client, reference, await read_runtime(client, reference, ["linux/amd64"]))
        settings = DockerSettings.model_validate({"engines": {"linux/amd64": engine}})
        build = ContextFolder(Path(context)).build(dockerfile, on_line=lambda line: print(line, flush=True))
        await build_runtime(build, runtime, settings, Path(context).parent / "killed")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_build_left_is_removed_by_the_next(
    engine: DockerEngine,
    settings: DockerSettings,
    runtime: PublishedRuntime,
    context: ContextFolder,
    tmp_path: Path,
) -> None:
    dockerfile = (
        "ARG RUNTIME_IMAGE\nFROM scratch AS other\nCOPY Dockerfile /\n"
        "FROM ${RUNTIME_IMAGE}\nUSER 0\nRUN touch /a\nRUN echo begun; sleep 1000\n"
    )
    arguments = (str(runtime.reference), engine.url, str(context.folder), dockerfile)
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _WORKER,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert worker.stdout is not None
    async for line in worker.stdout:
        if b": begun" in line:
            break
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    left = engine.content()["images"]
    assert len(left) > 2
    # Of another owner, and not over yet: not ours to remove.
    with engine.client() as client:
        others = _label_image(
            client,
            {"edgemodel.dev/dockerfile-build": "other", "edgemodel.dev/dockerfile-deadline": "99999999999"},
        )
        _label_image(
            client, {"edgemodel.dev/dockerfile-build": "other", "edgemodel.dev/dockerfile-deadline": "1"}
        )
        await build_runtime(context.build(FROM), runtime, settings, tmp_path)
        assert [image["Id"] for image in client.api.images(all=True)] == [others]
        assert client.api.containers(all=True) == []
        client.api.remove_image(others)


def _label_image(client: docker.DockerClient, labels: dict[str, str]) -> str:
    lines = " ".join(f"{name}={value}" for name, value in labels.items())
    image, _ = client.images.build(fileobj=io.BytesIO(f"FROM scratch\nLABEL {lines}\n".encode()), rm=True)
    return str(image.id)
