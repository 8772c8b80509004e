"""The server of the runtime images serves what was taken apart, and refuses it when a part is damaged."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import zstandard

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.layers import write_layers
from edgemodel_operator.build.layout import ModelFacts, layer_entries
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.oci.compression import ZSTD
from support.build import make_onnx, sha256
from support.builders import make_model


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    """Give the file system of a pod, as far as the layers of the model make it."""
    content = make_onnx(1600)
    (tmp_path / "given.onnx").write_bytes(content)
    file = SourceFile(tmp_path / "given.onnx", "given.onnx", sha256(content), len(content))
    parts = await split_model(ModelFormat.ONNX, [file], Sharding.AUTO, tmp_path)
    facts = ModelFacts("line-orientation", make_model("7").build().model, file.sha256, "d" * 64)
    for written in await write_layers(layer_entries(facts, parts), ZSTD, tmp_path):
        with (
            written.blob.open("rb") as blob,
            zstandard.ZstdDecompressor().stream_reader(blob) as stream,
            tarfile.open(fileobj=stream, mode="r|") as tar,
        ):
            tar.extractall(tmp_path / "root", filter="data")
    return tmp_path / "root"


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgemodel_server", "--check", "--model-root", str(root / "models")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_a_model_in_parts_is_served(root: Path) -> None:
    assert sorted(path.name for path in (root / "models/line-orientation").iterdir()) == [
        "manifest.json",
        "model.onnx",
        "s0.bin",
    ]
    finished = check(root)
    assert finished.returncode == 0, finished.stderr


async def test_a_part_that_is_damaged_is_refused(root: Path) -> None:
    shard = root / "models/line-orientation/s0.bin"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    finished = check(root)
    assert finished.returncode == 1
    assert "FileDigestMismatch" in finished.stderr
