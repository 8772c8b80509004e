"""LitServe, as its documentation shows it: one worker process, JSON in and out."""

import sys
from typing import Any

import litserve
import numpy as np

from bench.session import open_session


class OnnxApi(litserve.LitAPI):
    """One ONNX model."""

    def setup(self, device: str) -> None:
        """Open the model in the worker."""
        self.session = open_session(sys.argv[2])

    def decode_request(self, request: dict[str, Any], **_: Any) -> Any:
        """Read the tensor."""
        return np.array(request["data"], np.float32).reshape(request["shape"])

    def predict(self, x: Any, **_: Any) -> Any:
        """Run the model."""
        return self.session.run(None, {"x": x})[0]

    def encode_response(self, output: Any, **_: Any) -> dict[str, Any]:
        """Write the tensor."""
        return {"data": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(OnnxApi(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[3]), generate_client_file=False, log_level="warning")
