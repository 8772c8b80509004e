"""What is measured and decided without a server: budgets, batches, and which rows are independent."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import ModelMaker

from edgemodel_server.pacing import Pacer
from edgemodel_server.runtimes import LoadOptions, Model, load_model
from edgemodel_server.runtimes.slot import Geometry
from edgemodel_server.tuning import Tuning, tune


class Machine:
    """A clock and a processor that a test turns."""

    def __init__(self) -> None:
        self.now = 0.0
        self.used = 0.0

    def compute(self, seconds: float) -> None:
        self.now += seconds
        self.used += seconds

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def pacer(self, processors: float) -> Pacer:
        return Pacer(processors, lambda: self.now, lambda: self.used, self.sleep)


@given(st.floats(0.05, 4.0), st.lists(st.floats(0.0, 2.0), min_size=1, max_size=50))
def test_the_processor_time_stays_within_the_budget(processors: float, work: list[float]) -> None:
    machine = Machine()
    pacer = machine.pacer(processors)
    for seconds in work:
        pacer.wait()
        assert machine.used <= processors * (machine.now + 0.1) * (1 + 1e-9)
        machine.compute(seconds)


@given(st.floats(0.05, 1.0), st.lists(st.floats(0.001, 0.1), min_size=1, max_size=50))
def test_what_the_budget_allows_is_not_held_back(processors: float, work: list[float]) -> None:
    machine = Machine()
    pacer = machine.pacer(processors)
    for seconds in work:
        assert pacer.wait() <= 0.001  # no more than what floating point loses
        machine.compute(seconds)
        machine.sleep(seconds / processors)


def load(path: Path) -> Model:
    return load_model("ONNX", path, LoadOptions())


def test_a_model_with_independent_rows_gets_a_geometry_of_one_row(models: ModelMaker, tmp_path: Path) -> None:
    model = load(models.deep(tmp_path / "deep.onnx"))
    tuning = tune(model, {"x": np.zeros((1, 64), np.float32)}, 1e-5, 8)
    assert tuning.geometry is not None
    assert (tuning.geometry.inputs, tuning.geometry.outputs) == ({"x": (1, 64)}, {"y": (1, 64)})
    assert set(tuning.batch_seconds) == {1, 2, 4, 8}
    assert 1 <= tuning.max_rows <= 8


def test_one_row_is_allowed_and_no_more_measured_where_batching_is_off(
    models: ModelMaker, tmp_path: Path
) -> None:
    tuning = tune(load(models.deep(tmp_path / "deep.onnx")), {"x": np.zeros((1, 64), np.float32)}, 1e-5, 1)
    assert tuning.max_rows == 1
    assert set(tuning.batch_seconds) == {1}


def test_rows_that_see_each_other_get_no_geometry(models: ModelMaker, tmp_path: Path) -> None:
    model = load(models.across_rows(tmp_path / "across.onnx"))
    assert tune(model, {"x": np.ones((1, 4), np.float32)}, 1e-5, 8).geometry is None


def test_fixed_shapes_are_a_geometry_without_rows(models: ModelMaker, tmp_path: Path) -> None:
    model = load(models.identity(tmp_path / "fixed.onnx", "FP32", [3, 2]))
    tuning = tune(model, {"x": np.zeros((3, 2), np.float32)}, 1e-5, 8)
    assert tuning.geometry == Geometry({"x": (3, 2)}, {"y": (3, 2)}, 0)


@pytest.mark.parametrize(("datatype", "shape"), [("BYTES", [2]), ("FP32", ["n", "m"]), ("FP32", [0, 2])])
def test_text_free_and_empty_shapes_get_no_geometry(
    models: ModelMaker, tmp_path: Path, datatype: str, shape: list[int | str]
) -> None:
    model = load(models.identity(tmp_path / "odd.onnx", datatype, shape))
    inputs = {"x": np.zeros([size if isinstance(size, int) else 1 for size in shape], np.float32)}
    assert tune(model, inputs, 1e-5, 8).geometry is None


def test_a_slow_model_is_not_measured_further(models: ModelMaker, tmp_path: Path) -> None:
    model = load(models.deep(tmp_path / "deep.onnx"))
    assert tune(model, {"x": np.zeros((1, 64), np.float32)}, 0.5, 8) == Tuning(0.5, 256)


def test_rows_shrink_to_what_the_loop_can_afford() -> None:
    geometry = Geometry({"x": (1, 4)}, {"y": (1, 4)}, 16)
    tuning = Tuning(1e-4, 16, geometry, {1: 1e-4, 2: 2e-4, 4: 3e-4, 8: 9e-4, 16: 17e-4})
    shrunk = tuning.shrink(1e-3)
    assert shrunk is not None
    assert shrunk.rows == 8
