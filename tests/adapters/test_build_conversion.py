"""Conversions by the real exporters, each in its limited process: what comes out, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgemodel_operator.api.edgemodel_status import ModelReport, ModelTensor
from edgemodel_operator.api.model import Conversion, ModelFormat
from edgemodel_operator.build.conversion import convert_model, converter_id
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.sources.fetched import SourceFile
from support.converters import PROJECT, make_environment, make_models

# The first run on a machine fetches and packs what is tried here.
pytestmark = pytest.mark.timeout(1800)

PICTURES = {"name": "x", "datatype": "FP32", "shape": [-1, 3, 16, 16]}
TORCHSCRIPT = {"origin": "TorchScript", "inputs": [PICTURES]}


@dataclass(frozen=True)
class Exporter:
    """An environment, and models that were made in it."""

    python: str
    folder: Path

    async def convert(self, raw: dict[str, Any], name: str, work: Path) -> tuple[SourceFile, ...]:
        path = self.folder / name
        work.mkdir()
        files = [SourceFile(path, path.name, "", path.stat().st_size)]
        return await convert_model(Conversion.model_validate(raw), files, work, python=self.python)

    async def refusal(self, raw: dict[str, Any], name: str, work: Path) -> BuildFailure:
        with pytest.raises(BuildError) as caught:
            await self.convert(raw, name, work / "work")
        return caught.value.failure


@pytest.fixture(autouse=True)
def _sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the other interpreters find the operator."""
    monkeypatch.setenv("PYTHONPATH", str(PROJECT / "operator"))


@pytest.fixture(scope="module")
def pytorch(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    return made("pytorch", tmp_path_factory.mktemp("pytorch"))


@pytest.fixture(scope="module")
def tensorflow(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    return made("tensorflow", tmp_path_factory.mktemp("tensorflow"))


def made(name: str, folder: Path) -> Exporter:
    python = make_environment(name)
    make_models(name, python, folder)
    return Exporter(python, folder)


async def report_of(model_format: ModelFormat, files: Sequence[SourceFile]) -> ModelReport:
    return await inspect_model(model_format, files[0].path, files)


async def test_a_program_of_torch_export_becomes_onnx_twice_the_same(
    pytorch: Exporter, tmp_path: Path
) -> None:
    origin = {"origin": "PyTorchExport"}
    (file,) = await pytorch.convert(origin, "classifier.pt2", tmp_path / "first")
    (again,) = await pytorch.convert(origin, "classifier.pt2", tmp_path / "second")
    content = file.path.read_bytes()
    assert content == again.path.read_bytes()
    assert (file.name, file.size) == ("model.onnx", len(content))
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    report = await report_of(ModelFormat.ONNX, [file])
    (taken,), (given,) = report.inputs, report.outputs
    assert (taken.name, taken.datatype, taken.shape[1:]) == ("x", "FP32", ("3", "16", "16"))
    assert given.shape == (taken.shape[0], "4")
    assert not taken.shape[0].isdigit()  # a name that PyTorch gives
    assert b".py" not in content  # nothing of the machine that the model was written on


async def test_a_torchscript_module_becomes_onnx_twice_the_same(pytorch: Exporter, tmp_path: Path) -> None:
    (file,) = await pytorch.convert(TORCHSCRIPT, "classifier.pt", tmp_path / "first")
    (again,) = await pytorch.convert(TORCHSCRIPT, "classifier.pt", tmp_path / "second")
    assert (file.name, file.sha256) == ("model.onnx", again.sha256)
    report = await report_of(ModelFormat.ONNX, [file])
    assert report.inputs == (ModelTensor(name="x", datatype="FP32", shape=("batch", "3", "16", "16")),)
    assert report.outputs == (ModelTensor(name="output_0", datatype="FP32", shape=("batch", "4")),)


@pytest.mark.parametrize(
    ("raw", "name", "sentence"),
    [
        ({"origin": "PyTorchExport"}, "classifier.pt", "cannot be loaded as a program of torch.export"),
        ({"origin": "PyTorchExport"}, "trap.pkl.pt2", "cannot be loaded as a program of torch.export"),
        (TORCHSCRIPT, "trap.pt", "cannot be loaded as a TorchScript module"),
        (
            TORCHSCRIPT | {"inputs": [PICTURES | {"shape": [1, 5]}]},
            "classifier.pt",
            "does not compute the `inputs` that the spec gives it",
        ),
    ],
)
async def test_other_files_are_refused_and_their_code_never_runs(
    pytorch: Exporter, tmp_path: Path, raw: dict[str, Any], name: str, sentence: str
) -> None:
    failure = await pytorch.refusal(raw, name, tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.CONVERSION_FAILED, False)
    assert sentence in failure.message
    assert not (pytorch.folder / "sprung").exists()


async def test_a_model_that_answers_otherwise_after_its_conversion_is_refused(
    pytorch: Exporter, tmp_path: Path
) -> None:
    failure = await pytorch.refusal(TORCHSCRIPT, "restless.pt", tmp_path)
    assert failure.reason is Reason.OUTPUTS_DIFFER
    assert "is not the one that was given. Its output 0 differs" in failure.message


@pytest.mark.parametrize(
    ("origin", "name"), [("Keras", "classifier.keras"), ("SavedModel", "classifier/saved_model.pb")]
)
async def test_a_model_of_tensorflow_becomes_tflite_twice_the_same(
    tensorflow: Exporter, tmp_path: Path, origin: str, name: str
) -> None:
    (file,) = await tensorflow.convert({"origin": origin}, name, tmp_path / "first")
    (again,) = await tensorflow.convert({"origin": origin}, name, tmp_path / "second")
    assert (file.name, file.sha256) == ("model.tflite", again.sha256)
    report = await report_of(ModelFormat.TFLITE, [file])
    assert report.inputs == (ModelTensor(name="x", datatype="FP32", shape=("-1", "16", "16", "3")),)
    assert report.outputs[0].shape == ("-1", "4")


@pytest.mark.parametrize(
    ("origin", "name", "sentence"),
    [
        ("Keras", "lambda.keras", "cannot be loaded as a Keras model"),
        ("Keras", "classifier/saved_model.pb", "cannot be loaded as a Keras model"),
        ("SavedModel", "reader/saved_model.pb", "It reaches beyond itself (ReadFile)"),
        ("SavedModel", "classifier.keras", "saved_model.pb cannot be decoded"),
    ],
)
async def test_other_models_of_tensorflow_are_refused(
    tensorflow: Exporter, tmp_path: Path, origin: str, name: str, sentence: str
) -> None:
    failure = await tensorflow.refusal({"origin": origin}, name, tmp_path)
    assert failure.reason is Reason.CONVERSION_FAILED
    assert sentence in failure.message


async def test_without_the_exporter_the_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.keras").touch()
    here = Exporter(sys.executable, tmp_path)
    failure = await here.refusal({"origin": "Keras"}, "model.keras", tmp_path)
    assert (failure.reason, failure.retryable) == (Reason.CONVERTER_MISSING, False)
    assert "keras is not installed here. Name one that can in `builds.converters.Keras`" in failure.message


def test_an_exporter_that_is_not_there_has_no_name() -> None:
    with pytest.raises(BuildError, match=r"builds\.converters\.TorchScript"):
        converter_id(Conversion.model_validate(TORCHSCRIPT).origin)
