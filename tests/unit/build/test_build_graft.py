"""What a grafted image looks like, byte for byte where it matters."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import zstandard

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.graft import GraftedImage, Runtime, graft_image
from edgemodel_operator.build.layers import WrittenLayer, write_layers
from edgemodel_operator.build.layout import ModelFacts, layer_entries, model_manifest
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.oci.compression import GZIP, ZSTD, Compressor
from edgemodel_operator.oci.image import MAX_LAYERS, RuntimeSettings, make_image, parse_index, parse_manifest
from edgemodel_server.manifest import find_folders, read_source, verify_files
from support.build import make_onnx, sha256
from support.builders import make_model
from support.images import AMD64, ARM64, make_layer

RUNTIME_DIGEST = "sha256:" + "e" * 64
REPORT = ModelReport(parameters=256)
FOLDER = "models/line-orientation"


def make_facts(source_sha256: str = "a" * 64) -> ModelFacts:
    return ModelFacts("line-orientation", make_model("7").build().model, source_sha256, "d" * 64)


def make_runtime(layers: int = 1) -> Runtime:
    children = []
    for platform in (AMD64, ARM64):
        made = [make_layer(f"opt/server-{n}", str(platform).encode())[0] for n in range(layers)]
        image = make_image(platform, made, RuntimeSettings(entrypoint=["/opt/server"], user="65532"))
        children.append(RuntimeChild(platform, image.descriptor.digest, image.manifest, image.config))
    return Runtime(RUNTIME_DIGEST, children)


def save(folder: Path, name: str, content: bytes) -> SourceFile:
    (folder / name).write_bytes(content)
    return SourceFile(folder / name, name, sha256(content), len(content))


@pytest.fixture
async def small(tmp_path: Path) -> ModelParts:
    file = save(tmp_path, "classifier.onnx", make_onnx())
    return await split_model(ModelFormat.ONNX, [file], Sharding.AUTO, tmp_path)


@pytest.fixture
async def large(tmp_path: Path) -> ModelParts:
    file = save(tmp_path, "large.onnx", make_onnx(1600))
    return await split_model(ModelFormat.ONNX, [file], Sharding.AUTO, tmp_path)


async def written(
    parts: ModelParts, folder: Path, facts: ModelFacts | None = None, compressor: Compressor = ZSTD
) -> tuple[WrittenLayer, ...]:
    return await write_layers(layer_entries(facts or make_facts(), parts), compressor, folder)


async def grafted(parts: ModelParts, folder: Path, runtime: Runtime) -> GraftedImage:
    return graft_image(make_facts(), REPORT, runtime, await written(parts, folder))


def untar(layer: WrittenLayer) -> tarfile.TarFile:
    blob = layer.blob.read_bytes()
    if blob.startswith(b"\x1f\x8b"):
        return tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob)))
    return tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(blob)))


async def test_the_layer_holds_the_model_and_its_manifest(small: ModelParts, tmp_path: Path) -> None:
    facts = make_facts(small.main.sha256)
    (layer,) = await written(small, tmp_path, facts)
    with untar(layer) as tar:
        names = tar.getnames()
        manifest = tar.extractfile(f"{FOLDER}/manifest.json")
        assert manifest is not None
        document = json.load(manifest)
    assert names == ["models", FOLDER, f"{FOLDER}/manifest.json", f"{FOLDER}/model.onnx"]
    assert document == {
        "schema": "edgemodel.dev/model/v1",
        "name": "line-orientation",
        "version": "7",
        "format": "ONNX",
        "files": [{"path": "model.onnx", "sha256": small.main.sha256, "size": small.main.size}],
    }
    raw = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    assert model_manifest(facts, small) == raw


async def test_each_shard_has_a_layer_and_the_graph_lies_on_top(large: ModelParts, tmp_path: Path) -> None:
    layers = await written(large, tmp_path)
    contents = []
    for layer in layers:
        with untar(layer) as tar:
            contents.append([member.name for member in tar if member.isfile()])
    assert contents == [[f"{FOLDER}/s0.bin"], [f"{FOLDER}/manifest.json", f"{FOLDER}/model.onnx"]]


async def test_a_manifest_tells_the_source_where_the_file_is_another(
    large: ModelParts, small: ModelParts
) -> None:
    assert json.loads(model_manifest(make_facts("a" * 64), large))["source"] == {"sha256": "a" * 64}
    assert "source" not in json.loads(model_manifest(make_facts(small.main.sha256), small))


@pytest.mark.parametrize("compressor", [ZSTD, GZIP], ids=lambda compressor: compressor.id)
async def test_the_server_accepts_what_the_layers_hold(
    large: ModelParts, compressor: Compressor, tmp_path: Path
) -> None:
    for layer in await written(large, tmp_path, compressor=compressor):
        assert layer.layer.descriptor.media_type == compressor.media_type
        with untar(layer) as tar:
            tar.extractall(tmp_path / "root", filter="data")
    (folder,) = find_folders(tmp_path / "root" / "models")
    source = read_source(folder)
    assert (source.name, source.version, source.format) == ("line-orientation", "7", "ONNX")
    assert verify_files(source) == large.main.sha256


async def test_the_runtime_stays_below_untouched(large: ModelParts, tmp_path: Path) -> None:
    runtime = make_runtime()
    image = await grafted(large, tmp_path, runtime)
    on_top = tuple(written.layer.descriptor for written in image.layers)
    for child, below in zip(image.children, runtime.children, strict=True):
        assert parse_manifest(child.image.manifest).layers == (*below.layers, *on_top)
        config = json.loads(child.image.config)
        assert config["config"]["Entrypoint"] == ["/opt/server"]
        assert config["config"]["User"] == "65532"
        assert config["config"]["Labels"]["org.opencontainers.image.base.digest"] == below.digest
        assert config["rootfs"]["diff_ids"][-2:] == [written.layer.diff_id for written in image.layers]


async def test_the_index_says_what_it_is(small: ModelParts, tmp_path: Path) -> None:
    image = await grafted(small, tmp_path, make_runtime())
    index = parse_index(image.index)
    assert [str(child.platform) for child in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert [child.digest for child in index.manifests] == [
        child.image.descriptor.digest for child in image.children
    ]
    assert dict(index.annotations) == {
        "org.opencontainers.image.title": "line-orientation",
        "org.opencontainers.image.version": "7",
        "org.opencontainers.image.base.digest": RUNTIME_DIGEST,
        "edgemodel.dev/model-format": "ONNX",
        "edgemodel.dev/model-sha256": "a" * 64,
        "edgemodel.dev/build-key": "d" * 64,
        "edgemodel.dev/model-report": '{"parameters":256}',
    }


async def test_an_inconsistent_runtime_image_is_refused(small: ModelParts, tmp_path: Path) -> None:
    first, second = make_runtime().children
    mixed = RuntimeChild(first.platform, first.digest, first.manifest, second.config)
    with pytest.raises(BuildError, match="linux/amd64") as caught:
        await grafted(small, tmp_path, Runtime(RUNTIME_DIGEST, (mixed,)))
    assert caught.value.failure.reason is Reason.RUNTIME_IMAGE_INVALID


async def test_more_layers_than_a_node_can_mount_are_refused(large: ModelParts, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="too many") as caught:
        await grafted(large, tmp_path, make_runtime(MAX_LAYERS - 1))
    assert caught.value.failure.reason is Reason.RUNTIME_IMAGE_INVALID
