"""How calls are computed: shared computations that change no answer, deadlines, lost clients, idleness."""

import json
import resource
import socket
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from serving import PROTOBUF_TYPES, ModelMaker, Reply, ServerProcess, StartServer

from edgemodel_server.datatypes import NUMPY_DTYPE

SLOW = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [7]}]}
CLIENTS = 8


def binary_request(arrays: dict[str, np.ndarray[Any, Any]]) -> tuple[bytes, dict[str, str]]:
    """Return body and headers of a request with binary inputs and outputs."""
    inputs = [
        {
            "name": name,
            "datatype": next(known for known, dtype in NUMPY_DTYPE.items() if dtype == array.dtype),
            "shape": array.shape,
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in arrays.items()
    ]
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    body = head + b"".join(array.tobytes() for array in arrays.values())
    return body, {"Inference_Header_Content_Length": str(len(head))}


def read_outputs(reply: Reply) -> dict[str, np.ndarray[Any, Any]]:
    assert reply.status == 200, reply.body
    length = int(reply.headers["inference-header-content-length"])
    rest = reply.body[length:]
    outputs = {}
    for entry in json.loads(reply.body[:length])["outputs"]:
        size = entry["parameters"]["binary_data_size"]
        outputs[entry["name"]] = np.frombuffer(rest[:size], NUMPY_DTYPE[entry["datatype"]]).reshape(
            entry["shape"]
        )
        rest = rest[size:]
    return outputs


def ask_together(
    server: ServerProcess, model: str, inputs: Sequence[dict[str, np.ndarray[Any, Any]]]
) -> list[Reply]:
    """Send all requests at the same moment, each on a connection of its own."""
    barrier = threading.Barrier(len(inputs))

    def ask(arrays: dict[str, np.ndarray[Any, Any]]) -> Reply:
        body, headers = binary_request(arrays)
        barrier.wait()
        return server.ask("POST", f"/v2/models/{model}/infer", body, **headers)

    with ThreadPoolExecutor(len(inputs)) as pool:
        return list(pool.map(ask, inputs))


def largest_batch(server: ServerProcess, model: str) -> float:
    """Return an upper bound below which all computations were: 1 when nothing was ever shared."""
    total = server.metric(f'edgemodel_server_batch_size_count{{model="{model}"}}')
    bounds = (1, 2, 4, 8, 16, 32)
    return next(
        bound
        for bound in bounds
        if server.metric(f'edgemodel_server_batch_size_bucket{{model="{model}",le="{bound}.0"}}') == total
    )


def make_rows(count: int, width: int) -> list[dict[str, np.ndarray[Any, Any]]]:
    random = np.random.default_rng(11)
    return [{"x": random.standard_normal((1, width)).astype(np.float32)} for _ in range(count)]


def test_a_shared_computation_changes_no_answer(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.deep(tmp_path / "deep.onnx")
    server = start_server("--model", path, "--max-delay-ms", "200", "--max-batch-size", CLIENTS)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = make_rows(CLIENTS, 64)
    for _ in range(3):
        for inputs, reply in zip(rows, ask_together(server, "deep", rows), strict=True):
            (want,) = session.run(None, inputs)
            np.testing.assert_array_max_ulp(read_outputs(reply)["y"], want, maxulp=1)
    assert largest_batch(server, "deep") > 1


def test_without_batching_answers_are_the_runtimes_own_bit_for_bit(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.deep(tmp_path / "deep.onnx")
    server = start_server("--model", path, "--batching", "off")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = make_rows(CLIENTS, 64)
    for inputs, reply in zip(rows, ask_together(server, "deep", rows), strict=True):
        assert np.array_equal(read_outputs(reply)["y"], session.run(None, inputs)[0])
    assert largest_batch(server, "deep") == 1


@pytest.mark.parametrize("datatype", [name for name in PROTOBUF_TYPES if name != "BYTES"])
def test_every_datatype_is_shared_without_a_changed_bit(
    models: ModelMaker, start_server: StartServer, tmp_path: Path, datatype: str
) -> None:
    path = models.identity(tmp_path / "same.onnx", datatype, ["n", 3])
    server = start_server("--model", path, "--max-delay-ms", "50")
    random = np.random.default_rng(5)
    bits = [random.integers(0, 256, 3 * NUMPY_DTYPE[datatype].itemsize, np.uint8) for _ in range(4)]
    rows = [
        {"x": (bytes_ % 2 if datatype == "BOOL" else bytes_).view(NUMPY_DTYPE[datatype]).reshape(1, 3)}
        for bytes_ in bits
    ]
    for inputs, reply in zip(rows, ask_together(server, "same", rows), strict=True):
        assert read_outputs(reply)["y"].tobytes() == inputs["x"].tobytes()


def test_rows_that_see_each_other_are_never_put_together(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.across_rows(tmp_path / "across.onnx")
    server = start_server("--model", path, "--max-delay-ms", "50")
    rows = [{"x": np.full((2, 4), 1.0 + number, np.float32)} for number in range(CLIENTS)]
    for reply in ask_together(server, "across", rows):
        assert np.array_equal(read_outputs(reply)["y"], np.full((2, 4), 0.5, np.float32))
    assert largest_batch(server, "across") == 1


def test_a_request_at_fault_does_not_take_the_others_down(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.lookup(tmp_path / "lookup.onnx"), "--max-delay-ms", "200")
    indices = [3, 4, 99, 5]
    replies = ask_together(server, "lookup", [{"x": np.array([index], np.int64)} for index in indices])
    assert [reply.status for reply in replies] == [200, 200, 400, 200]
    for index, reply in zip(indices, replies, strict=True):
        if index != 99:
            assert read_outputs(reply)["y"].tolist() == [[2.0 * index, 2.0 * index + 1]]


def test_requests_of_several_rows_and_of_one_share_a_computation(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.deep(tmp_path / "deep.onnx")
    server = start_server("--model", path, "--max-delay-ms", "100", "--max-batch-size", "4")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(7)
    inputs = [{"x": random.standard_normal((size, 64)).astype(np.float32)} for size in (1, 3, 2, 40, 0, 4)]
    for arrays, reply in zip(inputs, ask_together(server, "deep", inputs), strict=True):
        (want,) = session.run(None, arrays)
        np.testing.assert_array_max_ulp(read_outputs(reply)["y"], want, maxulp=1)


def counted(server: ServerProcess, model: str, result: str) -> float:
    return server.metric(f'edgemodel_server_inference_requests_total{{model="{model}",result="{result}"}}')


def wait_until(server: ServerProcess, series: str, value: float) -> None:
    while server.metric(series) != value:
        assert server.process.poll() is None
        time.sleep(0.01)


def test_a_deadline_that_passes_is_answered_at_once_and_the_call_never_computed(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.slow(tmp_path / "slow.onnx"), "--threads", "1")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.infer, "slow", SLOW)
        wait_until(server, 'edgemodel_server_queued_requests{model="slow"}', 1)
        late = server.infer("slow", {**SLOW, "parameters": {"timeout": 1000}})
        assert late.status == 504
        assert not first.done()
        assert first.result().status == 200
    wait_until(server, 'edgemodel_server_queued_requests{model="slow"}', 0)
    assert counted(server, "slow", "deadline") == 1
    assert server.metric('edgemodel_server_batch_size_count{model="slow"}') == 1


def test_a_timeout_must_be_a_number_of_microseconds(dense_server: ServerProcess) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    for timeout in (-1, "soon", 1.5, True):
        reply = dense_server.infer("dense", {"inputs": [entry], "parameters": {"timeout": timeout}})
        assert reply.status == 400
        assert "microseconds" in reply.json["error"]


def test_a_call_whose_client_went_away_is_never_computed(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.slow(tmp_path / "slow.onnx"), "--threads", "1")
    queued = 'edgemodel_server_queued_requests{model="slow"}'
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.infer, "slow", SLOW)
        wait_until(server, queued, 1)
        body = json.dumps(SLOW).encode()
        with server.wire() as wire:
            head = f"POST /v2/models/slow/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
            wire.send(head.encode() + body)
            wait_until(server, queued, 2)
            # A reset says that nobody reads the answer; the mere end of sending does not.
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert first.result().status == 200
    wait_until(server, queued, 0)
    assert counted(server, "slow", "cancelled") == 1
    assert server.metric('edgemodel_server_batch_size_count{model="slow"}') == 1


def test_an_idle_model_gives_its_memory_back_and_the_next_requests_wait_for_it(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    folder = models.write_manifest(models.deep(tmp_path / "deep" / "deep.onnx").parent, "deep")
    server = start_server("--model", folder, "--idle-unload", "0.2")
    loaded = 'edgemodel_server_model_loaded{model="deep"}'
    rows = make_rows(CLIENTS, 64)
    before = [read_outputs(reply)["y"] for reply in ask_together(server, "deep", rows)]
    for _ in range(2):
        wait_until(server, loaded, 0)
        assert server.ask("GET", "/v2/health/ready").status == 200
        assert server.ask("GET", "/v2/models/deep").json["inputs"][0]["name"] == "x"
        after = [read_outputs(reply)["y"] for reply in ask_together(server, "deep", rows)]
        for left, right in zip(before, after, strict=True):
            np.testing.assert_array_max_ulp(left, right, maxulp=1)
        assert server.metric(loaded) == 1


def make_heavy(models: ModelMaker, path: Path) -> Path:
    """x: FP32 [n, 4096] -> y: FP32 [n, 2048], with weights of 32 MiB."""
    value = helper.make_tensor_value_info
    return models.save(
        path,
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [value("x", TensorProto.FLOAT, ["n", 4096])],
        [value("y", TensorProto.FLOAT, ["n", 2048])],
        [numpy_helper.from_array(np.ones((4096, 2048), np.float32), "w")],
    )


def resident_bytes(server: ServerProcess) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def test_the_memory_of_an_unloaded_model_goes_back_to_the_system(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = make_heavy(models, tmp_path / "heavy.onnx")
    server = start_server("--model", path, "--idle-unload", "3")
    loaded = resident_bytes(server)
    wait_until(server, 'edgemodel_server_model_loaded{model="heavy"}', 0)
    assert server.metric('edgemodel_server_model_memory_bytes{model="heavy"}') == 0
    assert loaded - resident_bytes(server) > path.stat().st_size // 2


def test_a_file_that_changed_while_the_model_was_unloaded_is_not_served(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    folder = models.write_manifest(models.deep(tmp_path / "deep" / "deep.onnx").parent, "deep")
    server = start_server("--model", folder, "--idle-unload", "0.2")
    wait_until(server, 'edgemodel_server_model_loaded{model="deep"}', 0)
    (folder / "deep.onnx").write_bytes(b"something else")
    body, headers = binary_request(make_rows(1, 64)[0])
    reply = server.ask("POST", "/v2/models/deep/infer", body, **headers)
    assert reply.status == 503
    assert "the manifest says" in reply.json["error"]
    assert server.ask("GET", "/v2/health/ready").json["reasons"][0]["reason"] == "FileDigestMismatch"


def test_a_processor_budget_slows_the_computations_down(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.slow(tmp_path / "slow.onnx", rounds=300)
    server = start_server("--model", path, "--max-cpu-percent", "5")
    for _ in range(10):
        assert server.infer("slow", SLOW).status == 200
    assert server.metric('edgemodel_server_paced_seconds_total{model="slow"}') > 0
