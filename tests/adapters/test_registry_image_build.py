"""The project's own images: built twice, pushed, pulled, unpacked and run, for both architectures."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.node_files import processor_files
from edgemodel_operator.build.origin.packages import packages_of
from edgemodel_operator.oci.descriptor import Descriptor, Platform
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from imagebuild.__main__ import PROJECT, build, main, parse_options
from imagebuild.assemble import BuiltImage
from support.formats import make_files
from support.registry import RegistryServer
from support.rootfs import unpack_layers

# The first run on a machine fetches and packs what is tried here.
pytestmark = pytest.mark.timeout(1800)

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
RUNTIME = "runtime-onnxruntime-cpu"

_SERVER_SMOKE = (
    "import hpack, httptools, io, numpy, orjson, simdjson, uvloop, edgemodel_server.__main__;"
    "import google.protobuf.message, PIL.Image as image;"
    "assert (numpy.ones((2, 2)) @ numpy.ones((2, 2)) == 2).all();"
    "assert numpy.frombuffer(simdjson.Parser().parse(b'[1.5]').as_buffer(of_type='d'))[0] == 1.5;"
    "files = {kind: io.BytesIO() for kind in ('JPEG', 'PNG')};"
    "[image.new('RGB', (9, 9), (255, 0, 0)).save(file, kind) for kind, file in files.items()];"
    "assert all(image.open(file).convert('RGB').getpixel((4, 4))[0] > 250 for file in files.values());"
)
_SMOKE = {
    RUNTIME: _SERVER_SMOKE
    + ("import onnxruntime;assert 'CPUExecutionProvider' in onnxruntime.get_available_providers();"),
    "runtime-litert-cpu": _SERVER_SMOKE + "import edgemodel_server.runtimes.litert;",
    "runtime-openvino": _SERVER_SMOKE
    + (
        "import edgemodel_server.runtimes.openvino, openvino;"
        "assert openvino.Core().available_devices == ['CPU'];"
    ),
    "operator": (
        "import aiohttp, cryptography.x509, kopf, nacl.secret, onnx, onnxruntime, prometheus_client, yaml;"
        "import botocore.auth, docker, kubernetes.aio.client as k8s, rich.progress; assert k8s.ApiClient;"
        "import edgemodel_operator.admission.main, edgemodel_operator.build.main;"
        "import edgemodel_operator.cli.main, edgemodel_operator.main;"
        "import edgemodel_operator.signer.main, edgemodel_operator.node.main, sigstore.sign, sigstore.verify;"
        "import edgemodel_operator.signing.expressions as e; assert e.load_cel().evaluate('1 + 1') == 2;"
        "import edgemodel_operator.oci.registry as r, zoneinfo; zoneinfo.ZoneInfo('Europe/Berlin');"
    ),
    "buildah": (
        "import edgemodel_operator.build.dockerfile.buildah_build, os, subprocess;"
        "program = ['/emulator'] * os.path.exists('/emulator') + ['/usr/bin/buildah', '--version'];"
        "assert b'buildah version' in subprocess.check_output(program);"
    ),
}
_FORMATS = {RUNTIME: "ONNX", "runtime-litert-cpu": "TFLite", "runtime-openvino": "OpenVINO"}
_SUFFIXES = {"ONNX": (".onnx",), "TFLite": (".tflite",), "OpenVINO": (".xml", ".bin")}
_EVERYWHERE = (
    "import encodings, os, platform, sqlite3, ssl, sys;"
    "assert len(ssl.create_default_context().get_ca_certs()) > 50;"
    "assert os.getuid() == 65532 and not os.path.exists('/bin/sh');"
    "assert encodings.__cached__ and os.path.exists(encodings.__cached__);"
    "print(platform.machine())"
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Freeze the sources, so that somebody's edits during the test do not change the result."""
    copy = tmp_path_factory.mktemp("project")
    for folder in ("operator", "images"):
        shutil.copytree(PROJECT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "uv.lock", "README.md", ".python-version"):
        shutil.copy(PROJECT / file, copy)
    return copy


@pytest.fixture(scope="module")
def images(project: Path) -> dict[str, BuiltImage]:
    built = build(parse_options(["--project", str(project)]))
    return {image.recipe.repository: image for image in built}


def test_an_empty_cache_gives_the_same_digests(
    images: dict[str, BuiltImage], project: Path, tmp_path: Path
) -> None:
    again = build(parse_options(["--project", str(project), "--cache", str(tmp_path)]))
    assert {image.recipe.repository: image.index for image in again} == {
        name: image.index for name, image in images.items()
    }


def test_what_is_the_same_on_all_platforms_is_stored_once(images: dict[str, BuiltImage]) -> None:
    for image in images.values():
        stacks = [{stored.layer.diff_id for stored in stack} for stack in image.layers.values()]
        assert set.intersection(*stacks)
        assert stacks[0] != stacks[1]


def test_images_stay_small(images: dict[str, BuiltImage]) -> None:
    limits = {
        "base": 20_000_000,
        RUNTIME: 45_000_000,
        "runtime-litert-cpu": 42_000_000,
        "runtime-openvino": 60_000_000,
        "operator": 62_000_000,
        "buildah": 70_000_000,
    }
    packed = {
        name: max(sum(s.layer.descriptor.size for s in stack) for stack in image.layers.values())
        for name, image in images.items()
    }
    assert {name: size for name, size in packed.items() if size > limits.get(name, 0)} == {}


