"""Made-up inputs, and how far answers are apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgemodel_operator.build.compare.difference import difference
from edgemodel_operator.build.compare.inputs import Signature, make_inputs

NAN, INF = float("nan"), float("inf")


def array(*values: Any, dtype: str = "float32") -> Any:
    return np.array(values, dtype=dtype)


@given(npst.arrays(st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.bool_]), (2, 3)))
def test_nothing_is_apart_from_itself(tensor: Any) -> None:
    assert difference([tensor], [tensor.copy()]) == 0.0


@pytest.mark.parametrize(
    ("expected", "found", "apart"),
    [
        ([array(1, 2)], [array(1, 2.5)], 0.25),
        ([array(0.1)], [array(0.2)], 0.1),
        ([array(-100, 0)], [array(-100, 1)], 0.01),
        ([array(1), array(4)], [array(1), array(3)], 0.25),
        ([array(NAN)], [array(NAN)], 0.0),
        ([array(INF)], [array(INF)], 0.0),
        ([array(NAN)], [array(1)], INF),
        ([array(1)], [array(INF)], INF),
        ([array(INF)], [array(-INF)], INF),
        ([array(1)], [array(1), array(1)], INF),
        ([array(1, 2)], [array(1)], INF),
        ([array(1)], [array(1, dtype="float64")], INF),
        ([array(1, dtype="int64")], [array(2, dtype="int64")], INF),
        ([array("a", dtype="object")], [array("b", dtype="object")], INF),
        ([[{"a": 0.5}]], [[{"a": 0.5}]], 0.0),
        ([[{"a": 0.5}]], [[{"a": 0.25}]], INF),
        ([], [], 0.0),
    ],
)
def test_how_far_answers_are_apart(expected: list[Any], found: list[Any], apart: float) -> None:
    assert difference(expected, found) == pytest.approx(apart, rel=1e-6)


def test_inputs_are_the_same_for_the_same_signature() -> None:
    signatures = [
        Signature("x", "tensor(float)", ["batch", 3, None]),
        Signature("ids", "tensor(int64)", [1, "length"]),
        Signature("mask", "tensor(bool)", [2]),
    ]
    one, other = make_inputs(signatures, 8), make_inputs(signatures, 8)
    assert one is not None
    assert other is not None
    assert {name: (tensor.shape, str(tensor.dtype)) for name, tensor in one.items()} == {
        "x": ((1, 3, 8), "float32"),
        "ids": ((1, 8), "int64"),
        "mask": ((2,), "bool"),
    }
    for name, tensor in one.items():
        assert np.array_equal(tensor, other[name])
    assert 0 < one["x"].std() < 1
    assert set(one["ids"].ravel()) <= {0, 1}


@pytest.mark.parametrize(
    "signature",
    [
        Signature("x", "tensor(string)", [1]),
        Signature("x", "seq(tensor(float))", [1]),
        Signature("x", "tensor(float)", [1 << 13, 1 << 13]),
    ],
)
def test_what_cannot_be_made_up_is_not(signature: Signature) -> None:
    assert make_inputs([signature], 1) is None
