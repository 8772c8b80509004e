"""Ask a server through KServe's clients, and print what they make of the answers as JSON.

`python ask_kserve.py HTTP_PORT GRPC_PORT`, as `ask_triton.py`; the two cannot live in one process, for both
register the protocol's messages under the same names.
"""

import asyncio
import json
import sys
from typing import Any

import kserve
import numpy as np
from tensors import ARRAYS, to_hex


def kserve_request(model: str, *, binary: bool) -> kserve.InferRequest:
    """Return a request for every datatype, or for the dense model."""
    arrays = {f"in_{name}": (name, array) for name, array in ARRAYS.items()}
    if model != "all":
        arrays = {"x": ("FP32", np.ones((1, 4), np.float32))}
    inputs = []
    for name, (datatype, array) in arrays.items():
        tensor = kserve.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        inputs.append(tensor)
    return kserve.InferRequest(model_name=model, infer_inputs=inputs, request_id="seven")


async def ask_kserve_rest(url: str) -> dict[str, Any]:
    """Use KServe's REST client."""
    client = kserve.InferenceRESTClient(kserve.RESTConfig(protocol="v2"))
    answer = await client.infer(url, kserve_request("all", binary=True), model_name="all")
    try:
        await client.infer(url, kserve_request("rose", binary=False), model_name="rose")
        missing = "no failure"
    except Exception as error:
        missing = f"{error} {getattr(getattr(error, 'response', None), 'text', '')}"
    return {
        "live": await client.is_server_live(url),
        "ready": await client.is_server_ready(url),
        "model_ready": await client.is_model_ready(url, "dense"),
        "id": answer.id,
        "outputs": {output.name[4:]: to_hex(output.as_numpy()) for output in answer.outputs},
        "missing_model": missing,
    }


async def ask_kserve_grpc(url: str) -> dict[str, Any]:
    """Use KServe's gRPC client."""
    client = kserve.InferenceGRPCClient(url)
    answer = await client.infer(kserve_request("all", binary=True))
    try:
        await client.infer(kserve_request("rose", binary=True))
        missing = "no failure"
    except Exception as error:
        missing = str(error)
    result = {
        "live": await client.is_server_live(),
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready("dense"),
        "id": answer.id,
        "outputs": {output.name[4:]: to_hex(output.as_numpy()) for output in answer.outputs},
        "missing_model": missing,
    }
    await client.close()
    return result


def main() -> None:
    """Ask through both clients."""
    http, grpc = (f"127.0.0.1:{port}" for port in sys.argv[1:])
    result = {
        "rest": asyncio.run(ask_kserve_rest(f"http://{http}")),
        "grpc": asyncio.run(ask_kserve_grpc(grpc)),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
