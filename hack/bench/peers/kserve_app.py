"""KServe's Python server, with its V2 protocol over REST (JSON and binary) and gRPC."""

import logging
import sys
from typing import Any

import kserve
from kserve import InferOutput, InferRequest, InferResponse

from bench.session import open_session


class OnnxModel(kserve.Model):
    """One ONNX model."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.session = open_session(path)
        self.ready = True

    def predict(
        self, payload: InferRequest, headers: Any = None, response_headers: Any = None
    ) -> InferResponse:
        """Answer in the form that the request wants."""
        result = self.session.run(None, {"x": payload.inputs[0].as_numpy()})[0]
        output = InferOutput("y", list(result.shape), "FP32", data=result)
        if payload.from_grpc:
            output.set_data_from_numpy(result, binary_data=payload.use_binary_outputs)
        return InferResponse(
            payload.id or "1",
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    logging.disable(logging.INFO)
    model, path, http_port, grpc_port = sys.argv[1:]
    server = kserve.ModelServer(
        http_port=int(http_port),
        grpc_port=int(grpc_port),
        enable_grpc=grpc_port != "0",
        workers=1,
        enable_docs_url=False,
        access_log_format=None,
    )
    server.start([OnnxModel(model, path)])
