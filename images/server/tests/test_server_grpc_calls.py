"""Inference over gRPC, asked for by the library of gRPC: answers are the runtime's own, bit by bit."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime as ort
import pytest
from grpc_client import GrpcClient, fails_with, outputs_of, raw_request
from serving import ModelMaker, StartServer

from edgemodel_server.datatypes import NUMPY_DTYPE, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.infer_request import parse_request
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.inference import Signature
from edgemodel_server.tensors import encode_binary, make_bytes_array

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
    "FP16": [0.1, -65504.0, float("nan"), float("inf")],
    "FP32": [0.1, float("-inf"), 1e-45, float("nan")],
    "FP64": [0.1, -1.7e308, 5e-324, float("nan")],
    "BYTES": [b"", b"a", "ä\n€".encode(), b"\0"],
}
CONTENTS = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
FP32 = np.float32


def raw_of(datatype: str) -> bytes:
    if datatype == "BYTES":
        return bytes(encode_binary("BYTES", make_bytes_array(VALUES["BYTES"])))
    return np.array(VALUES[datatype], NUMPY_DTYPE[datatype]).tobytes()


# -- answers -------------------------------------------------------------------------------------------------


def test_every_datatype_raw(grpc_client: GrpcClient) -> None:
    request = pb.ModelInferRequest(model_name="all", model_version="3", id="seven")
    for name in VALUES:
        request.inputs.add(name=f"in_{name}", datatype=name, shape=[2, 2])
        request.raw_input_contents.append(raw_of(name))
    answer = grpc_client.infer(request)
    assert (answer.model_name, answer.model_version, answer.id) == ("all", "3", "seven")
    assert [entry.name for entry in answer.outputs] == [f"out_{name}" for name in VALUES]
    for name, entry, raw in zip(VALUES, answer.outputs, answer.raw_output_contents, strict=True):
        assert (entry.datatype, list(entry.shape)) == (name, [2, 2])
        assert raw == raw_of(name)


def test_fp16_has_no_typed_form(grpc_client: GrpcClient) -> None:
    request = pb.ModelInferRequest(model_name="all")
    for name, values in VALUES.items():
        entry = request.inputs.add(name=f"in_{name}", datatype=name, shape=[2, 2])
        if name in CONTENTS:
            getattr(entry.contents, CONTENTS[name]).extend(values)
    words = fails_with(grpc.StatusCode.INVALID_ARGUMENT, lambda: grpc_client.infer(request))
    assert words == 'tensor "in_FP16": FP16 has no typed contents: use raw_input_contents'


def identity_of(datatype: str) -> Signature:
    spec = TensorSpec("x", datatype, (-1, 2))
    return Signature({"x": spec}, {"y": spec})


@pytest.mark.parametrize("datatype", CONTENTS)
def test_a_datatype_typed(datatype: str) -> None:
    request = pb.ModelInferRequest()
    entry = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
    getattr(entry.contents, CONTENTS[datatype]).extend(VALUES[datatype])
    parsed = parse_request(request, identity_of(datatype))
    assert bytes(encode_binary(datatype, parsed.inputs["x"])) == raw_of(datatype)
    assert parsed.inputs["x"].shape == (2, 2)


def test_equal_messages_give_the_runtimes_answers_bit_by_bit(
    grpc_client: GrpcClient, grpc_models: Path
) -> None:
    """The second and later ones take the short way."""
    session = ort.InferenceSession(grpc_models / "dense" / "model.onnx")
    random = np.random.default_rng(1)
    for _ in range(5):
        x = random.standard_normal((3, 4)).astype(FP32)
        answer = grpc_client.infer(raw_request("dense", x=x))
        (want,) = session.run(None, {"x": x})
        np.testing.assert_array_equal(outputs_of(answer)["y"], want)
        assert answer.model_version == "7"


def test_messages_of_one_length_are_told_apart(grpc_client: GrpcClient) -> None:
    x = np.ones((4, 1), FP32)
    for _ in range(3):
        answer = grpc_client.infer(raw_request("dense", x=x.reshape(1, 4)))
        assert list(answer.outputs[0].shape) == [1, 3]
        words = fails_with(
            grpc.StatusCode.INVALID_ARGUMENT, lambda: grpc_client.infer(raw_request("dense", x=x))
        )
        assert words == 'tensor "x": shape is [4, 1], the model takes [-1, 4]'


def test_many_at_once_get_their_own_answers(grpc_client: GrpcClient, grpc_models: Path) -> None:
    """Computed together with others, an answer may differ in the last place, and no more."""
    session = ort.InferenceSession(grpc_models / "deep" / "model.onnx")
    xs = [np.random.default_rng(seed).standard_normal((1, 64)).astype(FP32) for seed in range(200)]
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda x: grpc_client.infer(raw_request("deep", x=x)), xs))
    for x, answer in zip(xs, answers, strict=True):
        np.testing.assert_allclose(
            outputs_of(answer)["y"], session.run(None, {"x": x})[0], rtol=1e-5, atol=1e-6
        )


def test_large_tensors_in_both_directions(grpc_client: GrpcClient) -> None:
    """20 MB, far more than any window."""
    x = np.random.default_rng(2).standard_normal(5_000_000).astype(FP32)
    np.testing.assert_array_equal(outputs_of(grpc_client.infer(raw_request("echo", x=x)))["y"], x)


def test_empty_tensors(grpc_client: GrpcClient) -> None:
    answer = grpc_client.infer(raw_request("dense", x=np.zeros((0, 4), FP32)))
    assert (list(answer.outputs[0].shape), answer.raw_output_contents[0]) == ([0, 3], b"")


def test_wanted_outputs_in_the_wanted_order(grpc_client: GrpcClient) -> None:
    request = pb.ModelInferRequest(model_name="all")
    for name in VALUES:
        request.inputs.add(name=f"in_{name}", datatype=name, shape=[2, 2])
        request.raw_input_contents.append(raw_of(name))
    for name in ("INT8", "BOOL"):
        request.outputs.add(name=f"out_{name}")
    answer = grpc_client.infer(request)
    assert [entry.name for entry in answer.outputs] == ["out_INT8", "out_BOOL"]
    assert list(answer.raw_output_contents) == [raw_of("INT8"), raw_of("BOOL")]


def test_a_stream_of_inferences_is_answered_in_order(grpc_client: GrpcClient) -> None:
    xs = [np.full((1, 4), number, FP32) for number in range(50)]
    requests = [raw_request("dense", x=x) for x in xs]
    requests[7].inputs[0].name = "z"
    answers = list(grpc_client.stream("ModelStreamInfer", requests, pb.ModelStreamInferResponse))
    for number, (x, answer) in enumerate(zip(xs, answers, strict=True)):
        if number == 7:
            assert answer.error_message == 'the model has no tensor "z" here, only "x"'
        else:
            assert not answer.error_message
            alone = grpc_client.infer(raw_request("dense", x=x))
            np.testing.assert_array_equal(outputs_of(answer.infer_response)["y"], outputs_of(alone)["y"])


# -- refusals ------------------------------------------------------------------------------------------------


def dense(**changes: Any) -> pb.ModelInferRequest:
    request = raw_request("dense", x=np.zeros((1, 4), FP32))
    request.MergeFrom(pb.ModelInferRequest(**changes))
    return request


def typed(
    datatype: str, field: str, values: list[Any], shape: tuple[int, ...] = (1, 4)
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="dense")
    entry = request.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(entry.contents, field).extend(values)
    return request


X: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 4]}
REFUSED = {
    "no model": (dense(model_name="rose"), "NOT_FOUND", 'there is no model "rose"'),
    "no version": (dense(model_version="8"), "NOT_FOUND", 'model "dense" has no version "8", only "7"'),
    "not ready": (dense(model_name="broken"), "UNAVAILABLE", 'model "broken" is not ready: '),
    "too few raw contents": (
        dense(inputs=[{"name": "y"}]), "INVALID_ARGUMENT",
        "raw_input_contents has 1 elements, it must have one for each of the inputs"),
    "twice": (
        dense(inputs=[X], raw_input_contents=[bytes(16)]),
        "INVALID_ARGUMENT", 'input "x" is given twice'),
    "missing": (pb.ModelInferRequest(model_name="dense"), "INVALID_ARGUMENT", 'missing input "x"'),
    "both": (
        pb.ModelInferRequest(
            model_name="dense", raw_input_contents=[bytes(16)],
            inputs=[X | {"contents": {"fp32_contents": [1] * 4}}]),
        "INVALID_ARGUMENT", 'input "x" needs either contents or raw_input_contents, not both'),
    "datatype": (
        typed("FP64", "fp64_contents", [0.0] * 4), "INVALID_ARGUMENT",
        'tensor "x": datatype is FP64, the model takes FP32'),
    "wrong list": (
        typed("FP32", "fp64_contents", [0.0] * 4), "INVALID_ARGUMENT",
        'tensor "x": FP32 belongs into fp32_contents, not fp64_contents'),
    "count": (
        typed("FP32", "fp32_contents", [0.0] * 3), "INVALID_ARGUMENT",
        'tensor "x": shape [1, 4] holds 4 elements, fp32_contents has 3'),
    "negative shape": (
        typed("FP32", "fp32_contents", [], (-1, 4)), "INVALID_ARGUMENT",
        'tensor "x": shape must be a list of non-negative integers'),
    "no output": (
        dense(outputs=[{"name": "z"}]), "INVALID_ARGUMENT", 'the model has no output "z", only "y"'),
    "parameter": (
        dense(parameters={"shared_memory_region": {"string_param": "a"}}), "INVALID_ARGUMENT",
        "request: this server does not support the parameter shared_memory_region"),
    "raw size": (
        pb.ModelInferRequest(
            model_name="dense", raw_input_contents=[bytes(15)],
            inputs=[X]),
        "INVALID_ARGUMENT", 'tensor "x": FP32 of shape [1, 4] takes 16 bytes, not 15'),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str, grpc_client: GrpcClient) -> None:
    request, code, words = REFUSED[case]
    for _ in range(2):
        assert fails_with(grpc.StatusCode[code], lambda: grpc_client.infer(request)).startswith(words)


@pytest.mark.parametrize(
    ("datatype", "value"), [("INT8", 128), ("UINT8", 256), ("INT16", -32769), ("UINT16", 65536)]
)
def test_a_value_out_of_range_is_refused(datatype: str, value: int) -> None:
    request = pb.ModelInferRequest()
    entry = request.inputs.add(name="x", datatype=datatype, shape=[2, 2])
    getattr(entry.contents, CONTENTS[datatype]).extend([0, 1, 2, value])
    with pytest.raises(ApiError, match=f'tensor "x": a value is outside the range of {datatype}'):
        parse_request(request, identity_of(datatype))


def test_bytes_that_are_no_message(grpc_client: GrpcClient) -> None:
    call = grpc_client.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    words = fails_with(grpc.StatusCode.INVALID_ARGUMENT, lambda: call(b"\xff\xff\xff", timeout=60))
    assert words.startswith("the message is no ModelInferRequest: ")


def test_an_unknown_method(grpc_client: GrpcClient) -> None:
    call = grpc_client.unary("Fly", pb.ServerLiveResponse, "no.Such")
    words = fails_with(grpc.StatusCode.UNIMPLEMENTED, lambda: call(pb.ServerLiveRequest(), timeout=60))
    assert words == "there is no method /no.Such/Fly"


def test_words_beyond_ascii_arrive(grpc_client: GrpcClient) -> None:
    words = fails_with(grpc.StatusCode.NOT_FOUND, lambda: grpc_client.infer(dense(model_name="möhre%20\n")))
    assert words == 'there is no model "möhre%20\n"'


def test_compressed_messages_are_refused(grpc_client: GrpcClient) -> None:
    request = raw_request("echo", x=np.zeros(1000, FP32))
    words = fails_with(
        grpc.StatusCode.UNIMPLEMENTED, lambda: grpc_client.infer(request, compression=grpc.Compression.Gzip)
    )
    assert words == "compressed messages are not supported: send them with identity"


def test_a_message_over_the_limit(models: ModelMaker, tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(
        "--model", models.dense(tmp_path / "model.onnx"), "--grpc-port", 0, "--max-body-bytes", 10_000
    )
    with GrpcClient(server) as client:
        request = raw_request("model", x=np.zeros((1000, 4), FP32))
        words = fails_with(grpc.StatusCode.RESOURCE_EXHAUSTED, lambda: client.infer(request))
        assert words == f"the message has {request.ByteSize()} bytes, the largest may have 10000"
        assert client.infer(raw_request("model", x=np.zeros((1, 4), FP32))).outputs  # the connection lives
