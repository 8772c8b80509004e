"""The inspection of model files in its own process."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.sources.download import describe
from support.build import make_onnx, parse_onnx
from support.formats import make_files


def write(folder: Path, content: bytes) -> Path:
    (folder / "model").write_bytes(content)
    return folder / "model"


async def test_a_model_is_described(tmp_path: Path) -> None:
    found = await inspect_model([describe(write(tmp_path, make_onnx(16)))], ModelFormat.ONNX)
    assert found == {
        "irVersion": 8,
        "opsets": {"ai.onnx": 17},
        "inputs": [{"name": "x", "type": 1, "shape": ["N", 16]}],
        "outputs": [{"name": "y", "type": 1, "shape": ["N", 16]}],
    }


@pytest.mark.parametrize("model_format", ModelFormat)
async def test_every_format_has_its_reader(tmp_path: Path, model_format: ModelFormat) -> None:
    files = []
    for number, content in enumerate(make_files(model_format, 16)):
        (tmp_path / str(number)).write_bytes(content)
        files.append(describe(tmp_path / str(number)))
    found = await inspect_model(files, model_format)
    assert [tensor["name"] for tensor in (*found["inputs"], *found["outputs"])] == ["x", "y"]


@pytest.mark.parametrize("model_format", ModelFormat)
async def test_a_file_of_another_format_is_refused(tmp_path: Path, model_format: ModelFormat) -> None:
    others = [make_files(other, 16)[0] for other in ModelFormat if other is not model_format]
    for content in others:
        files = [describe(write(tmp_path, content))] * len(model_format.suffixes)
        with pytest.raises(BuildError, match=f"no {model_format} model that can be served. It is not a"):
            await inspect_model(files, model_format)


def with_external_data() -> bytes:
    model = parse_onnx(make_onnx())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    content: bytes = model.SerializeToString()
    return content


def with_hidden_external_data() -> bytes:
    """Hide the reference in the constant of a branch of an If node."""
    model = parse_onnx(make_onnx())
    branch = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=5).g
    constant = branch.node.add(op_type="Constant").attribute.add(name="value", type=4).t
    constant.data_location = 1
    entry = constant.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    content: bytes = model.SerializeToString()
    return content


def without_outputs() -> bytes:
    model = parse_onnx(make_onnx())
    model.graph.ClearField("output")
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not an ONNX file"),
        (b"<html><body>Please log in</body></html>", "not an ONNX file"),
        (bytes(range(256)) * 100, "not an ONNX file"),
        (make_onnx()[:-200], "not an ONNX file"),
        (b"\x0a" * 5_000_000, "not an ONNX file"),
        (with_external_data(), "lies in another file"),
        (with_hidden_external_data(), "lies in another file"),
        (without_outputs(), "no inputs or no outputs"),
        (make_onnx(opset=999), "operator set is 999"),
        (make_onnx(ir_version=99), "IR version is 99"),
    ],
    ids=["empty", "page", "noise", "cut", "tags", "external", "hidden external", "no output", "opset", "ir"],
)
async def test_other_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(BuildError) as caught:
        await inspect_model([describe(write(tmp_path, content))], ModelFormat.ONNX)
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.INVALID_MODEL, False)
    assert sentence in failure.message


async def test_a_reader_that_ends_without_an_answer_is_a_verdict(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "file").touch()
    file = describe(folder / "file")
    (folder / "file").unlink()
    with pytest.raises(BuildError, match="its reader ended with status 1") as caught:
        await inspect_model([file], ModelFormat.ONNX)
    assert caught.value.failure.reason is Reason.INVALID_MODEL
