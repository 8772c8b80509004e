"""The synchronous server of grpcio with nothing but the model behind it: what gRPC costs in Python."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np

from bench.session import open_session

_THREADS = 4

messages: Any
services: Any
messages, services = grpc.protos_and_services("bench/inference.proto")


class Servicer:
    """One ONNX model."""

    def __init__(self, path: str) -> None:
        self.session = open_session(path)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - gRPC's name
        """Answer a request with raw contents."""
        array = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(request.inputs[0].shape)
        result = self.session.run(None, {"x": array})[0]
        return messages.ModelInferResponse(
            model_name=request.model_name,
            outputs=[{"name": "y", "datatype": "FP32", "shape": result.shape}],
            raw_output_contents=[result.tobytes()],
        )


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(_THREADS))
    services.add_GRPCInferenceServiceServicer_to_server(Servicer(sys.argv[2]), server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[4]}")
    server.start()
    server.wait_for_termination()
