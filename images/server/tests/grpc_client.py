"""The gRPC library of everybody else, as a client of the server under test."""

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from serving import ServerProcess

from edgemodel_server.datatypes import NUMPY_DTYPE
from edgemodel_server.grpc.protos import inference_pb2 as pb

_Answer = TypeVar("_Answer", bound=Message)
INFERENCE = "inference.GRPCInferenceService"


class GrpcClient:
    """A channel; every method waits for its answer, and raises grpc.RpcError."""

    def __init__(self, server: ServerProcess, **options: int) -> None:
        self.port = int(server.wait_for("listening")["grpc_port"])
        limits = {"grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1}
        given = {f"grpc.{name}": value for name, value in options.items()}
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}", list((limits | given).items()))

    def __enter__(self) -> "GrpcClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def call(
        self, method: str, request: Message, answer: type[_Answer], service: str = INFERENCE, **options: Any
    ) -> _Answer:
        options.setdefault("timeout", 60)
        callable_ = self.unary(method, answer, service)
        result: _Answer = callable_(request, **options)
        return result

    def unary(self, method: str, answer: type[_Answer], service: str = INFERENCE) -> Any:
        return self.channel.unary_unary(f"/{service}/{method}", _serialize, answer.FromString)

    def stream(
        self, method: str, requests: Iterable[Message], answer: type[_Answer], service: str = INFERENCE
    ) -> Iterator[_Answer]:
        callable_ = self.channel.stream_stream(f"/{service}/{method}", _serialize, answer.FromString)
        answers: Iterator[_Answer] = callable_(iter(requests), timeout=60)
        return answers

    def infer(self, request: pb.ModelInferRequest, **options: Any) -> pb.ModelInferResponse:
        return self.call("ModelInfer", request, pb.ModelInferResponse, **options)


def _serialize(message: Message) -> bytes:
    return message.SerializeToString()


def raw_request(model: str, **arrays: "np.ndarray[Any, Any]") -> pb.ModelInferRequest:
    """Return a request for FP32 tensors with raw contents."""
    request = pb.ModelInferRequest(model_name=model)
    for name, array in arrays.items():
        request.inputs.add(name=name, datatype="FP32", shape=array.shape)
        request.raw_input_contents.append(array.astype("<f4").tobytes())
    return request


def outputs_of(answer: pb.ModelInferResponse) -> "dict[str, np.ndarray[Any, Any]]":
    """Return the numeric outputs of an answer."""
    return {
        entry.name: np.frombuffer(raw, NUMPY_DTYPE[entry.datatype]).reshape(tuple(entry.shape))
        for entry, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def fails_with(code: grpc.StatusCode, call: Callable[[], object]) -> str:
    """Return the words of a call that must fail with ``code``."""
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error = raised.value
    assert isinstance(error, grpc.Call)
    assert error.code() is code, error
    return error.details() or ""