def test_runtime_images_say_what_they_hold_and_can_do(images: dict[str, BuiltImage]) -> None:
    for name, model_format in _FORMATS.items():
        for image in images[name].images.values():
            labels = json.loads(image.config)["config"]["Labels"]
            packages = {package.name: package for package in packages_of(image.config) or ()}
            assert {"libc6", "numpy", "edgemodel-server"} <= packages.keys()
            assert all(package.sha256 for package in packages.values() if package.kind != "generic")
            assert list(json.loads(labels["edgemodel.dev/operators"])) == [model_format]


def test_what_the_onnx_runtime_adds_to_the_base_stays_small(images: dict[str, BuiltImage]) -> None:
    base = {stored.layer.diff_id for stack in images["base"].layers.values() for stored in stack}
    for stack in images[RUNTIME].layers.values():
        added = [stored for stored in stack if stored.layer.diff_id not in base]
        assert sum(stored.layer.descriptor.size for stored in added) <= 30_000_000
        assert sum(stored.unpacked_bytes for stored in added) <= 95_000_000


async def test_pushed_images_can_be_pulled_whole(
    images: dict[str, BuiltImage],
    project: Path,
    registry: RegistryServer,
    client: RegistryClient,
    tmp_path: Path,
) -> None:
    lock_file = tmp_path / "lock.json"
    push = ["--push", f"{registry.host}/edgemodel", "--out", str(lock_file)]
    # In a thread: the command line runs an event loop of its own.
    assert await asyncio.to_thread(main, ["--project", str(project), *push]) == 0
    lock = json.loads(lock_file.read_text())
    assert set(lock) == set(images)
    for name, pinned in lock.items():
        ref = parse_reference(pinned)
        assert ref.digest == images[name].descriptor.digest
        assert (await client.head_manifest(ref.with_tag(images[name].version))) is not None
        for child in parse_index((await client.get_manifest(ref)).body).manifests:
            assert child.platform is not None
            tagged = ref.with_tag(f"{images[name].version}-linux-{child.platform.architecture}")
            manifest = await client.get_manifest(tagged)
            assert manifest.descriptor.digest == child.digest
            for blob in parse_manifest(manifest.body).layers:
                await _read_whole(client, ref.with_tag("any").name, blob)


@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
@pytest.mark.parametrize("name", sorted(_SMOKE))
def test_an_image_runs_without_installation(
    images: dict[str, BuiltImage], name: str, platform: Platform, tmp_path: Path
) -> None:
    environment = dict(pair.split("=", 1) for pair in images[name].settings.env)
    program = ["/usr/bin/python3", "-W", "error", "-c", _SMOKE[name] + _EVERYWHERE]
    stdout = _run_inside(images[name], platform, tmp_path / "root", program, environment)
    assert stdout.split() == ["x86_64" if platform == AMD64 else "aarch64"]


@pytest.mark.parametrize("platform", [AMD64, ARM64], ids=str)
@pytest.mark.parametrize(("name", "model_format"), sorted(_FORMATS.items()))
def test_a_runtime_image_serves_its_format(
    images: dict[str, BuiltImage], name: str, model_format: str, platform: Platform, tmp_path: Path
) -> None:
    folder = tmp_path / "root" / "models" / "multiply"
    folder.mkdir(parents=True)
    for suffix, content in zip(_SUFFIXES[model_format], make_files(model_format), strict=True):
        (folder / f"model{suffix}").write_bytes(content)
    command = [
        *images[name].settings.entrypoint,
        "--check",
        "--model",
        f"/models/multiply/model{_SUFFIXES[model_format][0]}",
    ]
    environment = dict(pair.split("=", 1) for pair in images[name].settings.env)
    # Exit status 0 says that the model computes; the log is on standard error, and shown if it does not.
    assert _run_inside(images[name], platform, tmp_path / "root", command, environment) == ""


def _run_inside(
    image: BuiltImage, platform: Platform, root: Path, command: Sequence[str], environment: dict[str, str]
) -> str:
    """Unpack the image, run a command in it as the image's user, and return what it printed."""
    chroot, emulator = shutil.which("chroot"), shutil.which("qemu-aarch64-static")
    foreign = platform == ARM64 and os.uname().machine != "aarch64"
    if os.geteuid() != 0 or chroot is None:
        pytest.skip("running the image's files needs root, for chroot")
    if foreign and emulator is None:
        pytest.skip("running arm64 files needs qemu-aarch64-static")
    unpack_layers([stored.blob for stored in image.layers[platform]], root)
    if foreign and emulator is not None:
        shutil.copy(emulator, root / "emulator")
        for name, text in processor_files(1).items():
            file = root / "sys/devices/system/cpu" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        command = ["/emulator", *command]
    # As in a container, there is /proc: OpenVINO counts processors in a circle without it.
    enter = 'mkdir -p "$1/proc" && mount -t proc proc "$1/proc" && exec "$0" --userspec=65532:65532 "$@"'
    # An emulator that crashes can hang instead of ending: only SIGKILL is sure, and run() sends it.
    ran = subprocess.run(
        ["unshare", "--mount", "sh", "-c", enter, chroot, str(root), *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


async def _read_whole(client: RegistryClient, name: str, blob: Descriptor) -> None:
    async for _ in client.open_blob(parse_reference(name), blob):
        pass
