"""TFLite and OpenVINO models: which files go into the image, under which names, in which layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from support.build import sha256

MIB = 1024 * 1024


async def split(model_format: ModelFormat, contents: Mapping[str, bytes], folder: Path) -> ModelParts:
    files = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        files.append(SourceFile(folder / name, name, sha256(content), len(content)))
    return await split_model(model_format, files, Sharding.AUTO, folder)


def names_of(parts: ModelParts) -> list[list[str]]:
    return [[piece.name for piece in layer] for layer in parts.layers]


async def test_a_tflite_model_is_one_file(tmp_path: Path) -> None:
    given = {"face.tflite": b"x" * 9 * MIB, "README.md": b"about faces"}
    parts = await split(ModelFormat.TFLITE, given, tmp_path)
    assert names_of(parts) == [["model.tflite"]]
    assert parts.skeleton == tmp_path / "face.tflite"
    assert (parts.main.sha256, parts.rewritten) == (sha256(given["face.tflite"]), False)


@pytest.mark.parametrize(
    ("others", "weights"),
    [
        (["net.bin"], "net.bin"),
        (["anything"], "anything"),
        (["labels.bin", "net.bin"], "net.bin"),
        (["labels.txt", "weights.bin"], "weights.bin"),
    ],
)
async def test_the_weights_of_an_ir_are_found_and_named(
    others: list[str], weights: str, tmp_path: Path
) -> None:
    given = {"net.xml": b"<net/>", **{name: name.encode() for name in others}}
    parts = await split(ModelFormat.OPENVINO, given, tmp_path)
    assert names_of(parts) == [["model.xml", "model.bin"]]
    assert parts.layers[0][1].sha256 == sha256(weights.encode())


async def test_large_weights_lie_in_a_layer_below(tmp_path: Path) -> None:
    given = {"net.xml": b"<net/>", "net.bin": b"x" * MIB}
    parts = await split(ModelFormat.OPENVINO, given, tmp_path)
    assert names_of(parts) == [["model.bin"], ["model.xml"]]
    assert [piece.name for piece in parts.pieces] == ["model.xml", "model.bin"]


@pytest.mark.parametrize(
    ("others", "sentence"),
    [([], "It needs net.bin beside it: give it as"), (["a.bin", "b.bin"], "there are others: a.bin, b.bin")],
)
async def test_an_ir_without_its_weights_is_refused(others: list[str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=sentence) as caught:
        await split(ModelFormat.OPENVINO, {"net.xml": b"", **dict.fromkeys(others, b"")}, tmp_path)
    assert caught.value.failure.reason is Reason.INVALID_MODEL
