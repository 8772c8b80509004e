"""The outline of an ONNX file: small wherever the weights lie, and as honest about them as the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.onnx import inspect_onnx
from edgemodel_operator.build.inspect.onnx_outline import Outline
from support.build import make_onnx, parse_onnx

ELEMENTS = 100_000
STORED = 16
"""Elements of the weight that the model has besides."""

Placing = Callable[[Any, Any], None]


def in_lists(kind: int, numbers: list[Any]) -> Any:
    return helper.make_tensor("w", kind, [len(numbers)], numbers)


TENSORS = {
    "raw": numpy_helper.from_array(numpy.ones(ELEMENTS, numpy.float32), "w"),
    "floats": in_lists(TensorProto.FLOAT, [1.5] * ELEMENTS),
    "doubles": in_lists(TensorProto.DOUBLE, [1.5] * ELEMENTS),
    "integers": in_lists(TensorProto.INT64, [-1, 300] * (ELEMENTS // 2)),
    "bytes": in_lists(TensorProto.UINT8, [200] * ELEMENTS),
    "unsigned": in_lists(TensorProto.UINT64, [2**63] * ELEMENTS),
    "texts": in_lists(TensorProto.STRING, [b"line"] * ELEMENTS),
}


def as_initializer(model: Any, tensor: Any) -> None:
    model.graph.initializer.append(tensor)


def as_constant(model: Any, tensor: Any) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_a_branch(model: Any, tensor: Any) -> None:
    branch = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=5).g
    branch.initializer.append(tensor)


def in_a_function(model: Any, tensor: Any) -> None:
    function = model.functions.add(name="F", domain="mine")
    function.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_training(model: Any, tensor: Any) -> None:
    model.training_info.add().initialization.initializer.append(tensor)


def in_a_sparse_tensor(model: Any, tensor: Any) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor)
    sparse.indices.CopyFrom(in_lists(TensorProto.INT64, []))


PLACES = (as_initializer, as_constant, in_a_branch, in_a_function, in_training, in_a_sparse_tensor)


def write(folder: Path, placing: Placing, tensor: Any) -> Path:
    model = parse_onnx(make_onnx(4))
    placing(model, tensor)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("placing", PLACES)
def test_weights_are_counted_and_left_out_wherever_they_lie(tmp_path: Path, placing: Placing) -> None:
    path = write(tmp_path, placing, TENSORS["raw"])
    found = inspect_onnx(path, {})
    assert found.parameters == STORED + ELEMENTS
    assert len(Outline(path).content) < 1000


@pytest.mark.parametrize("stored", TENSORS)
def test_weights_are_counted_and_left_out_however_they_are_stored(tmp_path: Path, stored: str) -> None:
    path = write(tmp_path, as_constant, TENSORS[stored])
    found = inspect_onnx(path, {})
    assert found.parameters == STORED + ELEMENTS
    assert len(Outline(path).content) < 1000


@pytest.mark.parametrize("stored", TENSORS)
def test_a_tensor_with_less_than_its_shape_says_is_refused(tmp_path: Path, stored: str) -> None:
    tensor = type(TENSORS[stored])()
    tensor.CopyFrom(TENSORS[stored])
    tensor.dims[0] = 4 * ELEMENTS + 1
    with pytest.raises(Objection, match=r"fewer elements than its shape says|bytes and has 400000"):
        inspect_onnx(write(tmp_path, as_initializer, tensor), {})


def test_numbers_that_are_not_packed_count_as_well(tmp_path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1000])
    unpacked = tensor.SerializeToString() + b"\x25\x00\x00\x80\x3f" * 1000
    model = parse_onnx(make_onnx(4))
    holder = b"\x2a" + varint(len(unpacked)) + unpacked
    graph = model.graph.SerializeToString() + holder
    model.ClearField("graph")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)
    assert inspect_onnx(path, {}).parameters == STORED + 1000
    assert len(Outline(path).content) < 1000


def varint(value: int) -> bytes:
    return bytes([value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14])


def test_long_texts_and_parameters_are_left_out(tmp_path: Path) -> None:
    model = parse_onnx(make_onnx(4))
    long = "x" * 100_000
    model.doc_string = model.graph.doc_string = model.graph.node[0].doc_string = long
    model.metadata_props.add(key="k", value=long)
    model.graph.node.append(helper.make_node("Cached", [], ["c"], domain="mine", context=long))
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert inspect_onnx(path, {}).operators == {"MatMul", "mine:Cached"}
    assert len(Outline(path).content) < 1000


def test_what_is_small_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_onnx(4))
    assert Outline(path).content == make_onnx(4)


def test_no_model_can_say_that_something_was_left_out_of_it(tmp_path: Path) -> None:
    """What an outline says of one file means nothing in another."""
    outline = Outline(write(tmp_path, as_initializer, TENSORS["raw"])).content
    (tmp_path / "model.onnx").write_bytes(outline)
    with pytest.raises(Objection, match="ONNX knows no such key"):
        inspect_onnx(tmp_path / "model.onnx", {})
