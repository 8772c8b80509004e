"""gRPC: asking with the real client, to see that the answers are right, and the frame for the load."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from bench.asking import NotReady, Reference, wait_for_answers
from bench.loadgen import GrpcLoad
from bench.machine import BenchError
from bench.models import INPUT, OUTPUT, Floats

PROTOCOL = "bench/inference.proto"
_METHOD = "/inference.GRPCInferenceService/ModelInfer"
_CALL_SECONDS = 60
_NOT_YET = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAVAILABLE})


def make_grpc_load(
    folder: Path, port: int, model: str, reference: Reference, alive: Callable[[], bool]
) -> GrpcLoad:
    """Check that the server answers right, and return the load for it. Raises BenchError."""
    messages: Any = grpc.protos(PROTOCOL)  # type: ignore[attr-defined,unused-ignore]

    def request(tensor: Floats) -> bytes:
        described = {"name": INPUT, "datatype": "FP32", "shape": tensor.shape}
        return bytes(
            messages.ModelInferRequest(
                model_name=model,
                inputs=[described],
                outputs=[{"name": OUTPUT}],
                raw_input_contents=[tensor.tobytes()],
            ).SerializeToString()
        )

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(_METHOD)

        def ask(tensor: Floats) -> Floats:
            try:
                answer = messages.ModelInferResponse.FromString(call(request(tensor), timeout=_CALL_SECONDS))
            except grpc.RpcError as error:
                if error.code() in _NOT_YET:
                    raise NotReady(error.details()) from None
                raise BenchError(f"{error.code()}: {error.details()}") from None
            return np.frombuffer(answer.raw_output_contents[0], np.float32)

        wait_for_answers(ask, reference, alive)
    message = request(reference.inputs[0])
    frame = struct.pack(">BI", 0, len(message)) + message
    return GrpcLoad(folder, f"http://127.0.0.1:{port}{_METHOD}", frame, reference.outputs[0].nbytes)
