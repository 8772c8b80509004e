"""The Open Inference Protocol v2 over REST, as other servers' clients speak it: metadata, index, infer."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import ModelMaker, Reply, ServerProcess, StartServer

from edgemodel_server import __version__

X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}


@pytest.fixture(scope="module")
def server(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, module_servers: StartServer
) -> ServerProcess:
    """Models that work, and ``broken``, which fails its start."""
    root = tmp_path_factory.mktemp("protocol")
    models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense", "7")
    models.write_manifest(models.identity(root / "scalar" / "model.onnx", "INT64", []).parent, "scalar")
    models.write_manifest(models.identity(root / "text" / "model.onnx", "BYTES", ["n"]).parent, "text")
    models.write_manifest(models.identity(root / "cube" / "model.onnx", "FP32", ["a", "b", 2]).parent, "cube")
    models.write_manifest(models.identities(root / "all" / "model.onnx").parent, "all")
    models.write_manifest(models.dense(root / "broken" / "model.onnx").parent, "broken")
    (root / "broken" / "model.onnx").write_bytes(b"broken")
    server = module_servers("--model-root", root, until=())
    while any(state["reason"].startswith("Starting") for state in index(server)):
        assert server.process.poll() is None
    return server


def index(server: ServerProcess, body: bytes = b"") -> list[dict[str, str]]:
    reply = server.ask("POST", "/v2/repository/index", body)
    assert reply.status == 200, reply.body
    answer: list[dict[str, str]] = reply.json
    return answer


def split(reply: Reply) -> tuple[dict[str, Any], bytes]:
    """Return the JSON and the binary part of an answer."""
    assert reply.status == 200, reply.body
    length = int(reply.headers["inference-header-content-length"])
    return json.loads(reply.body[:length]), reply.body[length:]


# -- the server and its models -------------------------------------------------------------------------------


def test_the_server_claims_what_it_does(server: ServerProcess) -> None:
    want = {"name": "edgemodel-server", "version": __version__, "extensions": ["binary_tensor_data"]}
    assert server.ask("GET", "/v2").json == want


def test_the_names_of_all_models_are_listed(server: ServerProcess) -> None:
    names = {"models": ["all", "broken", "cube", "dense", "scalar", "text"]}
    assert server.ask("GET", "/v2/models").json == names


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"ready": false}', b'{"ready":false,"else":1}'])
def test_the_index_has_every_model_and_why_it_is_not_ready(server: ServerProcess, body: bytes) -> None:
    states = {one["name"]: one for one in index(server, body)}
    assert states["dense"] == {"name": "dense", "version": "7", "state": "READY", "reason": ""}
    assert states["broken"]["state"] == "UNAVAILABLE"
    assert states["broken"]["reason"].startswith("FileDigestMismatch: ")
    assert len(states) == 6


def test_the_index_of_ready_models_has_no_others(server: ServerProcess) -> None:
    assert {one["name"] for one in index(server, b'{"ready": true}')} == {
        "all", "cube", "dense", "scalar", "text",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'{"ready": 1}', "ready must be true or false"),
        (b'{"ready": null}', "ready must be true or false"),
    ],
)
def test_an_index_request_that_is_none(server: ServerProcess, body: bytes, sentence: str) -> None:
    reply = server.ask("POST", "/v2/repository/index", body)
    assert reply.status == 400
    assert sentence in reply.json["error"]


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_models_are_neither_loaded_nor_unloaded_on_request(server: ServerProcess, verb: str) -> None:
    reply = server.ask("POST", f"/v2/repository/models/dense/{verb}", b"{}")
    assert (reply.status, reply.headers["allow"]) == (405, "")
    assert "command line" in reply.json["error"]
    assert server.ask("POST", f"/v2/repository/models/other/{verb}").json == {
        "error": 'there is no model "other"'
    }


def test_a_model_that_is_not_ready_says_why_wherever_it_is_asked(server: ServerProcess) -> None:
    reply = server.ask("GET", "/v2/models/broken/ready")
    assert reply.status == 503
    assert [told["reason"] for told in reply.json["reasons"]] == ["FileDigestMismatch"]
    assert server.metric('edgemodel_server_model_not_ready{model="broken",reason="FileDigestMismatch"}') == 1
    assert server.metric('edgemodel_server_model_not_ready{model="dense",reason="FileDigestMismatch"}') == 0


# -- inference -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_id", ["seven", "", "ä\n\"€'", "a" * 5000])
def test_ids_are_echoed_as_they_are(server: ServerProcess, request_id: str) -> None:
    reply = server.infer("dense", {"id": request_id, "inputs": [X]})
    assert reply.json["id"] == request_id


@pytest.mark.parametrize("extra", [{}, {"id": None}])
def test_without_an_id_there_is_none_in_the_answer(server: ServerProcess, extra: dict[str, Any]) -> None:
    assert "id" not in server.infer("dense", {"inputs": [X], **extra}).json


def test_model_version_paths_are_the_model(server: ServerProcess) -> None:
    body = json.dumps({"inputs": [X]}).encode()
    plain = server.ask("POST", "/v2/models/dense/infer", body)
    versioned = server.ask("POST", "/v2/models/dense/versions/7/infer", body)
    assert plain.body == versioned.body
    assert plain.json["model_version"] == "7"
    reply = server.ask("POST", "/v2/models/dense/versions/8/infer", body)
    assert (reply.status, reply.json) == (404, {"error": 'model "dense" has no version "8", only "7"'})


def test_members_and_parameters_that_nobody_knows_are_ignored(server: ServerProcess) -> None:
    document = {
        "model_name": "dense",
        "inputs": [{**X, "parameters": {"content_type": "np", "layout": [1]}, "else": 1}],
        "outputs": [{"name": "y", "parameters": {"content_type": "np"}, "datatype": "FP32"}],
        "parameters": {"sequence_id": 0, "priority": 3, "else": None},
    }
    assert server.infer("dense", document).status == 200


@pytest.mark.parametrize("parameters", [None, {}])
def test_empty_parameters_are_none(server: ServerProcess, parameters: object) -> None:
    document = {"inputs": [{**X, "parameters": parameters}], "parameters": parameters, "outputs": None}
    assert server.infer("dense", document).status == 200


def test_outputs_come_as_they_are_requested(server: ServerProcess) -> None:
    inputs = [
        {"name": f"in_{name}", "datatype": name, "shape": [1, 2], "data": data}
        for name, data in [(kind, [0, 1]) for kind in numeric_names()]
    ]
    inputs += [
        {"name": "in_BOOL", "datatype": "BOOL", "shape": [1, 2], "data": [True, False]},
        {"name": "in_BYTES", "datatype": "BYTES", "shape": [1, 2], "data": ["a", "b"]},
    ]
    wanted = ["out_INT8", "out_BYTES", "out_FP16"]
    reply = server.infer("all", {"inputs": inputs, "outputs": [{"name": name} for name in wanted]})
    assert [output["name"] for output in reply.json["outputs"]] == wanted
    assert [output["data"] for output in reply.json["outputs"]] == [[0, 1], ["a", "b"], [0, 1]]


def numeric_names() -> list[str]:
    return [f"{kind}{bits}" for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)] + [
        "FP16",
        "FP32",
        "FP64",
    ]


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("shape", [[0, 4], [0, 0, 2], [0]])
def test_tensors_without_elements(server: ServerProcess, encoding: str, shape: list[int]) -> None:
    model, name, datatype = {1: ("text", "x", "BYTES"), 2: ("dense", "x", "FP32"), 3: ("cube", "x", "FP32")}[
        len(shape)
    ]
    entry: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
    if encoding == "json":
        reply = server.infer(model, {"inputs": [{**entry, "data": []}]})
        assert reply.status == 200, reply.body
        (output,) = reply.json["outputs"]
        assert output["data"] == []
    else:
        entry["parameters"] = {"binary_data_size": 0}
        head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
        reply = server.ask(
            "POST", f"/v2/models/{model}/infer", head, Inference_Header_Content_Length=str(len(head))
        )
        document, rest = split(reply)
        (output,) = document["outputs"]
        assert output["parameters"] == {"binary_data_size": 0}
        assert rest == b""
    assert output["shape"][0] == 0


def test_a_scalar_as_json_and_as_binary(server: ServerProcess) -> None:
    entry: dict[str, Any] = {"name": "x", "datatype": "INT64", "shape": []}
    reply = server.infer("scalar", {"inputs": [{**entry, "data": [-5]}]})
    assert reply.json["outputs"] == [{"name": "y", "datatype": "INT64", "shape": [], "data": [-5]}]
    entry["parameters"] = {"binary_data_size": 8}
    head = json.dumps({"inputs": [entry], "parameters": {"binary_data_output": True}}).encode()
    raw = np.int64(-5).tobytes()
    reply = server.ask(
        "POST", "/v2/models/scalar/infer", head + raw, Inference_Header_Content_Length=str(len(head))
    )
    document, rest = split(reply)
    assert document["outputs"][0]["shape"] == []
    assert rest == raw


@pytest.mark.parametrize(
    ("default", "asked", "binary"),
    [
        (None, None, False),
        (True, None, True),
        (False, None, False),
        (True, False, False),
        (False, True, True),
    ],
)
def test_an_output_s_own_wish_comes_before_the_request_s(
    server: ServerProcess, default: bool | None, asked: bool | None, binary: bool
) -> None:
    document: dict[str, Any] = {"inputs": [X], "outputs": [{"name": "y"}]}
    if default is not None:
        document["parameters"] = {"binary_data_output": default}
    if asked is not None:
        document["outputs"][0]["parameters"] = {"binary_data": asked}
    reply = server.infer("dense", document)
    assert reply.status == 200
    assert ("inference-header-content-length" in reply.headers) is binary
    assert reply.headers["content-type"] == ("application/octet-stream" if binary else "application/json")


# -- the raw body --------------------------------------------------------------------------------------------


def ask_raw(server: ServerProcess, model: str, body: bytes) -> Reply:
    return server.ask("POST", f"/v2/models/{model}/infer", body, Inference_Header_Content_Length="0")


def test_a_raw_body_is_the_only_input_and_the_answer_is_binary(server: ServerProcess) -> None:
    x = np.arange(4, dtype="<f4")
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": x.tolist()}
    want = server.infer("dense", {"inputs": [entry]}).json["outputs"][0]
    document, rest = split(ask_raw(server, "dense", x.tobytes()))
    assert document == {
        "model_name": "dense",
        "model_version": "7",
        "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [1, 3], "parameters": {"binary_data_size": 12}}
        ],
    }
    assert np.frombuffer(rest, "<f4").tolist() == np.array(want["data"], "<f4").tolist()


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_the_size_of_a_raw_body_gives_the_one_free_dimension(server: ServerProcess, rows: int) -> None:
    document, rest = split(ask_raw(server, "dense", bytes(16 * rows)))
    assert document["outputs"][0]["shape"] == [rows, 3]
    assert len(rest) == 12 * rows


def test_a_raw_body_of_text_is_its_length_prefixed_elements(server: ServerProcess) -> None:
    body = b"\3\0\0\0abc\0\0\0\0"
    document, rest = split(ask_raw(server, "text", body))
    assert document["outputs"][0]["shape"] == [2]
    assert rest == body


def test_a_raw_body_of_a_scalar(server: ServerProcess) -> None:
    document, rest = split(ask_raw(server, "scalar", b"\5" + bytes(7)))
    assert document["outputs"][0]["shape"] == []
    assert rest == b"\5" + bytes(7)


@pytest.mark.parametrize(
    ("model", "body", "sentence"),
    [
        ("dense", bytes(15), "15 bytes are no whole number of [-1, 4] elements of FP32"),
        ("scalar", bytes(7), "takes 8 bytes, not 7"),
        ("all", bytes(8), "the model has 13 inputs"),
        ("cube", bytes(8), "more than one free dimension"),
        ("text", b"\3\0\0\0ab", "length-prefixed"),
    ],
)
def test_a_raw_body_that_fits_no_input(server: ServerProcess, model: str, body: bytes, sentence: str) -> None:
    reply = ask_raw(server, model, body)
    assert reply.status == 400
    assert sentence in reply.json["error"]


def test_a_bare_path_is_never_a_model(server: ServerProcess, tmp_path: Path) -> None:
    reply = server.ask("GET", f"/v2/models/{tmp_path.name}%2f..%2fdense")
    assert reply.status == 404
