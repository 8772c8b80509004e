"""Reading TFLite files that nobody vouches for: described, or refused in a sentence, whatever the bytes."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.tflite import inspect_tflite
from support.formats import Tflite, make_tflite

MODEL = make_tflite(4)


def inspect(folder: Path, content: bytes) -> dict[str, Any]:
    (folder / "model").write_bytes(content)
    return inspect_tflite(folder / "model")


def test_a_model_is_described(tmp_path: Path) -> None:
    tensor = {"type": 0, "shape": [None, 4]}
    assert inspect(tmp_path, MODEL) == {
        "schemaVersion": 3,
        "inputs": [{"name": "x"} | tensor],
        "outputs": [{"name": "y"} | tensor],
    }


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
        (make_tflite(4, Tflite(inputs=())), "no inputs or no outputs"),
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
        found = inspect(tmp_path, bytes(content[:end]))
        assert found["inputs"]
        assert found["outputs"]
