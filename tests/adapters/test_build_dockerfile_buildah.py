"""Dockerfiles built by Buildah: in our own image, with exactly the rights that its pod gets."""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.build.dockerfile.buildah_pod import PodRights, pod_rights
from edgemodel_operator.build.dockerfile.saved_image import decompressed
from edgemodel_operator.oci.descriptor import Platform, sha256_digest
from edgemodel_operator.oci.image import parse_manifest
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from imagebuild.__main__ import build, parse_options
from support.dockerfiles import RUNTIME_LABEL, push_shell_runtime, write_files
from support.pod_container import FIRST_HOST_USER, PodContainer
from support.rootfs import unpack_layers

FROM = "ARG RUNTIME_IMAGE\nFROM ${RUNTIME_IMAGE}\n"
ORDINARY, NAMESPACED = pod_rights(user_namespaces=False), pod_rights(user_namespaces=True)

# What the worker of a Job will do: the runtime image is in a folder here, since the pod has no network.
# The first run on a machine fetches and packs what is tried here.
pytestmark = pytest.mark.timeout(1800)

_WORKER = """
import asyncio, json, resource, sys
from pathlib import Path
from edgemodel_operator.build.dockerfile.buildah_build import build_runtime_here
from edgemodel_operator.build.dockerfile.inputs import DockerfileBuild, PublishedRuntime
from edgemodel_operator.build.failures import BuildError
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.oci.compression import ZSTD
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from edgemodel_operator.settings import BuildahSettings

async def main(arguments):
    store, reference, folder = LayoutStore(), parse_location("oci:/volume/runtime:1"), Path("/volume/context")
    runtime = PublishedRuntime(store, reference, await read_runtime(store, reference, []))
    files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    lines = []
    build = DockerfileBuild(files, "Dockerfile", arguments, "owner", ZSTD, lines.append)
    try:
        child = await build_runtime_here(build, runtime, BuildahSettings(), Path("/volume/work"))
    except BuildError as error:
        print(json.dumps({"failure": error.failure.to_raw(), "lines": lines}))
        return
    blobs = {digest: str(path.relative_to("/volume")) for digest, path in child.blobs.items()}
    made = {"manifest": child.manifest.decode(), "config": child.config.decode(), "blobs": blobs}
    print(json.dumps({**made, "lines": lines}))

resource.setrlimit(resource.RLIMIT_AS, (2 << 30, resource.getrlimit(resource.RLIMIT_AS)[1]))
asyncio.run(main(json.loads(sys.argv[1])))
"""


@dataclass
class Answer:
    """What the worker in the pod said."""

    said: dict[str, Any]
    volume: Path

    @property
    def message(self) -> str:
        return str(self.said["failure"]["message"])

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.said["config"])
        return found

    def files(self) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
        """List what the new layers hold."""
        found = {}
        for blob in self.said["blobs"].values():
            with ExitStack() as stack:
                plain = decompressed(stack, partial((self.volume / blob).open, "rb"))
                archive = stack.enter_context(tarfile.open(fileobj=io.BytesIO(plain.read())))
                for member in archive:
                    content = archive.extractfile(member)
                    found[member.name] = (member, content.read() if content else b"")
        return found


@dataclass
class Pods:
    """Runs builds, each in a pod of its own."""

    root: Path
    environment: dict[str, str]
    volume: Path
    count: int = field(default=0)

    def build(
        self, rights: PodRights, dockerfile: str, files: dict[str, str] | None = None, **arguments: str
    ) -> Answer:
        self.count += 1
        context = self.volume / "context"
        write_files(context, {"Dockerfile": dockerfile, **(files or {})})
        work = self.volume / "work"
        work.rename(self.volume / f"work-{self.count}") if work.exists() else None
        work.mkdir()
        # As the kubelet leaves a volume for the `fsGroup` of a pod.
        group = rights.pod["securityContext"]["fsGroup"]
        os.chown(work, -1, group or FIRST_HOST_USER)
        work.chmod(0o2777)
        pod = PodContainer(self.root, rights, self.environment, {"/volume": self.volume})
        command = ["/usr/bin/python3", "-c", _WORKER, json.dumps(arguments)]
        ran = pod.run(command, self.volume / f"bundle-{self.count}")
        assert ran.returncode == 0, ran.stderr
        return Answer(json.loads(ran.stdout.splitlines()[-1]), self.volume)


