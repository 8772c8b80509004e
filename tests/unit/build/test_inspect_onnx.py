"""Reading ONNX graphs that nobody vouches for: what is in them, and which tensors are refused."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.inspect.found import Found, Tensor
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.onnx import inspect_onnx
from support.build import make_onnx, parse_onnx

MODEL = make_onnx(4)
WEIGHTS = {"model.onnx": len(MODEL), "weights.bin": 100}


def inspect(folder: Path, model: Any) -> Found:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.onnx").write_bytes(content)
    return inspect_onnx(folder / "model.onnx", WEIGHTS)


def point(tensor: Any, **entries: str) -> None:
    """Let a tensor lie in another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def external(**entries: str) -> Any:
    model = parse_onnx(MODEL)
    point(model.graph.initializer[0], **entries)
    return model


def within_a_branch(**entries: str) -> Any:
    """Hide the reference in the constant of a branch of an If node."""
    model = parse_onnx(MODEL)
    branch = model.graph.node.add(op_type="If").attribute.add(name="then_branch", type=5).g
    constant = branch.node.add(op_type="Constant").attribute.add(name="value", type=4).t
    constant.MergeFrom(model.graph.initializer[0])
    point(constant, **entries)
    return model


def within_a_function(**entries: str) -> Any:
    """Hide the reference in the default of an attribute of a function."""
    model = parse_onnx(MODEL)
    default = model.functions.add(name="F", domain="mine").attribute_proto.add(name="value", type=4).t
    default.MergeFrom(model.graph.initializer[0])
    point(default, **entries)
    return model


def within_training(**entries: str) -> Any:
    model = parse_onnx(MODEL)
    tensor = model.training_info.add().algorithm.initializer.add()
    tensor.MergeFrom(model.graph.initializer[0])
    point(tensor, **entries)
    return model


def changed(change: Callable[[Any], None]) -> Any:
    model = parse_onnx(MODEL)
    change(model)
    return model


def test_a_model_is_described(tmp_path: Path) -> None:
    assert inspect(tmp_path, MODEL) == Found(
        inputs=[Tensor("x", "FP32", ("N", "4"))],
        outputs=[Tensor("y", "FP32", ("N", "4"))],
        operator_sets={"ai.onnx": 17},
        operators=frozenset({"MatMul"}),
        parameters=16,
        memory_bytes=64 + 2 * 16,  # the weights, and at a batch of one the input beside the output
    )


def test_weights_in_another_file_of_the_model_change_nothing(tmp_path: Path) -> None:
    whole = inspect(tmp_path, MODEL)
    assert inspect(tmp_path, external(location="weights.bin", offset="36", length="64")) == whole
    assert inspect(tmp_path, external(location="weights.bin")) == whole


def test_operators_are_found_in_branches_and_functions(tmp_path: Path) -> None:
    model = within_a_branch(location="weights.bin")
    function = model.functions.add(name="Twice", domain="mine")
    function.node.add(op_type="Add")
    function.node.add(op_type="Attention", domain="com.microsoft")
    function.opset_import.add(domain="com.microsoft", version=1)
    model.graph.node.add(op_type="Twice", domain="mine")
    model.opset_import.add(domain="mine", version=1)
    found = inspect(tmp_path, model)
    assert found.operators == {"Add", "Constant", "If", "MatMul", "com.microsoft:Attention"}
    assert found.operator_sets == {"ai.onnx": 17, "com.microsoft": 1}


