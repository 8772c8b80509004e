"""Ask a model over gRPC: `python -m support.grpc_infer HOST:PORT MODEL INPUT ROWS COLUMNS NUMBER...`.

A program of its own, so that it can run in a node's network. The client is grpcio, as users have it; prints
the first output's numbers as JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import grpc  # type: ignore[import-untyped, unused-ignore]
import numpy as np

from edgemodel_server.grpc.protos import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService"
TIMEOUT_SECONDS = 30


def infer(address: str, model: str, name: str, rows: np.ndarray) -> list[list[float]]:
    """Send a matrix of 32-bit floats and give the matrix that comes back; raises grpc.RpcError."""
    tensor = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=rows.shape)
    request = pb.ModelInferRequest(model_name=model, inputs=[tensor], raw_input_contents=[rows.tobytes()])
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"{SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answer = call(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    (content,), (output,) = answer.raw_output_contents, answer.outputs
    matrix: list[list[float]] = np.frombuffer(content, np.float32).reshape(output.shape).tolist()
    return matrix


def main(arguments: Sequence[str]) -> None:
    """Ask once and print the answer."""
    address, model, name, rows, columns, *numbers = arguments
    matrix = np.array(numbers, np.float32).reshape(int(rows), int(columns))
    sys.stdout.write(json.dumps(infer(address, model, name, matrix)))


if __name__ == "__main__":
    main(sys.argv[1:])
