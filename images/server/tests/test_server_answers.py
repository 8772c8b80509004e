"""Inference over real sockets: answers are the runtime's own, bit by bit, for every datatype and encoding."""

import json
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import onnxruntime as ort
import pytest
from serving import ModelMaker, ServerProcess, StartServer

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor
from edgemodel_server.tensors import decode_binary, encode_binary

VALUES: dict[str, list[Any]] = {
    "BOOL": [True, False, False, True],
    "UINT8": [0, 1, 254, 255],
    "UINT16": [0, 1, 2, 65535],
    "UINT32": [0, 1, 2, 2**32 - 1],
    "UINT64": [0, 1, 2**63, 2**64 - 1],
    "INT8": [-128, -1, 0, 127],
    "INT16": [-(2**15), -1, 0, 2**15 - 1],
    "INT32": [-(2**31), -1, 0, 2**31 - 1],
    "INT64": [-(2**63), -1, 0, 2**63 - 1],
    "FP16": [0.1, -65504.0, 6e-8, 1.0],
    "FP32": [0.1, -3.4e38, 1e-45, 1.0],
    "FP64": [0.1, -1.7e308, 5e-324, 1.0],
    "BYTES": ["", "a", "ä\n€", "\0"],
}


def json_input(name: str, datatype: str, values: list[Any], shape: list[int]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": values}


def as_array(datatype: str, values: list[Any]) -> Tensor:
    if datatype == "BYTES":
        return np.array([text.encode() for text in values], dtype=np.object_).reshape(2, 2)
    return np.array(values, dtype=NUMPY_DTYPE[datatype]).reshape(2, 2)


@pytest.fixture(scope="module")
def server(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, module_servers: StartServer
) -> ServerProcess:
    root = tmp_path_factory.mktemp("models")
    models.write_manifest(models.identities(root / "all" / "model.onnx").parent, "all", "3")
    models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense")
    models.write_manifest(models.log(root / "log" / "model.onnx").parent, "log")
    models.write_manifest(models.identity(root / "scalar" / "model.onnx", "FP32", []).parent, "scalar")
    server = module_servers("--model-root", root)
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert server.process.poll() is None
    return server


def test_every_datatype_round_trips_as_json(server: ServerProcess) -> None:
    inputs = [json_input(f"in_{name}", name, values, [2, 2]) for name, values in VALUES.items()]
    reply = server.infer("all", {"id": "seven", "inputs": inputs})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/json"
    answer = reply.json
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("all", "3", "seven")
    for output, (name, values) in zip(answer["outputs"], VALUES.items(), strict=True):
        assert (output["name"], output["datatype"], output["shape"]) == (f"out_{name}", name, [2, 2])
        want = values if name == "BYTES" else as_array(name, values).reshape(-1).tolist()
        got = output["data"]
        if name in ("FP16", "FP32"):
            got = np.array(got, dtype=NUMPY_DTYPE[name]).tolist()
        assert got == want


def test_every_datatype_round_trips_as_binary_and_mixed_with_json(server: ServerProcess) -> None:
    names = list(VALUES)
    inputs, tail = [], b""
    for index, (name, values) in enumerate(VALUES.items()):
        if index % 3 == 0:
            inputs.append(json_input(f"in_{name}", name, values, [2, 2]))
            continue
        raw = bytes(encode_binary(name, as_array(name, values)))
        tail += raw
        entry = {"name": f"in_{name}", "datatype": name, "shape": [2, 2]}
        inputs.append({**entry, "parameters": {"binary_data_size": len(raw)}})
    wanted = [
        {"name": f"out_{name}", "parameters": {"binary_data": name != "INT8"}} for name in reversed(names)
    ]
    head = json.dumps({"inputs": inputs, "outputs": wanted}).encode()
    reply = server.ask(
        "POST", "/v2/models/all/versions/3/infer", head + tail, Inference_Header_Content_Length=str(len(head))
    )
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"] == "application/octet-stream"
    length = int(reply.headers["inference-header-content-length"])
    answer, rest = json.loads(reply.body[:length]), memoryview(reply.body)[length:]
    assert [output["name"] for output in answer["outputs"]] == [f"out_{name}" for name in reversed(names)]
    for output, name in zip(answer["outputs"], reversed(names), strict=True):
        want = as_array(name, VALUES[name])
        if name == "INT8":
            assert output["data"] == want.reshape(-1).tolist()
            continue
        size = output["parameters"]["binary_data_size"]
        got = decode_binary(name, name, tuple(output["shape"]), rest[:size])
        assert got.tolist() == want.tolist()
        rest = rest[size:]
    assert len(rest) == 0


def test_answers_equal_the_runtime_bit_by_bit(
    server: ServerProcess, models: ModelMaker, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(models.dense(tmp_path / "m.onnx")), options)
    x = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    (want,) = session.run(["y"], {"x": x})
    head = json.dumps({
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [50, 4],
                    "parameters": {"binary_data_size": x.nbytes}}],
        "parameters": {"binary_data_output": True},
    }).encode()  # fmt: skip
    reply = server.ask(
        "POST", "/v2/models/dense/infer", head + x.tobytes(), Inference_Header_Content_Length=str(len(head))
    )
    length = int(reply.headers["inference-header-content-length"])
    assert reply.body[length:] == want.tobytes()
    reply = server.infer("dense", {"inputs": [json_input("x", "FP32", x.tolist(), [50, 4])]})
    assert np.array(reply.json["outputs"][0]["data"], dtype=np.float32).tobytes() == want.tobytes()


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_free_dimensions_take_any_size(server: ServerProcess, rows: int) -> None:
    reply = server.infer("dense", {"inputs": [json_input("x", "FP32", [0.5] * 4 * rows, [rows, 4])]})
    assert reply.status == 200, reply.body
    assert reply.json["outputs"][0]["shape"] == [rows, 3]
    assert len(reply.json["outputs"][0]["data"]) == 3 * rows


