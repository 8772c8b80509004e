"""A stream that has been open for long: each of its messages has its own time."""

import asyncio
from pathlib import Path
from time import monotonic
from typing import cast

import numpy as np
import pytest
from grpc_client import outputs_of, raw_request
from hpack import Encoder
from http2_peer import REQUEST, body_of, cut_frames
from serving import ModelMaker
from transports import Transport

from edgemodel_server.app import App
from edgemodel_server.grpc import frames, rpc
from edgemodel_server.grpc.messages import add_prefix
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.grpc.server import GrpcServer
from edgemodel_server.http.messages import Limits
from edgemodel_server.manifest import read_source
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.startup import Checks, prepare
from edgemodel_server.workers import Workers

AGE_SECONDS = 3600.0
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


async def test_a_message_has_its_timeout_and_duration_from_its_own_arrival(
    models: ModelMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    path = models.identity(tmp_path / "echo.onnx", "FP32", ["n"])
    workers = Workers(loop, 1)
    served = ServedModel("echo", "1", workers, ServeOptions())
    served.start(prepare(read_source(path), Checks()))
    server = GrpcServer(loop, App([served], [], PictureQueue(workers, 1, 1)), Limits(), None)
    transport = Transport()
    connection = cast("asyncio.Protocol", server.accept())
    connection.connection_made(transport)

    block = Encoder().encode([(name, STREAM if name == ":path" else value) for name, value in REQUEST])
    head = frames.make_frame(frames.HEADERS, frames.END_HEADERS, 1, block)
    with monkeypatch.context() as patch:
        patch.setattr(rpc, "monotonic", lambda: monotonic() - AGE_SECONDS)
        connection.data_received(frames.PREFACE + frames.make_settings({}) + head)
    request = raw_request("echo", x=np.ones(3, np.float32))
    request.parameters["timeout"].int64_param = 600_000_000  # microseconds
    message = request.SerializeToString()
    body = add_prefix(len(message)) + message
    connection.data_received(frames.make_frame(frames.DATA, frames.END_STREAM, 1, body))

    async with asyncio.timeout(60):
        while not (answer := body_of(cut_frames(transport.written), 1)):  # noqa: ASYNC110 - there is no event
            await asyncio.sleep(0)
    told = pb.ModelStreamInferResponse.FromString(answer[5:])
    assert not told.error_message
    assert outputs_of(told.infer_response)["y"].tolist() == [1, 1, 1]
    assert served.metrics.requests.total < AGE_SECONDS
