"""`edgemodel build`: the same image from a shell, in a registry or in a folder, and nothing when it fails."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from cluster.tools import tool
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.compression import GZIP
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_MANIFEST
from edgemodel_operator.oci.image import RuntimeSettings, make_image, make_index, parse_index, parse_manifest
from edgemodel_operator.oci.image_layout import PARTIAL, LayoutStore, parse_location
from edgemodel_operator.oci.layer import File, write_layer
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import SourceServer, hang, make_onnx, make_request, sha256, source_server
from support.command_line import edgemodel, model_document, start_edgemodel, write_documents
from support.images import ARM64, push_index
from support.packages import install_package
from support.registry import RegistryServer

MODEL = make_onnx()
VARIANT = "onnxruntime-cpu"


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def runtime(client: RegistryClient, registry: RegistryServer) -> Reference:
    ref = parse_reference(f"{registry.host}/runtimes/cli:1")
    await push_index(client, ref)
    return ref


@pytest.fixture
def repository(registry: RegistryServer, request: pytest.FixtureRequest) -> str:
    return f"{registry.host}/cli/{sha256(request.node.name.encode())[:12]}"


@pytest.fixture
def document(server: SourceServer, repository: str, tmp_path: Path) -> Path:
    source = {"http": {"url": server.url(), "sha256": sha256(MODEL), "insecure": True}}
    return write_documents(tmp_path / "model.yaml", model_document(source, repository))


@pytest.fixture
def common(document: Path, runtime: Reference, registry: RegistryServer) -> tuple[str, ...]:
    """The options that every build here needs."""
    return ("build", "-f", str(document), "--runtime", f"{VARIANT}={runtime}", "--plain-http", registry.host)


async def output(*argv: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


async def said(process: asyncio.subprocess.Process, word: str) -> None:
    """Wait until a line with the word comes on standard error."""
    assert process.stderr is not None
    lines = []
    while line := await process.stderr.readline():
        if word in line.decode():
            return
        lines.append(line)
    raise AssertionError(f"ended without {word!r}: {lines}")


async def test_the_image_is_the_one_that_the_operator_builds(
    client: RegistryClient, server: SourceServer, runtime: Reference, repository: str, common: tuple[str, ...]
) -> None:
    digest = (await client.get_manifest(runtime)).descriptor.digest
    request = make_request(
        server.url(), MODEL, runtime=str(runtime.with_digest(digest)), repository=f"{repository}/cluster"
    )
    expected = await run_build(request)
    built = await edgemodel(*common)
    assert (built.code, built.out) == (0, f"{repository}@{expected.index_digest}\n")


async def test_a_folder_gets_the_same_bytes_as_a_registry(common: tuple[str, ...], tmp_path: Path) -> None:
    pushed = await edgemodel(*common, "--json")
    written = await edgemodel(*common, "--json", "-o", f"oci:{tmp_path}/images")
    (remote,), (local,) = pushed.json()["images"], written.json()["images"]
    assert local["indexDigest"] == remote["indexDigest"]
    assert local["image"] == f"oci:{tmp_path}/images@{remote['indexDigest']}"
    assert (local["variant"], local["platforms"]) == (VARIANT, ["linux/amd64", "linux/arm64"])


async def test_a_tag_names_the_image(
    client: RegistryClient, common: tuple[str, ...], repository: str, tmp_path: Path
) -> None:
    remote = await edgemodel(*common, "-o", f"{repository}:7")
    local = await edgemodel(*common, "-o", f"oci:{tmp_path}/images:7")
    assert (remote.code, local.code) == (0, 0), (remote.err, local.err)
    stored = await client.head_manifest(parse_reference(f"{repository}:7"))
    assert stored is not None
    assert remote.out == f"{repository}@{stored.digest}\n"
    found = await LayoutStore().get_manifest(parse_location(f"oci:{tmp_path}/images:7"))
    assert found.descriptor.digest == stored.digest


async def test_a_runtime_in_a_folder_needs_no_registry(
    client: RegistryClient, runtime: Reference, document: Path, common: tuple[str, ...], tmp_path: Path
) -> None:
    await push_index(LayoutStore(), parse_location(f"oci:{tmp_path}/runtimes:1"))
    remote = await edgemodel(*common, "--json", "-o", f"oci:{tmp_path}/a")
    local = await edgemodel(
        "build", "-f", str(document), "--runtime", f"{VARIANT}=oci:{tmp_path}/runtimes:1",
        "-o", f"oci:{tmp_path}/b", "--json",
    )  # fmt: skip
    assert local.json()["images"][0]["indexDigest"] == remote.json()["images"][0]["indexDigest"]


async def test_skopeo_takes_the_folder(common: tuple[str, ...], tmp_path: Path) -> None:
    skopeo = install_package("skopeo")
    built = await edgemodel(*common, "-o", f"oci:{tmp_path}/images:7", "--json")
    digest = built.json()["images"][0]["indexDigest"]
    assert f"sha256:{sha256(await output(skopeo, 'inspect', '--raw', f'oci:{tmp_path}/images:7'))}" == digest
    copy = (skopeo, "copy", "--quiet", "--all", "--preserve-digests")
    await output(*copy, f"oci:{tmp_path}/images:7", f"oci:{tmp_path}/copied:8")
    copied = await LayoutStore().get_manifest(parse_location(f"oci:{tmp_path}/copied:8"))
    assert copied.descriptor.digest == digest


async def test_umoci_unpacks_what_a_node_would_run(
    document: Path, common: tuple[str, ...], tmp_path: Path
) -> None:
    skopeo, umoci = install_package("skopeo"), install_package("umoci")  # an umoci that knows gzip alone
    runtime = await push_gzip_runtime(tmp_path / "runtime")
    changed = yaml.safe_load(document.read_text())
    changed["spec"]["image"]["compression"] = "Gzip"
    write_documents(document, changed)
    target = f"oci:{tmp_path}/images:7"
    built = await edgemodel(*common, "--runtime", f"{VARIANT}={runtime}", "-o", target)
    assert built.code == 0, built.err
    one = f"oci:{tmp_path}/one:7"
    await output(skopeo, "copy", "--quiet", "--override-arch", "arm64", "--preserve-digests", target, one)
    unpack = (umoci, "unpack", "--rootless", "--image", f"{tmp_path}/one:7", str(tmp_path / "bundle"))
    await output(*unpack)
    model = tmp_path / "bundle" / "rootfs" / "models" / "line-orientation"
    files = {
        file["path"]: file["sha256"] for file in json.loads((model / "manifest.json").read_bytes())["files"]
    }
    assert files == {
        path.name: sha256(path.read_bytes()) for path in model.iterdir() if path.name != "manifest.json"
    }


async def push_gzip_runtime(folder: Path) -> str:
    """Write a runtime image of one platform whose layers every tool can unpack."""
    store, place, out = LayoutStore(), parse_location(f"oci:{folder}:1"), io.BytesIO()
    layer = write_layer([File("opt/server", b"server")], out, compressor=GZIP)
    image = make_image(ARM64, [layer], RuntimeSettings(entrypoint=["/opt/server"]))
    await store.put_blob(place, out.getvalue(), layer.descriptor)
    await store.put_blob(place, image.config, image.config_descriptor)
    await store.put_manifest(place.with_digest(image.descriptor.digest), image.manifest, OCI_MANIFEST)
    await store.put_manifest(place, make_index([image.descriptor]), OCI_INDEX)
    return str(place)


async def test_every_document_of_the_folder_passes_the_schemas_of_the_specification(
    common: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    assert (await edgemodel(*common, "-o", f"oci:{folder}:7")).code == 0
    documents = {"application/vnd.oci.layout.header.v1+json": [folder / "oci-layout"]}
    documents[OCI_INDEX], documents[OCI_MANIFEST] = [folder / "index.json"], []
    for path in (folder / "blobs" / "sha256").iterdir():
        if path.read_bytes()[:1] == b"{":
            stated = json.loads(path.read_bytes()).get("mediaType", "")
            documents.get(stated, []).append(path)
    assert len(documents[OCI_MANIFEST]) > 2, "the images, and what is attached to them"
    given = [f"{kind}={path}" for kind, paths in documents.items() for path in paths]
    await output(str(await asyncio.to_thread(tool, "oci-schema")), *given)


async def test_a_file_on_this_machine_takes_the_place_of_the_source(
    server: SourceServer, common: tuple[str, ...], tmp_path: Path
) -> None:
    remote = await edgemodel(*common, "--json", "-o", f"oci:{tmp_path}/a")
    del server.handlers["/model.onnx"]
    (tmp_path / "trained.onnx").write_bytes(MODEL)
    local = await edgemodel(
        *common, "--json", "-o", f"oci:{tmp_path}/b", "--source", str(tmp_path / "trained.onnx")
    )
    assert local.code == 0, local.err
    assert local.json()["images"][0]["indexDigest"] == remote.json()["images"][0]["indexDigest"]


async def test_a_folder_on_this_machine_takes_the_place_of_the_source(
    common: tuple[str, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(MODEL)
    digests = set()
    for number in range(2):
        os.utime(folder / "model.onnx", (number, number))
        built = await edgemodel(*common, "--json", "-o", f"oci:{tmp_path}/{number}", "--source", str(folder))
        assert built.code == 0, built.err
        digests.add(built.json()["images"][0]["indexDigest"])
    assert len(digests) == 1


async def test_the_settings_of_the_operator_name_runtimes_classes_and_registries(
    runtime: Reference, registry: RegistryServer, document: Path, client: RegistryClient, tmp_path: Path
) -> None:
    changed = yaml.safe_load(document.read_text())
    changed["spec"]["targets"] = [{"accelerator": "example-npu"}, {"accelerator": "cpu"}]
    write_documents(document, changed)
    digest = (await client.get_manifest(runtime)).descriptor.digest
    config = {
        "runtimes": {VARIANT: str(runtime.with_digest(digest)), "npu": str(runtime.with_digest(digest))},
        "registries": {"plainHttp": [registry.host]},
        "sources": {"allowedNetworks": ["127.0.0.0/8"]},
        "acceleratorClasses": [
            {
                "name": "example-npu",
                "spec": {
                    "runtimes": [{"format": "ONNX", "variant": "npu", "provider": "CPUExecutionProvider"}],
                    "sharing": "Shared",
                },
            }
        ],
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    built = await edgemodel(
        "build", "-f", str(document), "--config", str(tmp_path / "config.yaml"), "--json",
        "-o", f"oci:{tmp_path}/images",
    )  # fmt: skip
    assert [image["variant"] for image in built.json()["images"]] == ["npu", VARIANT]


async def test_logins_come_from_the_configuration_of_docker(
    common: tuple[str, ...], registry: RegistryServer, tmp_path: Path
) -> None:
    broken = tmp_path / "docker"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    ended = await edgemodel(*common, env={"DOCKER_CONFIG": str(broken)})
    assert (ended.code, ended.err) == (2, f"error: {broken}/config.json is not JSON.\n")


async def test_progress_is_one_line_for_each_step_where_there_is_no_terminal(
    common: tuple[str, ...], tmp_path: Path
) -> None:
    built = await edgemodel(*common, "-o", f"oci:{tmp_path}/images")
    lines = built.err.splitlines()
    assert lines[0] == f"{VARIANT}: Resolve"
    assert f"{VARIANT}: Download" in lines
    assert len(lines) == len(set(lines))
    quiet = await edgemodel(*common, "-o", f"oci:{tmp_path}/images", "--progress", "none")
    assert quiet.err == ""


@pytest.mark.parametrize(
    ("number", "in_background"),
    [(signal.SIGINT, False), (signal.SIGTERM, False), (signal.SIGTERM, True)],
)
async def test_an_interrupted_build_leaves_nothing_behind(
    server: SourceServer,
    common: tuple[str, ...],
    tmp_path: Path,
    number: signal.Signals,
    in_background: bool,
) -> None:
    server.answer(hang)
    folder, temporary = tmp_path / "images", tmp_path / "temporary"
    temporary.mkdir()
    process = await start_edgemodel(
        *common,
        "-o",
        f"oci:{folder}",
        "--progress",
        "plain",
        env={"TMPDIR": str(temporary)},
        in_background=in_background,
    )
    await said(process, "Download")
    process.send_signal(number)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert err.decode().splitlines()[-1] == "error: interrupted; nothing is left behind"
    assert not folder.exists()
    assert list(temporary.iterdir()) == []


async def test_after_a_kill_the_next_build_clears_up(
    server: SourceServer, common: tuple[str, ...], tmp_path: Path
) -> None:
    server.answer(hang)
    folder, temporary = tmp_path / "images", tmp_path / "temporary"
    temporary.mkdir()
    options = (*common, "-o", f"oci:{folder}:7", "--progress", "plain")
    process = await start_edgemodel(*options, env={"TMPDIR": str(temporary)})
    await said(process, "Download")
    process.kill()
    await process.communicate()
    (folder / f"{PARTIAL}left").touch()
    server.serve(MODEL)
    built = await edgemodel(*options, env={"TMPDIR": str(temporary)})
    assert built.code == 0, built.err
    assert list(temporary.iterdir()) == []
    assert {path.name for path in folder.iterdir()} == {"blobs", "index.json", "oci-layout"}
    assert await LayoutStore().head_manifest(parse_location(f"oci:{folder}:7")) is not None


async def test_a_failure_is_one_sentence_and_leaves_no_folder(
    server: SourceServer, common: tuple[str, ...], tmp_path: Path
) -> None:
    server.serve(b"another model")
    ended = await edgemodel(*common, "-o", f"oci:{tmp_path}/images", "--json", "--progress", "none")
    assert (ended.code, ended.json()["failure"]["reason"]) == (1, "SourceDigestMismatch")
    assert not (tmp_path / "images").exists()
    del server.handlers["/model.onnx"]
    ended = await edgemodel(*common, "-o", f"oci:{tmp_path}/images", "--progress", "none")
    assert ended.code == 3, "a file that is not there may come"
    assert ended.err.count("\n") == 1
    assert not (tmp_path / "images").exists()


async def test_one_build_at_a_time_writes_to_a_folder(
    server: SourceServer, common: tuple[str, ...], tmp_path: Path
) -> None:
    server.answer(hang)
    options = (*common, "-o", f"oci:{tmp_path}/images", "--progress", "plain")
    first = await start_edgemodel(*options)
    await said(first, "Download")
    second = await edgemodel(*options)
    assert second.code == 3
    assert f"another build writes to {tmp_path}/images" in second.err
    first.send_signal(signal.SIGINT)
    await first.communicate()


async def test_images_of_several_variants_cannot_share_a_tag(
    document: Path, common: tuple[str, ...], runtime: Reference, tmp_path: Path
) -> None:
    npu = {
        "apiVersion": "edgemodel.dev/v1alpha1",
        "kind": "AcceleratorClass",
        "metadata": {"name": "example-npu"},
        "spec": {
            "runtimes": [{"format": "ONNX", "variant": "npu", "provider": "CPUExecutionProvider"}],
            "sharing": "Shared",
        },
    }
    classes = write_documents(tmp_path / "classes.yaml", npu)
    changed = yaml.safe_load(document.read_text())
    changed["spec"]["targets"] = [{"accelerator": "example-npu"}, {"accelerator": "cpu"}]
    write_documents(document, changed)
    options = (*common, "--class-file", str(classes), "--runtime", f"npu={runtime}")
    refused = await edgemodel(*options, "-o", f"oci:{tmp_path}/images:7")
    assert refused.code == 2
    assert "choose by `--variant`" in refused.err
    chosen = await edgemodel(*options, "-o", f"oci:{tmp_path}/images:7", "--variant", "npu")
    assert chosen.code == 0, chosen.err


async def test_what_is_in_the_layers_is_what_a_node_reads(common: tuple[str, ...], tmp_path: Path) -> None:
    store, place = LayoutStore(), parse_location(f"oci:{tmp_path}/images:7")
    assert (await edgemodel(*common, "-o", str(place))).code == 0
    for child in parse_index((await store.get_manifest(place)).body).manifests:
        image = parse_manifest((await store.get_manifest(place.with_digest(child.digest))).body)
        config = json.loads(await store.get_blob(place, image.config.digest, max_bytes=1 << 20))
        assert len(config["rootfs"]["diff_ids"]) == len(image.layers)
        for layer in image.layers:
            async for _ in store.open_blob(place, layer):  # raises where a byte is wrong
                pass
