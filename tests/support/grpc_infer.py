"""Ask a model over gRPC: `python -m support.grpc_infer HOST:PORT MODEL INPUT FILE.npy`.

A program of its own, so that it can run in a node's network. The client is grpcio, as users have it. Prints
all outputs as JSON, by name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import grpc  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from numpy.typing import NDArray

from edgemodel_server.grpc.protos import inference_pb2 as pb

SERVICE = "/inference.GRPCInferenceService"
TIMEOUT_SECONDS = 60


def infer(address: str, model: str, name: str, tensor: NDArray[np.float32]) -> dict[str, Any]:
    """Send one tensor of 32-bit floats, and give the outputs, all of 32-bit floats; raises grpc.RpcError."""
    described = pb.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=tensor.shape)
    content = tensor.tobytes()
    request = pb.ModelInferRequest(model_name=model, inputs=[described], raw_input_contents=[content])
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(
            f"{SERVICE}/ModelInfer",
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        answer = call(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True)
    return {
        output.name: np.frombuffer(raw, np.float32).reshape(output.shape).tolist()
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def main(arguments: Sequence[str]) -> None:
    """Ask once and print the answer."""
    address, model, name, file = arguments
    sys.stdout.write(json.dumps(infer(address, model, name, np.load(file))))


if __name__ == "__main__":
    main(sys.argv[1:])
