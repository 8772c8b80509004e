"""What an index says of the model in it."""

from __future__ import annotations

import pytest

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport, ModelTensor, OperatorSet
from edgemodel_operator.core.annotations import MODEL_REPORT, read_report, write_report

REPORT = ModelReport(
    inputs=(ModelTensor(name="x", datatype="FP32", shape=("-1", "3")),),
    outputs=(ModelTensor(name="y", datatype="FP32", shape=("-1", "2")),),
    operator_sets=(OperatorSet(domain="ai.onnx", version=17),),
    operators=("Gemm",),
    parameters=8,
    size_bytes=120,
    estimated_memory_bytes=300,
)


def test_a_report_is_read_as_it_was_written() -> None:
    assert read_report({MODEL_REPORT: write_report(REPORT)}) == REPORT


def test_where_the_files_came_from_is_not_in_it() -> None:
    local = REPORT.model_copy(
        update={"source_key": "k", "files": (ModelFile(name="a.onnx", sha256="a" * 64, size=120),)}
    )
    assert write_report(local) == write_report(REPORT)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"parameters": "many"}'])
def test_what_is_no_report_is_none(text: str) -> None:
    assert read_report({MODEL_REPORT: text}) is None
