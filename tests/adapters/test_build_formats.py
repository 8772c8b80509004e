"""Models of every format through the real worker: fetched, inspected, grafted, found again, and served."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edgemodel_operator.api.model import ModelFormat, ModelSpec
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step
from edgemodel_operator.build.operators import LABEL, VARIANT_LABEL
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_server.manifest import find_folders, read_source, verify_files
from support.build import SourceServer, make_request, missing_parts, sha256, source_server
from support.formats import make_files
from support.images import push_index
from support.registry import RegistryServer

NAMES = {
    ModelFormat.ONNX: ("model.onnx",),
    ModelFormat.TFLITE: ("model.tflite",),
    ModelFormat.OPENVINO: ("model.xml", "model.bin"),
}
PICTURES = {"scale": 0.5, "classification": {"labels": ["up", "down"]}}


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


@pytest.fixture
async def runtime(client: RegistryClient, registry: RegistryServer) -> str:
    ref = parse_reference(f"{registry.host}/runtimes/cpu:1")
    return str(ref.with_digest((await push_index(client, ref)).digest))


def request_for(
    server: SourceServer, runtime: str, registry: RegistryServer, files: tuple[bytes, ...], model_format: str
) -> BuildRequest:
    model, *weights = (
        {"url": server.serve(content, f"/{sha256(content)}"), "sha256": sha256(content)} for content in files
    )
    http = model | {"insecure": True} | ({"weights": weights[0]} if weights else {})
    raw = {"format": model_format, "version": "7", "source": {"http": http}}
    return make_request(
        server.url(),
        b"",
        runtime=runtime,
        repository=f"{registry.host}/formats/{sha256(files[0])[:12]}",
        model=ModelSpec.model_validate(raw),
    )


async def unpack(client: RegistryClient, result: BuildResult, root: Path) -> None:
    """Unpack the model layer of the first platform."""
    index = parse_reference(result.image)
    child = parse_index((await client.get_manifest(index)).body).manifests[0]
    manifest = parse_manifest((await client.get_manifest(index.with_digest(child.digest))).body)
    blob = await client.get_blob(index, manifest.layers[-1].digest, max_bytes=1 << 20)
    content = zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(root, filter="data")


async def failure_of(request: BuildRequest, folder: Path) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await run_build(request, work_root=folder)
    return caught.value.failure


@pytest.mark.parametrize("model_format", ModelFormat)
async def test_a_model_of_any_format_becomes_an_image_that_the_server_takes(
    client: RegistryClient,
    server: SourceServer,
    runtime: str,
    registry: RegistryServer,
    tmp_path: Path,
    model_format: ModelFormat,
) -> None:
    files = make_files(model_format, 16)
    request = request_for(server, runtime, registry, files, model_format)
    (tmp_path / "work").mkdir()
    result = await run_build(request, work_root=tmp_path / "work")
    assert await missing_parts(client, parse_reference(result.image)) == []
    assert [(file.sha256, file.size) for file in result.report.files] == [
        (sha256(file), len(file)) for file in files
    ]

    await unpack(client, result, tmp_path / "root")
    (folder,) = find_folders(tmp_path / "root" / "models")
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *NAMES[model_format]}
    source = read_source(folder)
    assert (source.name, source.version, source.format) == ("line-orientation", "7", model_format)
    assert verify_files(source) == sha256(files[0])

    again = await run_build(request, work_root=tmp_path / "work")
    assert (again.index_digest, again.bytes_pushed) == (result.index_digest, 0)


async def test_other_weights_are_another_image(
    server: SourceServer, runtime: str, registry: RegistryServer
) -> None:
    graph, weights = make_files("OpenVINO", 16)
    other = make_files("OpenVINO", 16, seed=2)[1]
    request = request_for(server, runtime, registry, (graph, weights), "OpenVINO")
    assert request_for(server, runtime, registry, (graph, other), "OpenVINO").build_key != request.build_key


async def test_weights_are_held_against_their_digest_and_their_graph(
    server: SourceServer, runtime: str, registry: RegistryServer, tmp_path: Path
) -> None:
    graph, weights = make_files("OpenVINO", 12)
    request = request_for(server, runtime, registry, (graph, weights), "OpenVINO")
    server.serve(make_files("OpenVINO", 12, seed=2)[1], f"/{sha256(weights)}")
    failure = await failure_of(request, tmp_path)
    assert (failure.reason, failure.step) == (Reason.SOURCE_DIGEST_MISMATCH, Step.DOWNLOAD)

    cut = request_for(server, runtime, registry, (graph, weights[:-1]), "OpenVINO")
    failure = await failure_of(cut, tmp_path)
    assert (failure.reason, failure.step) == (Reason.INVALID_MODEL, Step.INSPECT)
    assert "do not belong together" in failure.message


async def test_a_model_whose_operators_the_runtime_lacks_never_becomes_an_image(
    client: RegistryClient, server: SourceServer, registry: RegistryServer, tmp_path: Path
) -> None:
    """The same model, on a runtime that says what it has, and on one that has what the model needs."""
    (tmp_path / "work").mkdir()
    for operators in ({"Add": [[1, 26]]}, {"MatMul": [[1, 26]]}):
        ref = parse_reference(f"{registry.host}/runtimes/{'-'.join(operators).lower()}:1")
        labels = {LABEL: json.dumps({"ONNX": {"ai.onnx": operators}}), VARIANT_LABEL: "onnxruntime-npu"}
        runtime = str(ref.with_digest((await push_index(client, ref, labels=labels)).digest))
        request = request_for(server, runtime, registry, make_files("ONNX", 16, seed=5), "ONNX")
        if "MatMul" in operators:
            assert (await run_build(request, work_root=tmp_path / "work")).report.operators == ("MatMul",)
            continue
        failure = await failure_of(request, tmp_path / "work")
        assert (failure.reason, failure.step) == (Reason.OPERATORS_NOT_SUPPORTED, Step.INSPECT)
        assert "onnxruntime-npu for linux/amd64 lacks operators of the model: MatMul." in failure.message
        with pytest.raises(NotFound):
            await client.get_manifest(
                parse_reference(f"{request.image.repository}:{index_tag(request.build_key)}")
            )


async def test_a_conversion_without_its_exporter_says_what_to_configure(
    server: SourceServer, runtime: str, registry: RegistryServer, tmp_path: Path
) -> None:
    content = b"a model of Keras"
    url = server.serve(content, "/model.keras")
    source = {"http": {"url": url, "sha256": sha256(content), "insecure": True}}
    raw = {"format": "TFLite", "version": "1", "source": source, "convert": {"origin": "Keras"}}
    plain = request_for(server, runtime, registry, (content,), "TFLite")
    failure = await failure_of(plain.model_copy(update={"model": ModelSpec.model_validate(raw)}), tmp_path)
    assert (failure.reason, failure.step) == (Reason.CONVERTER_MISSING, Step.CONVERT)
    assert "`builds.converters.Keras`" in failure.message


async def test_what_is_said_about_pictures_is_in_the_manifest_and_in_the_key(
    client: RegistryClient, server: SourceServer, runtime: str, registry: RegistryServer, tmp_path: Path
) -> None:
    plain = request_for(server, runtime, registry, make_files("TFLite", 8), "TFLite")
    raw: dict[str, Any] = plain.model.to_raw() | {"preprocessing": PICTURES}
    request = plain.model_copy(update={"model": ModelSpec.model_validate(raw)})
    assert request.build_key != plain.build_key
    (tmp_path / "work").mkdir()
    result = await run_build(request, work_root=tmp_path / "work")
    await unpack(client, result, tmp_path / "root")
    (folder,) = find_folders(tmp_path / "root" / "models")
    assert read_source(folder).preprocessing is not None
    said = json.loads((folder / "manifest.json").read_text())["preprocessing"]
    assert said == {
        "color": "RGB",
        "layout": "NCHW",
        "scale": 0.5,
        "mean": [0.0],
        "std": [1.0],
        "classification": {"labels": ["up", "down"], "softmax": False, "top": 5},
    }
