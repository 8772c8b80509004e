"""Pipelines and streams of several rows that fill the shared memory while others are in it."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from grpc_client import outputs_of, raw_request
from hpack import Encoder
from http2_peer import REQUEST, body_of, cut_frames
from serving import ModelMaker
from transports import Transport

from edgemodel_server.app import App
from edgemodel_server.grpc import frames
from edgemodel_server.grpc.messages import add_prefix
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.grpc.server import GrpcServer
from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits
from edgemodel_server.manifest import read_source
from edgemodel_server.override import override
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.runtimes.slot import Geometry
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.startup import Checks, prepare
from edgemodel_server.tuning import Tuning
from edgemodel_server.workers import Workers

CAPACITY = 32
WIDTH = 2
Rows = np.ndarray[Any, np.dtype[np.float32]]


class Client:
    """One connection, whose bytes arrive when the test wants it; the model is y = x."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        self.transport = Transport()
        protocol.connection_made(self.transport)

    def ask(self, xs: Sequence[Rows]) -> None:
        """Send requests in one piece: a pipeline, or a stream."""
        raise NotImplementedError

    def answers(self) -> list[Rows]:
        """Return the answers that have come."""
        raise NotImplementedError


class RestClient(Client):
    @override
    def ask(self, xs: Sequence[Rows]) -> None:
        texts = []
        for x in xs:
            entry = {"name": "x", "datatype": "FP32", "shape": x.shape, "data": x.ravel().tolist()}
            body = json.dumps({"inputs": [entry]}).encode()
            head = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            texts.append(head % len(body) + body)
        self.protocol.data_received(b"".join(texts))

    @override
    def answers(self) -> list[Rows]:
        found = []
        rest = self.transport.written
        while rest:
            head, _, rest = rest.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
            (output,) = json.loads(rest[:size])["outputs"]
            found.append(np.array(output["data"], np.float32).reshape(output["shape"]))
            rest = rest[size:]
        return found


class GrpcClient(Client):
    @override
    def ask(self, xs: Sequence[Rows]) -> None:
        path = "/inference.GRPCInferenceService/ModelStreamInfer"
        block = Encoder().encode([(name, path if name == ":path" else value) for name, value in REQUEST])
        messages = [raw_request("echo", x=x).SerializeToString() for x in xs]
        body = b"".join(add_prefix(len(message)) + message for message in messages)
        self.protocol.data_received(
            frames.PREFACE
            + frames.make_settings({})
            + frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1, block)
            + frames.make_frame(frames.DATA, frames.END_STREAM, 1, body)
        )

    @override
    def answers(self) -> list[Rows]:
        rest = body_of(cut_frames(self.transport.written), 1)
        found = []
        while rest:
            end = 5 + int.from_bytes(rest[1:5], "big")
            answer = pb.ModelStreamInferResponse.FromString(rest[5:end])
            assert not answer.error_message
            found.append(outputs_of(answer.infer_response)["y"])
            rest = rest[end:]
        return found


class Desk:
    """Both ports of a server in this process, and a model whose rows share computations of 32."""

    def __init__(self, path: Path) -> None:
        loop = asyncio.get_running_loop()
        workers = Workers(loop, 1)
        prepared = prepare(read_source(path), Checks())
        geometry = Geometry({"x": (1, WIDTH)}, {"y": (1, WIDTH)}, CAPACITY)
        tuning = Tuning(1e-6, 4 * WIDTH, geometry, {CAPACITY: 1e-5})
        served = ServedModel(path.stem, "1", workers, ServeOptions())
        served.start(replace(prepared, tuning=tuning))
        app = App([served], [], PictureQueue(workers, 1, 1))
        self._endpoint = Endpoint(loop, app.handle, Limits())
        self._grpc = GrpcServer(loop, app, Limits(), None)

    def connect(self, protocol: str) -> Client:
        if protocol == "REST":
            return RestClient(Connection(self._endpoint))
        return GrpcClient(cast("asyncio.Protocol", self._grpc.accept()))


@pytest.mark.parametrize(
    "protocols", [("REST", "REST"), ("gRPC", "gRPC"), ("REST", "gRPC"), ("gRPC", "REST")]
)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([16, 16, 16], [20]),
        ([16, 16], [20, 16, 16]),
        ([20, 20, 20], [20, 20, 20]),
        ([1, 32, 5, 28, 9], [32, 3, 31, 31]),
        ([31, 1, 1, 1], [2, 40, 2, 31]),
    ],
)
async def test_each_gets_the_rows_that_it_asked_for(
    models: ModelMaker, tmp_path: Path, protocols: tuple[str, str], first: list[int], second: list[int]
) -> None:
    desk = Desk(models.identity(tmp_path / "echo.onnx", "FP32", ["n", WIDTH]))
    asked = []
    for number, (protocol, sizes) in enumerate(zip(protocols, (first, second), strict=True)):
        client = desk.connect(protocol)
        values = [100 * number + place for place in range(len(sizes))]
        xs = [np.full((size, WIDTH), value, np.float32) for size, value in zip(sizes, values, strict=True)]
        client.ask(xs)
        asked.append((client, xs))
    async with asyncio.timeout(60):
        while any(len(client.answers()) < len(xs) for client, xs in asked):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    for client, xs in asked:
        for x, y in zip(xs, client.answers(), strict=True):
            assert np.array_equal(y, x)
