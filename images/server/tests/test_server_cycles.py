"""The server hardly ever runs the cycle collector: what a request has used must go by itself."""

import asyncio
import gc
import json
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvloop
from drawing import draw, encode
from serving import ModelMaker
from transports import Transport

from edgemodel_server.app import App
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.http.connection import Connection
from edgemodel_server.http.endpoint import Endpoint
from edgemodel_server.http.messages import Limits
from edgemodel_server.manifest import read_source
from edgemodel_server.picture_requests import PictureQueue
from edgemodel_server.runtimes.onnx import OnnxModel
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.startup import Checks, prepare
from edgemodel_server.workers import Workers

SHAPE = (1, 16, 16, 3)
PICTURE = encode(draw(16, 16), "PNG")


def frame(body: bytes, *lines: bytes) -> bytes:
    """Give the text of a request for an inference."""
    head = (b"POST /v2/models/frames/infer HTTP/1.1", b"Host: x", b"Content-Length: %d" % len(body), *lines)
    return b"\r\n".join((*head, b"", body))


def tensor(value: float = 1.0, **parameters: object) -> bytes:
    data = np.full(SHAPE, value, "<f4").tobytes()
    entry: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": SHAPE}
    entry["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [entry], "parameters": parameters}).encode()
    return frame(head + data, b"Inference-Header-Content-Length: %d" % len(head))


def picture(body: bytes = PICTURE) -> bytes:
    return frame(body, b"Content-Type: image/png")


class Client:
    """One connection of a bench."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.connection = Connection(endpoint)
        self.transport = Transport()
        self.connection.connection_made(self.transport)

    def send(self, text: bytes) -> "Client":
        self.connection.data_received(text)
        return self

    def leave(self) -> None:
        self.connection.connection_lost(None)

    async def answered(self, status: int) -> None:
        """Wait for the answer, and leave."""
        await until(lambda: bool(self.transport.written))
        assert self.transport.written.startswith(b"HTTP/1.1 %d " % status), self.transport.written
        self.leave()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - what is waited for is the server's own state
            await asyncio.sleep(0)


class Bench:
    """A server in this process with one thread, whose model is y = x and takes pictures, one at a time."""

    def __init__(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.workers = Workers(loop, 1)
        self.served = ServedModel("frames", "7", self.workers, ServeOptions(max_queue=1, inline=False))
        self.served.start(prepare(read_source(folder), Checks()))
        app = App([self.served], [], PictureQueue(self.workers, 1, 1000))
        self._endpoint = Endpoint(loop, app.handle, Limits())

    def client(self) -> Client:
        return Client(self._endpoint)

    async def idle(self) -> None:
        """Wait until all that the thread was given is done and settled."""
        done = asyncio.Event()
        loop = asyncio.get_running_loop()

        def tell() -> None:
            loop.call_soon_threadsafe(done.set)

        self.workers.submit(tell)
        async with asyncio.timeout(60):
            await done.wait()

    def hold(self) -> Callable[[], None]:
        """Keep the thread busy until what is returned is called."""
        gate = threading.Event()

        def wait() -> None:
            gate.wait(60)

        self.workers.submit(wait)
        return gate.set


async def answer(bench: Bench) -> None:
    for text in (tensor(), picture()):
        await bench.client().send(text).answered(200)


async def refuse_at_once(bench: Bench) -> None:
    await bench.client().send(frame(b"{")).answered(400)
    await bench.client().send(frame(PICTURE, b"Content-Type: image/gif")).answered(415)


async def refuse_what_is_no_picture(bench: Bench) -> None:
    await bench.client().send(picture(PICTURE[:-30])).answered(400)
    await bench.client().send(picture(b"no picture")).answered(400)


async def refuse_what_json_cannot_say(bench: Bench) -> None:
    await bench.client().send(tensor(float("nan"))).answered(400)


async def fail_to_compute(bench: Bench) -> None:
    with pytest.MonkeyPatch.context() as patch:

        def fail(*_: object) -> None:
            raise ApiError(400, "not such a tensor")

        patch.setattr(OnnxModel, "run", fail)
        for text in (tensor(), picture()):
            await bench.client().send(text).answered(400)


async def be_late(bench: Bench) -> None:
    release = bench.hold()
    await bench.client().send(tensor(timeout=1)).answered(504)
    release()


async def be_overloaded(bench: Bench) -> None:
    for text in (tensor(), picture()):
        release = bench.hold()
        first = bench.client().send(text)
        await bench.client().send(text).answered(503)
        release()
        await first.answered(200)


async def be_left(bench: Bench) -> None:
    for text in (tensor(), picture()):
        release = bench.hold()
        bench.client().send(text).leave()
        release()
        await bench.idle()


async def be_left_within_a_request(bench: Bench) -> None:
    for text in (tensor(), picture()):
        bench.client().send(text[:-1]).leave()


async def be_broken(bench: Bench) -> None:
    bench.served.fail(StartError(Reason.LOAD_FAILED, "no memory"))
    for text in (tensor(), picture()):
        await bench.client().send(text).answered(503)


async def be_sent_nonsense(bench: Bench) -> None:
    await bench.client().send(b"nonsense\r\n\r\n").answered(400)
    await bench.client().send(tensor() + b"nonsense\r\n\r\n").answered(200)


@pytest.fixture(scope="module")
def folder(models: ModelMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = models.identity(tmp_path_factory.mktemp("frames") / "model.onnx", "FP32", list(SHAPE))
    return models.write_manifest(path.parent, "frames", preprocessing={"layout": "NHWC"})


@pytest.mark.parametrize(
    "scenario",
    [
        answer, refuse_at_once, refuse_what_is_no_picture, refuse_what_json_cannot_say, fail_to_compute,
        be_late, be_overloaded, be_left, be_left_within_a_request, be_broken, be_sent_nonsense,
    ],
)  # fmt: skip
def test_requests_and_connections_leave_no_cycles_behind(
    folder: Path, scenario: Callable[[Bench], Awaitable[None]]
) -> None:
    async def run() -> list[object]:
        bench = Bench(folder)
        await answer(bench)  # what is loaded and learned once
        gc.collect()
        gc.disable()
        try:
            await scenario(bench)
            await bench.idle()
            await asyncio.sleep(0)
            gc.set_debug(gc.DEBUG_SAVEALL)  # other tests' threads may leave something behind meanwhile, too
            gc.collect()
            return [one for one in gc.garbage if type(one).__module__.startswith("edgemodel_server")]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        left = runner.run(run())
    assert not left
