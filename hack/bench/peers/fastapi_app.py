"""FastAPI on uvicorn, three ways: as its tutorial teaches (`/json`), raw bytes (`/raw`), orjson (`/orjson`).

Arguments, as for every peer: MODEL FILE HTTP_PORT GRPC_PORT.
"""

import sys
from typing import Any

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from bench.session import open_session

app = FastAPI()
session = open_session(sys.argv[2])
shape = [size if isinstance(size, int) else -1 for size in session.get_inputs()[0].shape]


class Tensor(BaseModel):
    """The request's body."""

    shape: list[int]
    data: list[float]


def compute(array: Any) -> Any:
    """Run the model."""
    return session.run(None, {"x": array})[0]


@app.post("/json")
async def answer_json(tensor: Tensor) -> dict[str, Any]:
    """Validate with pydantic, answer with lists."""
    array = np.array(tensor.data, np.float32).reshape(tensor.shape)
    return {"data": compute(array).tolist()}


@app.post("/orjson")
async def answer_orjson(request: Request) -> Response:
    """Leave FastAPI's validation and encoding out."""
    document = orjson.loads(await request.body())
    output = compute(np.array(document["data"], np.float32).reshape(document["shape"]))
    return Response(orjson.dumps({"data": output}, option=orjson.OPT_SERIALIZE_NUMPY))


@app.post("/raw")
async def answer_raw(request: Request) -> Response:
    """Take and give the bytes of the tensor."""
    array = np.frombuffer(await request.body(), np.float32).reshape(shape)
    return Response(compute(array).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[3]), log_level="warning", access_log=False)