def test_scalars_have_an_empty_shape(server: ServerProcess) -> None:
    reply = server.infer("scalar", {"inputs": [json_input("x", "FP32", [2.5], [])]})
    assert reply.json["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [], "data": [2.5]}]


def test_nan_and_infinity_travel_as_binary_only(server: ServerProcess) -> None:
    inputs = [json_input("x", "FP32", [0, -1, 1], [3])]
    reply = server.infer("log", {"inputs": inputs})
    assert reply.status == 400
    assert "request it with binary_data" in reply.json["error"]
    wanted = [{"name": "y", "parameters": {"binary_data": True}}]
    reply = server.infer("log", {"inputs": inputs, "outputs": wanted})
    length = int(reply.headers["inference-header-content-length"])
    got = np.frombuffer(reply.body[length:], np.float32)
    assert got[0] == -np.inf
    assert np.isnan(got[1])
    assert got[2] == 0


def test_strings_that_are_no_text_are_refused(server: ServerProcess) -> None:
    inputs = [
        json_input(f"in_{name}", name, values, [2, 2]) for name, values in VALUES.items() if name != "BYTES"
    ]
    entry = {"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 2], "parameters": {"binary_data_size": 9}}
    head = json.dumps({"inputs": [*inputs, entry]}).encode()
    body = head + b"\1\0\0\0\xff\0\0\0\0"
    reply = server.ask("POST", "/v2/models/all/infer", body, Inference_Header_Content_Length=str(len(head)))
    assert reply.status == 400
    assert "UTF-8" in reply.json["error"]


GOOD = json_input("x", "FP32", [1, 2, 3, 4], [1, 4])


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"[" * 100000, "not valid JSON"),
        (b"\xff", "not valid JSON"),
        ([], "must be a JSON object"),
        ({}, "inputs must be a list"),
        ({"inputs": {}}, "inputs must be a list"),
        ({"inputs": []}, 'missing input "x"'),
        ({"inputs": [7]}, "each tensor must be a JSON object"),
        ({"inputs": [{**GOOD, "name": "z"}]}, 'no tensor "z" here, only "x"'),
        ({"inputs": [{**GOOD, "name": ["x"]}]}, 'no tensor ["x"] here'),
        ({"inputs": [GOOD, GOOD]}, "given twice"),
        ({"inputs": [{**GOOD, "datatype": "FP64"}]}, "datatype is FP64, the model takes FP32"),
        ({"inputs": [{**GOOD, "datatype": None}]}, "datatype is null, the model takes FP32"),
        ({"inputs": [{**GOOD, "shape": [4]}]}, "shape is [4], the model takes [-1, 4]"),
        ({"inputs": [{**GOOD, "shape": [1, 5]}]}, "shape is [1, 5], the model takes [-1, 4]"),
        ({"inputs": [{**GOOD, "shape": [2, 4]}]}, "holds 8 elements, data has 4"),
        ({"inputs": [{**GOOD, "shape": [2**62, 4]}]}, "elements, data has 4"),
        ({"inputs": [{**GOOD, "parameters": []}]}, "parameters must be a JSON object"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": 16}}]}, "either data or"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4]}]}, "either data or"),
        ({"inputs": [{**GOOD, "parameters": {"binary_data_size": -1}}]}, "non-negative integer"),
        ({"inputs": [{**GOOD, "parameters": {"shared_memory_region": "a"}}]}, "shared_memory_region"),
        ({"inputs": [GOOD], "id": 7}, "id must be a string"),
        ({"inputs": [GOOD], "outputs": {}}, "outputs must be a list"),
        ({"inputs": [GOOD], "outputs": [{"name": "z"}]}, 'no output "z", only "y"'),
        ({"inputs": [GOOD], "outputs": ["y"]}, "no output"),
        ({"inputs": [GOOD], "outputs": [{"name": "y"}, {"name": "y"}]}, "requested twice"),
        (
            {"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
            "classification",
        ),
        ({"inputs": [GOOD], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({"inputs": [GOOD], "parameters": {"binary_data_output": "yes"}}, "true or false"),
    ],
)
def test_a_wrong_request_gets_400_and_the_reason(
    server: ServerProcess, document: object, sentence: str
) -> None:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    reply = server.ask("POST", "/v2/models/dense/infer", body)
    assert reply.status == 400
    assert sentence in reply.json["error"]


@pytest.mark.parametrize(
    ("length", "tail", "sentence"),
    [
        ("1000000", b"", "but the body has"),
        ("-1", b"", "must be a number of bytes"),
        ("x", b"", "must be a number of bytes"),
        ("9" * 5000, b"", "must be a number of bytes"),
        (None, bytes(15), "binary_data_size is 16, but 15 bytes are left"),
        (None, bytes(17), "1 bytes of binary data belong to no input"),
    ],
)
def test_a_wrong_binary_request_gets_400_and_the_reason(
    server: ServerProcess, length: str | None, tail: bytes, sentence: str
) -> None:
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    head = json.dumps({"inputs": [entry]}).encode()
    reply = server.ask(
        "POST",
        "/v2/models/dense/infer",
        head + tail,
        Inference_Header_Content_Length=length or str(len(head)),
    )
    assert reply.status == 400
    assert sentence in reply.json["error"]


def test_metadata_names_the_tensors(server: ServerProcess) -> None:
    want = {
        "name": "dense",
        "versions": ["7"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert server.ask("GET", "/v2/models/dense").json == want
    assert server.ask("GET", "/v2/models/dense/versions/7").json == want


async def test_a_usual_client_is_content(server: ServerProcess) -> None:
    url = f"http://127.0.0.1:{server.port}/v2/models/dense/infer"
    async with aiohttp.ClientSession() as session:
        for _ in range(3):
            async with session.post(url, json={"inputs": [GOOD]}) as reply:
                assert reply.status == 200
                assert (await reply.json())["outputs"][0]["shape"] == [1, 3]
