"""Ask a server through tritonclient, and print what it makes of the answers as JSON.

`python ask_triton.py HTTP_PORT GRPC_PORT`, in the environment of the pyproject.toml beside this file. The
server has the models `all` (an identity per datatype) and `dense`.
"""

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tensors import ARRAYS, to_hex


def words_of(call: Callable[[], object]) -> str:
    """Return the words with which a client says that a request failed."""
    try:
        call()
    except Exception as error:
        return str(error)
    return "no failure"


def ask_triton(library: Any, url: str, **input_options: Any) -> dict[str, Any]:
    """Use either of tritonclient's two clients; they have the same methods."""
    options = {"as_json": True} if library is tritonclient.grpc else {}
    with library.InferenceServerClient(url) as client:
        inputs = []
        for name, array in ARRAYS.items():
            tensor = library.InferInput(f"in_{name}", list(array.shape), name)
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        answer = client.infer("all", inputs, request_id="seven")
        dense = library.InferInput("x", [1, 4], "FP32")
        dense.set_data_from_numpy(np.ones((1, 4), np.float32), **input_options)
        wanted = [library.InferRequestedOutput("y")]
        response = client.infer("dense", [dense], outputs=wanted).get_response(**options)
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "model_ready": client.is_model_ready("dense", "7"),
            "server": client.get_server_metadata(**options)["name"],
            "model": client.get_model_metadata("dense", **options)["platform"],
            "index": client.get_model_repository_index(**options),
            "outputs": {name: to_hex(answer.as_numpy(f"out_{name}")) for name in ARRAYS},
            "outputs_wanted": [output["name"] for output in response["outputs"]],
            "missing_model": words_of(lambda: client.infer("rose", inputs)),
            "missing_input": words_of(lambda: client.infer("all", inputs[:-1])),
        }


def ask_triton_json(url: str) -> dict[str, Any]:
    """Use the HTTP client without binary tensors; it knows no JSON form of FP16."""
    with tritonclient.http.InferenceServerClient(url) as client:
        inputs = []
        for name, array in ARRAYS.items():
            tensor = tritonclient.http.InferInput(f"in_{name}", list(array.shape), name)
            tensor.set_data_from_numpy(array, binary_data=name == "FP16")
            inputs.append(tensor)
        wanted = [
            tritonclient.http.InferRequestedOutput(f"out_{name}", binary_data=name == "FP16")
            for name in ARRAYS
        ]
        answer = client.infer("all", inputs, outputs=wanted)
        return {name: to_hex(answer.as_numpy(f"out_{name}")) for name in ARRAYS}


def ask_triton_stream(url: str) -> list[str]:
    """Use the gRPC client's stream of inferences; the third request is wrong."""
    answers: list[str] = []
    with tritonclient.grpc.InferenceServerClient(url) as client:
        client.start_stream(
            lambda result, error: answers.append(
                to_hex(result.as_numpy("y")) if error is None else str(error)
            )
        )
        for model in ("dense", "dense", "rose"):
            tensor = tritonclient.grpc.InferInput("x", [1, 4], "FP32")
            tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
            client.async_stream_infer(model, [tensor])
        client.stop_stream()  # waits for the answers
    return answers


def main() -> None:
    """Ask through both clients."""
    http, grpc = (f"127.0.0.1:{port}" for port in sys.argv[1:])
    result = {
        "arrays": {name: to_hex(array) for name, array in ARRAYS.items()},
        "http": ask_triton(tritonclient.http, http, binary_data=False),
        "http_json": ask_triton_json(http),
        "grpc": ask_triton(tritonclient.grpc, grpc),
        "stream": ask_triton_stream(grpc),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
