"""Comparing what models compute, by the real process that is limited and runs ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.compare import outputs
from edgemodel_operator.build.compare.outputs import Verdict, compare_outputs, prove_outputs
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from support.build import make_onnx, sha256


def save(
    path: Path, nodes: Sequence[Any], *, kind: int = TensorProto.FLOAT, shape: Sequence[Any] = (2,)
) -> Path:
    """Write a model from `x` to `y`."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def save_weights(path: Path, *, factor: float = 1.0) -> Path:
    model = onnx.load_from_string(make_onnx(16))
    weights = numpy_helper.to_array(model.graph.initializer[0]) * np.float32(factor)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    onnx.save(model, path)
    return path


def as_source(path: Path) -> SourceFile:
    return SourceFile(path, path.name, sha256(path.read_bytes()), path.stat().st_size)


async def taken_apart(folder: Path) -> tuple[SourceFile, ModelParts]:
    (folder / "given.onnx").write_bytes(make_onnx(1600))
    file = as_source(folder / "given.onnx")
    return file, await split_model(ModelFormat.ONNX, [file], Sharding.AUTO, folder)


async def test_a_model_that_was_taken_apart_answers_the_same(tmp_path: Path) -> None:
    original, parts = await taken_apart(tmp_path)
    assert parts.rewritten
    comparison = await prove_outputs([original], parts, tmp_path)
    assert (comparison.verdict, comparison.why) == (Verdict.EQUAL, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given.onnx", "graph.onnx"]


async def test_weights_that_were_in_another_file_of_any_name_are_found(tmp_path: Path) -> None:
    model = onnx.load_from_string(make_onnx(1600))
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.data")
    (tmp_path / "weights.data").rename(tmp_path / "download")
    files = [as_source(tmp_path / "m.onnx"), as_source(tmp_path / "download")]
    parts = await split_model(ModelFormat.ONNX, files, Sharding.AUTO, tmp_path)
    assert (parts.rewritten, len(parts.layers)) == (True, 2)
    assert (await prove_outputs(files, parts, tmp_path)).verdict is Verdict.EQUAL


async def test_parts_of_another_model_are_refused(tmp_path: Path) -> None:
    _, parts = await taken_apart(tmp_path)
    other = onnx.load_from_string(make_onnx(1600, seed=2))
    onnx.save(other, tmp_path / "other.onnx")
    with pytest.raises(BuildError, match="outputs differ by") as caught:
        await prove_outputs([as_source(tmp_path / "other.onnx")], parts, tmp_path)
    assert caught.value.failure.reason is Reason.OUTPUTS_DIFFER
    assert not caught.value.failure.retryable


async def test_the_smallest_change_that_counts_is_seen(tmp_path: Path) -> None:
    one = save_weights(tmp_path / "one.onnx")
    close = save_weights(tmp_path / "close.onnx", factor=1 + 1e-6)
    apart = save_weights(tmp_path / "apart.onnx", factor=1 + 1e-3)
    assert (await compare_outputs(one, close, size=0)).verdict is Verdict.EQUAL
    with pytest.raises(BuildError):
        await compare_outputs(one, apart, size=0)
    assert (await compare_outputs(one, apart, size=0, tolerance=1e-2)).verdict is Verdict.EQUAL


async def test_a_model_that_cannot_be_loaded_any_more_is_refused(tmp_path: Path) -> None:
    one = save_weights(tmp_path / "one.onnx")
    (tmp_path / "broken.onnx").write_bytes(one.read_bytes()[:500])
    with pytest.raises(BuildError, match="what was made of it does not"):
        await compare_outputs(one, tmp_path / "broken.onnx", size=0)


async def test_free_dimensions_are_tried_until_the_model_answers(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[32, 32])
    model = save(tmp_path / "pool.onnx", [pool], shape=["batch", 3, "height", "width"])
    assert (await compare_outputs(model, model, size=0)).verdict is Verdict.EQUAL


@pytest.mark.parametrize(
    "kind", [TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE]
)
async def test_inputs_of_every_type_are_made_up(tmp_path: Path, kind: int) -> None:
    model = save(tmp_path / "same.onnx", [helper.make_node("Identity", ["x"], ["y"])], kind=kind)
    assert (await compare_outputs(model, model, size=0)).verdict is Verdict.EQUAL


async def test_what_cannot_be_asked_is_not_known(tmp_path: Path) -> None:
    foreign = save(tmp_path / "foreign.onnx", [helper.make_node("Unheard", ["x"], ["y"], domain="plant.a")])
    comparison = await compare_outputs(foreign, foreign, size=0)
    assert (comparison.verdict, "cannot be loaded" in comparison.why) == (Verdict.UNKNOWN, True)
    text = save(tmp_path / "text.onnx", [helper.make_node("Identity", ["x"], ["y"])], kind=TensorProto.STRING)
    assert "types that cannot be made up" in (await compare_outputs(text, text, size=0)).why


async def test_a_model_that_never_answers_the_same_is_not_known(tmp_path: Path) -> None:
    dice = save(tmp_path / "dice.onnx", [helper.make_node("RandomNormalLike", ["x"], ["y"])])
    comparison = await compare_outputs(dice, dice, size=0)
    assert (comparison.verdict, "differently every time" in comparison.why) == (Verdict.UNKNOWN, True)


async def test_a_model_that_takes_too_much_memory_ends_alone(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[1 << 30]),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"]),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    greedy = save(tmp_path / "greedy.onnx", nodes)
    comparison = await compare_outputs(greedy, greedy, size=0)
    assert comparison.verdict is Verdict.UNKNOWN


async def test_large_models_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, parts = await taken_apart(tmp_path)
    monkeypatch.setattr(outputs, "MAX_MODEL_BYTES", 1000)
    assert (await prove_outputs([original], parts, tmp_path)).verdict is Verdict.UNKNOWN