@pytest.fixture(scope="module")
def open_folder() -> Iterator[Path]:
    """Make a folder that all users of this machine can enter, other than pytest's."""
    with tempfile.TemporaryDirectory(prefix="edgemodel-buildah-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="module")
def image(open_folder: Path) -> tuple[Path, dict[str, str]]:
    """Unpack our image as a node does, and give its environment."""
    (built,) = build(parse_options(["--only", "buildah"]))
    root = open_folder / "root"
    unpack_layers([stored.blob for stored in built.layers[Platform("linux", "amd64")]], root)
    return root, dict(pair.split("=", 1) for pair in built.settings.env)


@pytest.fixture
async def pods(image: tuple[Path, dict[str, str]], open_folder: Path) -> Pods:
    volume = Path(tempfile.mkdtemp(dir=open_folder))
    volume.chmod(0o755)
    await push_shell_runtime(LayoutStore(), parse_location(f"oci:{volume}/runtime:1"))
    return Pods(*image, volume)


@pytest.mark.parametrize("rights", [ORDINARY, NAMESPACED], ids=["ordinary", "namespaced"])
async def test_what_a_dockerfile_adds_stands_on_the_layers_of_the_runtime(
    rights: PodRights, pods: Pods
) -> None:
    dockerfile = (
        f"{FROM}ARG GREETING=none\nENV MOOD=fine\nUSER 0\nCOPY *.txt tool /opt/\n"
        "RUN echo $GREETING $(id -u) >/opt/made && rm /opt/base && ls /sys/class/net >/opt/networks\n"
        "USER 65532:65532\n"
    )
    files = {"a.txt": "a", "b.txt": "b", "tool": "#!/bin/sh\n", ".dockerignore": "b.*\n"}
    (pods.volume / "context").mkdir()
    (pods.volume / "context/tool").touch(mode=0o755)
    answer = pods.build(rights, dockerfile, files, GREETING="hello")

    base = parse_location(f"oci:{pods.volume}/runtime:1")
    index = json.loads((await LayoutStore().get_manifest(base)).body)
    (amd64,) = [
        child["digest"] for child in index["manifests"] if child["platform"]["architecture"] == "amd64"
    ]
    published = parse_manifest((await LayoutStore().get_manifest(base.with_digest(amd64))).body).layers
    layers = parse_manifest(answer.said["manifest"].encode()).layers
    assert layers[: len(published)] == published
    assert set(answer.said["blobs"]) == {layer.digest for layer in layers[len(published) :]}
    found = answer.files()
    names = {name for name, (member, _) in found.items() if member.isfile()}
    assert names == {"opt/a.txt", "opt/tool", "opt/made", "opt/networks", "opt/.wh.base"}
    assert found["opt/made"][1] == b"hello 0\n"
    assert found["opt/networks"][1] in {b"", b"lo\n"}
    assert found["opt/tool"][0].mode == 0o755
    assert {(member.mtime, member.uid, member.gid) for member, _ in found.values()} == {(0, 0, 0)}
    container = answer.config["config"]
    assert (container["Entrypoint"], container["User"]) == (["/bin/serve"], "65532:65532")
    assert container["Labels"] == {RUNTIME_LABEL: "shell"}
    assert sorted(container["Env"]) == ["MOOD=fine", "PATH=/bin"]


@pytest.mark.parametrize("rights", [ORDINARY, NAMESPACED], ids=["ordinary", "namespaced"])
async def test_the_limits_and_the_group_of_the_worker_stay_with_it(rights: PodRights, pods: Pods) -> None:
    dockerfile = f"{FROM}USER 0\nRUN mkdir /fresh; ulimit -v >/fresh/memory\nUSER 65532:65532\n"
    found = pods.build(rights, dockerfile).files()
    assert found["fresh/memory"][1] == b"unlimited\n"
    assert (found["fresh"][0].mode, found["fresh"][0].gid, found["fresh/memory"][0].gid) == (0o755, 0, 0)


async def test_both_kinds_of_pods_and_both_times_give_the_same_image(pods: Pods) -> None:
    dockerfile = f"{FROM}USER 0\nCOPY Dockerfile /opt/\nRUN touch /opt/b\nUSER 65532:65532\n"
    answers = [pods.build(rights, dockerfile) for rights in (ORDINARY, ORDINARY, NAMESPACED)]
    assert len({sha256_digest(answer.said["manifest"].encode()) for answer in answers}) == 1


async def test_a_pod_with_a_user_namespace_has_every_user(pods: Pods) -> None:
    dockerfile = (
        f"FROM scratch AS unused\nCOPY Dockerfile /\n{FROM}COPY --chown=65532:65532 Dockerfile /opt/\n"
        "RUN id -u >/tmp/id\nUSER 0\nRUN touch /opt/given; chown 5:6 /opt/given\nUSER 65532\n"
    ).replace("FROM scratch", "ARG RUNTIME_IMAGE\nFROM scratch", 1)
    found = pods.build(NAMESPACED, dockerfile).files()
    owners = {
        name: (found[name][0].uid, found[name][0].gid) for name in ("opt/Dockerfile", "opt/given", "tmp/id")
    }
    assert owners == {"opt/Dockerfile": (65532, 65532), "opt/given": (5, 6), "tmp/id": (65532, 65532)}
    assert found["tmp/id"][1] == b"65532\n"


@pytest.mark.parametrize("line", ["RUN id", "COPY --chown=65532:65532 Dockerfile /opt/"])
async def test_an_ordinary_pod_has_root_alone_and_says_so(pods: Pods, line: str) -> None:
    answer = pods.build(ORDINARY, f"{FROM}{line}\n")
    assert answer.said["failure"]["reason"] == "DockerfileFailed"
    assert f"in line 3 ({line})" in answer.message
    assert "write `USER 0` before RUN" in answer.message


async def test_a_failing_command_is_named_with_what_it_said(pods: Pods) -> None:
    dockerfile = f"{FROM}ARG API_TOKEN\nUSER 0\n\nRUN echo why $API_TOKEN; exit 7\n"
    answer = pods.build(ORDINARY, dockerfile, API_TOKEN="t0ps3cret")
    assert answer.said["failure"]["reason"] == "DockerfileFailed"
    assert "in line 6 (RUN echo why $API_TOKEN; exit 7)" in answer.message
    assert "why ***" in answer.message
    assert "exit status 7" in answer.message
    assert "t0ps3cret" not in json.dumps(answer.said)


async def test_an_image_that_breaks_the_contract_is_refused(pods: Pods) -> None:
    answer = pods.build(ORDINARY, f"{FROM}USER root\n")
    assert answer.said["failure"]["reason"] == "DockerfileInvalid"
    assert "end the Dockerfile with `USER 65532:65532`" in answer.message


def _with(rights: PodRights, **changes: Any) -> PodRights:
    return replace(
        rights, pod={**rights.pod, "securityContext": {**rights.pod["securityContext"], **changes}}
    )


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (_with(ORDINARY, seccompProfile={"type": "RuntimeDefault"}), "its seccompProfile must be Unconfined"),
        (
            _with(NAMESPACED, seccompProfile={"type": "RuntimeDefault"}),
            "its seccompProfile must be Unconfined",
        ),
        (
            replace(NAMESPACED, container={**NAMESPACED.container, "capabilities": {"drop": ["ALL"]}}),
            "the capabilities SETUID, SETGID and SETFCAP",
        ),
        (replace(NAMESPACED, pod={**NAMESPACED.pod, "hostUsers": True}), "set `hostUsers: false`"),
    ],
)
async def test_a_pod_with_too_few_rights_or_too_many_says_which(
    pods: Pods, rights: PodRights, said: str
) -> None:
    answer = pods.build(rights, FROM)
    assert answer.said["failure"]["reason"] == "EngineUnsuitable"
    assert said in answer.message


async def test_nobody_on_the_node_is_root_of_a_namespaced_pod(pods: Pods) -> None:
    pods.build(NAMESPACED, f"{FROM}USER 0\nRUN touch /opt/x\nUSER 65532\n")
    owners = {path.stat().st_uid for path in (pods.volume / "work").rglob("*") if not path.is_symlink()}
    assert min(owners) >= FIRST_HOST_USER
