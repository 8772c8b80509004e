"""What the measurement sends, and what it reads from its clients."""

import numpy as np
import onnx
import pytest

from bench.asking import check_answer, make_reference
from bench.loadgen import Answered, parse_h2load_data_bytes, parse_h2load_log, parse_wrk, percentile
from bench.machine import BenchError
from bench.memory import drift_percent
from bench.models import make_inputs, make_models
from bench.payloads import JSON_DATA, RAW_BYTES, V2_BINARY, V2_JSON


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(("model", "parameters"), [
    ("iris", 4 * 3 + 3),
    ("ad", 2 * 640 * 128 + 6 * 128 * 128 + 2 * 128 * 8 + 8 * 128 + 8 + 640),
    ("mbv2", 3_504_872 - 17_056),  # torchvision's count, without the scales of the folded batch norms
])  # fmt: skip
def test_models_have_the_size_of_what_they_stand_for(models, model, parameters):
    file = models[model]

    weights = [array for array in onnx.load(file).graph.initializer if array.dims]

    assert sum(int(np.prod(array.dims)) for array in weights) == parameters


@pytest.mark.parametrize("model", ["iris", "ad", "mbv2"])
def test_models_tell_inputs_apart(models, model):
    reference = make_reference(models[model], make_inputs(model, 2))

    with pytest.raises(BenchError, match="wrong answer: off by"):
        check_answer(reference.outputs[0], reference.outputs[1])


def test_answers_may_differ_in_shape_but_not_in_size():
    tensor = make_inputs("iris", 1)[0]

    check_answer(tensor.ravel(), tensor)
    with pytest.raises(BenchError, match="3 numbers instead of 4"):
        check_answer(tensor.ravel()[:3], tensor)


def test_json_carries_the_exact_numbers():
    tensor = make_inputs("ad", 1)[0]
    document = V2_JSON.encode(tensor).body.replace(b'"inputs"', b'"outputs"')

    assert np.array_equal(V2_JSON.decode(document, {}), tensor.ravel())
    assert np.array_equal(JSON_DATA.decode(JSON_DATA.encode(tensor).body, {}), tensor.ravel())


def test_binary_tensors_begin_after_the_json():
    tensor = make_inputs("ad", 1)[0]
    payload = V2_BINARY.encode(tensor)
    headers = {name.lower(): value for name, value in payload.headers.items()}

    assert np.array_equal(V2_BINARY.decode(payload.body, headers), tensor.ravel())
    assert np.array_equal(RAW_BYTES.decode(RAW_BYTES.encode(tensor).body, {}), tensor.ravel())


WRK = """\
Running 1s test @ http://127.0.0.1:8080/
  1 threads and 8 connections
Requests/sec:    100.00

RESULT {"requests": 200, "seconds": 2.0, "p50_ms": 0.5, "p99_ms": 1.5, "errors": ERRORS}
"""


def test_wrk_results_are_read():
    assert parse_wrk(WRK.replace("ERRORS", "0")) == Answered(200, 2.0, 0.5, 1.5)


@pytest.mark.parametrize("output", [
    WRK.replace("ERRORS", "1"),
    WRK.replace("ERRORS", "0").replace("200", "0"),
    "unable to connect",
])  # fmt: skip
def test_windows_with_failures_do_not_count(output):
    with pytest.raises(BenchError):
        parse_wrk(output)


def test_h2load_results_are_read():
    log = "\n".join(f"{start}\t200\t{took}" for start, took in ((0, 500), (100, 900), (500_000, 500_000)))

    assert parse_h2load_log(log) == Answered(3, 1.0, 0.9, 500.0)
    assert (
        parse_h2load_data_bytes("traffic: 2.5MB (2621440) total, 1KB (1024) headers, 2MB (2097152) data")
        == 2_097_152
    )


@pytest.mark.parametrize("log", ["", "0\t200\t5\n9\t503\t5"])
def test_failed_calls_do_not_count(log):
    with pytest.raises(BenchError, match="gRPC calls failed"):
        parse_h2load_log(log)


@pytest.mark.parametrize(("percent", "expected"), [(50, 2), (75, 3), (76, 4), (99, 4), (100, 4)])
def test_percentiles_are_values_that_occurred(percent, expected):
    assert percentile([1, 2, 3, 4], percent) == expected


def test_drift_counts_from_the_warm_server_on():
    marks = [(0, 60.0), (900, 64.0), (1_500, 80.0), (9_000, 70.0), (11_000, 84.0)]

    assert drift_percent(marks, warm=1_000) == pytest.approx(5.0)
    assert drift_percent(marks, warm=50_000) == 0.0
