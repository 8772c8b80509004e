"""What a grafted image looks like, byte for byte where it matters."""

from __future__ import annotations

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.graft import GraftedImage, graft_image, write_model_layer
from edgemodel_operator.build.layout import ModelFacts, model_manifest
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.build.sources.download import FetchedFile, describe
from edgemodel_operator.oci.image import RuntimeSettings, make_image, parse_index, parse_manifest
from edgemodel_server.manifest import find_folders, read_source, verify_files
from support.builders import make_model
from support.images import AMD64, ARM64, make_layer

FACTS = ModelFacts("line-orientation", make_model("7").with_sha256("a" * 64).build().model, "d" * 64)
RUNTIME_DIGEST = "sha256:" + "e" * 64


def make_runtime() -> tuple[RuntimeChild, ...]:
    children = []
    for platform in (AMD64, ARM64):
        layer, _ = make_layer("opt/server", str(platform).encode())
        image = make_image(platform, [layer], RuntimeSettings(entrypoint=["/opt/server"], user="65532"))
        children.append(RuntimeChild(platform, image.descriptor.digest, image.manifest, image.config))
    return tuple(children)


@pytest.fixture
def model(tmp_path: Path) -> FetchedFile:
    (tmp_path / "model").write_bytes(b"weights")
    return describe(tmp_path / "model")


def make_grafted(model: FetchedFile, folder: Path) -> GraftedImage:
    layer = write_model_layer(FACTS, [model], folder / "layer")
    return graft_image(FACTS, RUNTIME_DIGEST, make_runtime(), layer)


def test_the_layer_holds_the_model_and_its_manifest(model: FetchedFile, tmp_path: Path) -> None:
    write_model_layer(FACTS, [model], tmp_path / "layer")
    content = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "layer").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = tar.getnames()
        manifest = tar.extractfile("models/line-orientation/manifest.json")
        assert manifest is not None
        document = json.load(manifest)
    folder = "models/line-orientation"
    assert names == ["models", folder, f"{folder}/manifest.json", f"{folder}/model.onnx"]
    assert document == {
        "schema": "edgemodel.dev/model/v1",
        "name": "line-orientation",
        "version": "7",
        "format": "ONNX",
        "files": [{"path": "model.onnx", "sha256": "a" * 64, "size": 7}],
    }
    assert model_manifest(FACTS, [7]) == json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_the_server_accepts_what_the_layer_holds(model: FetchedFile, tmp_path: Path) -> None:
    spec = make_model("7").with_sha256(model.sha256).build().model
    write_model_layer(replace(FACTS, model=spec), [model], tmp_path / "layer")
    content = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "layer").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(tmp_path / "root", filter="data")
    (folder,) = find_folders(tmp_path / "root" / "models")
    source = read_source(folder)
    assert (source.name, source.version, source.format) == ("line-orientation", "7", "ONNX")
    assert verify_files(source) == model.sha256


def test_the_runtime_stays_below_untouched(model: FetchedFile, tmp_path: Path) -> None:
    grafted = make_grafted(model, tmp_path)
    for child, runtime in zip(grafted.children, make_runtime(), strict=True):
        layers = parse_manifest(child.image.manifest).layers
        assert layers == (*runtime.layers, grafted.layer.descriptor)
        config = json.loads(child.image.config)
        assert config["config"]["Entrypoint"] == ["/opt/server"]
        assert config["config"]["User"] == "65532"
        assert config["config"]["Labels"]["org.opencontainers.image.base.digest"] == runtime.digest


def test_the_index_says_what_it_is(model: FetchedFile, tmp_path: Path) -> None:
    grafted = make_grafted(model, tmp_path)
    index = parse_index(grafted.index)
    assert [str(child.platform) for child in index.manifests] == ["linux/amd64", "linux/arm64"]
    assert [child.digest for child in index.manifests] == [
        child.image.descriptor.digest for child in grafted.children
    ]
    assert dict(index.annotations) == {
        "org.opencontainers.image.title": "line-orientation",
        "org.opencontainers.image.version": "7",
        "org.opencontainers.image.base.digest": RUNTIME_DIGEST,
        "edgemodel.dev/model-format": "ONNX",
        "edgemodel.dev/model-sha256": "a" * 64,
        "edgemodel.dev/build-key": "d" * 64,
    }


def test_an_inconsistent_runtime_image_is_refused(model: FetchedFile, tmp_path: Path) -> None:
    first, second = make_runtime()
    mixed = RuntimeChild(first.platform, first.digest, first.manifest, second.config)
    layer = write_model_layer(FACTS, [model], tmp_path / "layer")
    with pytest.raises(BuildError, match="linux/amd64") as caught:
        graft_image(FACTS, RUNTIME_DIGEST, (mixed,), layer)
    assert caught.value.failure.reason is Reason.RUNTIME_IMAGE_INVALID
