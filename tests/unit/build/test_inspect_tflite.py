"""Reading TFLite files that nobody vouches for: described, or refused in a sentence, whatever the bytes."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType  # type: ignore[import-untyped]
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.inspect.found import Found, Tensor
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.tflite import BITS, inspect_tflite
from edgemodel_operator.build.inspect.tflite_operators import BUILTIN
from support.formats import Tflite, make_tflite

MODEL = make_tflite(4)


def inspect(folder: Path, content: bytes) -> Found:
    (folder / "model").write_bytes(content)
    return inspect_tflite(folder / "model")


def test_a_model_is_described(tmp_path: Path) -> None:
    assert inspect(tmp_path, MODEL) == Found(
        inputs=[Tensor("x", "FP32", ("-1", "4"))],
        outputs=[Tensor("y", "FP32", ("-1", "4"))],
        operator_sets={},
        operators=frozenset({"FULLY_CONNECTED@1"}),
        parameters=16,
        memory_bytes=64 + 2 * 16,  # the weights, and at a batch of one the input beside the output
    )


def test_the_numbers_of_operators_and_types_are_those_of_the_pinned_runtime() -> None:
    numbers = {name: number for name, number in vars(BuiltinOperator).items() if isinstance(number, int)}
    assert {name: number for number, name in enumerate(BUILTIN)} == numbers
    types = {number for number in vars(TensorType).values() if isinstance(number, int)}
    without_size = {TensorType.STRING, TensorType.RESOURCE, TensorType.VARIANT}
    assert types - without_size == BITS.keys()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a TFLite file"),
        (b"<html><body>Please log in</body></html>", "not a TFLite file"),
        (MODEL[:4] + b"TFL2" + MODEL[8:], "not a TFLite file"),
        (MODEL[:8], "cut off or damaged"),
        (MODEL[: len(MODEL) // 2], "cut off or damaged"),
        (struct.pack("<I", 2**31) + MODEL[4:], "behind its end"),
        (make_tflite(4, Tflite(version=4)), "schema has version 4"),
        (make_tflite(4, Tflite(outputs=(7,))), "number 7 of its 3 tensors"),
        (make_tflite(4, Tflite(outputs=(-1,))), "number -1 of its 3 tensors"),
        (make_tflite(4, Tflite(operands=(0, 3, -1))), "number 3 of its 3 tensors"),
        (make_tflite(4, Tflite(code=1)), "number 1 of its 1 operators"),
        (make_tflite(4, Tflite(weights=2)), "number 2 of its 2 weights"),
        (make_tflite(4, Tflite(claimed_bytes=2**31)), "weights behind its end"),
        (make_tflite(4, Tflite(operators=0)), "its graph is empty"),
        (make_tflite(4, Tflite(graphs=0)), "holds no graph"),
        (make_tflite(4, Tflite(graphs=3000, operators=3000)), "over and over"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(Objection, match=sentence):
        inspect(tmp_path, content)


def test_a_graph_without_inputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Objection, match="no inputs or no outputs"):
        inspect(tmp_path, make_tflite(4, Tflite(inputs=()))).to_raw()


@given(
    st.lists(
        st.tuples(st.integers(0, len(MODEL) - 1), st.binary(min_size=1, max_size=4)), min_size=1, max_size=4
    ),
    st.integers(8, len(MODEL)),
)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_is_described_or_refused(tmp_path: Path, damage: list[tuple[int, bytes]], end: int) -> None:
    content = bytearray(MODEL)
    for position, value in damage:
        content[position : position + len(value)] = value
    with suppress(Objection):
        report = inspect(tmp_path, bytes(content[:end])).to_raw()
        assert ModelReport.model_validate(report).inputs
