"""What converting processes go by: the inputs that a model is tried with, and when outputs agree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemodel_operator.build.convert.job import Input, Job
from edgemodel_operator.build.convert.trial import OutputsDiffer, check_outputs, datatype_of, make_inputs
from edgemodel_operator.build.inspect.objection import Objection

DATATYPES = (
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
)


def test_dimensions_that_vary_are_tried_and_named() -> None:
    one = Input("x", "FP32", (-1, 3, -1, 7))
    assert one.tried_shape == (2, 3, 64, 7)
    assert one.varying == {0: "batch", 2: "x_2"}


def test_a_job_is_read_from_json() -> None:
    entry = {"name": "", "datatype": "INT64", "shape": [-1, 4]}
    raw = {
        "origin": "TorchScript",
        "source": "/a/m.pt",
        "target": "/b",
        "inputs": [entry, entry | {"name": "y"}],
    }
    inputs = (Input("input_0", "INT64", (-1, 4)), Input("y", "INT64", (-1, 4)))
    assert Job.from_raw(raw) == Job("TorchScript", Path("/a/m.pt"), Path("/b"), inputs)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_made_up_inputs_are_the_same_each_time(datatype: str) -> None:
    wanted = [Input("x", datatype, (-1, 50)), Input("y", datatype, (3,))]
    first, second = make_inputs(wanted), make_inputs(wanted)
    assert [one.shape for one in first] == [(2, 50), (3,)]
    assert [datatype_of(one.dtype) for one in first] == [datatype] * 2
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))
    assert len(np.unique(first[0])) > 1
    if datatype in {"INT64", "INT32"}:
        assert set(np.unique(first[0])) == {0, 1}


def test_texts_cannot_be_made_up() -> None:
    with pytest.raises(Objection, match="'x' is BYTES: write one of BOOL"):
        make_inputs([Input("x", "BYTES", (1,))])
    with pytest.raises(Objection, match="which clients cannot send"):
        datatype_of(np.dtype("complex64"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([1.0, 2.0], [1.0 + 0.9e-4, 2.0]),
        ([0.0, 1e6], [50.0, 1e6]),  # in relation to the largest
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0]),
        ([], []),
    ],
)
def test_outputs_agree(before: list[float], after: list[float]) -> None:
    check_outputs([np.array(before, np.float64)], [np.array(after, np.float64)])


@pytest.mark.parametrize(
    ("before", "after", "sentence"),
    [
        (
            np.zeros(2),
            np.full(2, 1.1e-4),
            r"output 0 differs from the original's by 0.00011, more than 0.0001",
        ),
        (np.zeros(2), np.zeros(3), r"output 0 has the shape \(3,\), not \(2,\)"),
        (np.array([np.nan]), np.zeros(1), "numbers where the original has none"),
        (np.zeros(1), np.array([np.nan]), "output 0 differs"),
        (np.array([np.inf]), np.array([-np.inf]), "numbers where the original has none"),
        (np.array([1, 2]), np.array([1, 3]), "other numbers than the original's"),
        (np.array([True]), np.array([False]), "other numbers than the original's"),
    ],
)
def test_outputs_differ(before: Any, after: Any, sentence: str) -> None:
    with pytest.raises(OutputsDiffer, match=sentence):
        check_outputs([before], [after])


def test_an_output_more_or_less_differs() -> None:
    with pytest.raises(OutputsDiffer, match="has 1 outputs where the original has 2"):
        check_outputs([np.zeros(1)] * 2, [np.zeros(1)])