def test_tensors_that_are_computed_are_inferred_and_freed(tmp_path: Path) -> None:
    """A chain of three: never more than what one operator takes and makes is alive."""
    nodes = [
        helper.make_node("Relu", ["x"], ["a"]),
        helper.make_node("Concat", ["a", "a"], ["b"], axis=1),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [-1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    found = inspect(tmp_path, helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert (found.parameters, found.memory_bytes) == (0, 2 * 16 * 4)
    assert found.inputs == [Tensor("x", "FP32", ("-1", "8"))]


@pytest.mark.parametrize("place", [external, within_a_branch, within_a_function, within_training])
@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"location": "../weights.bin"}, "no plain name of a file beside the model"),
        ({"location": "/etc/passwd"}, "no plain name"),
        ({"location": "./weights.bin"}, "no plain name"),
        ({"location": "a\\weights.bin"}, "no plain name"),
        ({}, "no plain name"),
        ({"location": "other.bin"}, r"which is not there \(there is: model.onnx, weights.bin\)"),
        ({"location": "weights.bin\0"}, "which is not there"),
        ({"location": "weights.bin", "offset": "37"}, "needs 64 bytes and has 63"),
        ({"location": "weights.bin", "offset": "37", "length": "64"}, "ends at byte 101 of weights.bin"),
        ({"location": "weights.bin", "offset": "101"}, "needs 64 bytes and has -1"),
        ({"location": "weights.bin", "offset": "-1"}, "where a number of bytes belongs"),
        ({"location": "weights.bin", "length": "9" * 5000}, "where a number of bytes belongs"),
        ({"location": "weights.bin", "length": "100"}, "needs 64 bytes and has 100"),
        ({"location": "weights.bin", "basepath": "/etc"}, "says 'basepath' of where it lies"),
        ({"location": "weights.bin", "__class__": "x"}, "says '__class__' of where it lies"),
    ],
)
def test_tensors_outside_of_the_model_are_refused_wherever_they_hide(
    tmp_path: Path, place: Callable[..., Any], entries: dict[str, str], sentence: str
) -> None:
    with pytest.raises(Objection, match=sentence):
        inspect(tmp_path, place(**entries))


def twice(model: Any) -> None:
    point(model.graph.initializer[0], location="weights.bin")
    model.graph.initializer[0].external_data.add(key="location", value="other.bin")


def both(model: Any) -> None:
    content = model.graph.initializer[0].raw_data
    point(model.graph.initializer[0], location="weights.bin")
    model.graph.initializer[0].raw_data = content


def unmarked(model: Any) -> None:
    point(model.graph.initializer[0], location="weights.bin")
    model.graph.initializer[0].data_location = TensorProto.DEFAULT


def as_sequence(model: Any) -> None:
    model.graph.output[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    )


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (twice, "says twice where it lies"),
        (both, "stored both in the model and in another file"),
        (unmarked, "stored both in the model and in another file"),
        (as_sequence, "output 'y' is no tensor; .* `zipmap=False`"),
        (
            lambda model: setattr(model.graph.input[0].type.tensor_type, "elem_type", TensorProto.BFLOAT16),
            r"input 'x' is of a type that clients cannot send or receive \(BFLOAT16\)",
        ),
        (lambda model: setattr(model.graph.initializer[0], "data_type", 99), "type of number 99"),
        (lambda model: setattr(model.graph.initializer[0], "data_type", 0), "type of number 0"),
        (lambda model: model.graph.initializer[0].dims.append(2), "needs 128 bytes and has 64"),
        (lambda model: model.graph.initializer[0].dims.append(-1), "-1 elements in a dimension"),
        (
            lambda model: model.graph.initializer.add(data_type=TensorProto.INT64, dims=[2**40]),
            "fewer elements than its shape says",
        ),
        (lambda model: model.graph.initializer[0].segment.SetInParent(), "stored in segments"),
    ],
)
def test_other_tensors_are_refused(tmp_path: Path, change: Callable[[Any], None], sentence: str) -> None:
    with pytest.raises(Objection, match=sentence):
        inspect(tmp_path, changed(change))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.graph.ClearField("output"), "no inputs or no outputs"),
        (lambda model: model.graph.ClearField("input"), "no inputs or no outputs"),
        (lambda model: setattr(model.graph.input[0], "name", "n" * 251), "more than 250 characters"),
        (
            lambda model: model.graph.input[0].type.tensor_type.shape.dim.extend(
                [model.graph.input[0].type.tensor_type.shape.dim[0]] * 16
            ),
            "more than 16 dimensions",
        ),
        (
            lambda model: [model.graph.node.add(op_type=f"Op{number}") for number in range(300)],
            "uses 301 operators of 1 sets",
        ),
        (
            lambda model: model.graph.output[0].type.tensor_type.shape.dim.add(dim_value=2**60),
            "no machine can hold",
        ),
    ],
)
def test_a_report_has_bounds(tmp_path: Path, change: Callable[[Any], None], sentence: str) -> None:
    with pytest.raises(Objection, match=sentence):
        inspect(tmp_path, changed(change)).to_raw()


@given(
    st.lists(
        st.tuples(st.integers(0, len(MODEL) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
    ),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_described_or_refused(tmp_path: Path, damage: list[tuple[int, bytes]]) -> None:
    content = bytearray(MODEL)
    for position, value in damage:
        content[position : position + len(value)] = value
    with suppress(Objection):
        report = inspect(tmp_path, bytes(content)).to_raw()
        assert ModelReport.model_validate(report).inputs
