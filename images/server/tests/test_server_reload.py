"""A model that was unloaded and cannot be loaded again: what may pass is tried again, the rest stays."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import cast

import numpy as np
import pytest
from serving import ModelMaker, StartServer

from edgemodel_server.call import Call, Outcome
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.manifest import read_source
from edgemodel_server.served import ServedModel, ServeOptions
from edgemodel_server.settings import parse_settings
from edgemodel_server.starting import start_models
from edgemodel_server.startup import Checks, prepare
from edgemodel_server.workers import Workers


class Clock:
    """A loop whose time the test turns: what is to be done later, and after how many seconds."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.later.append((seconds, callback))

    def call_soon(self, callback: Callable[..., None], *arguments: object) -> None:
        self.later.append((0.0, partial(callback, *arguments)))

    def turn(self) -> float:
        """Do the only thing that is to be done later; returns when that would have been."""
        ((seconds, callback),) = self.later
        self.later.clear()
        callback()
        return seconds


class Desk:
    """A model that was unloaded, and how often it was begun to be loaded again."""

    def __init__(self, path: Path) -> None:
        self.clock = Clock()
        self._path = path
        self.reloads = 0
        self.got: list[Outcome] = []
        workers = Workers(cast("asyncio.AbstractEventLoop", self.clock), 1)
        self.served = ServedModel("dense", "1", workers, ServeOptions(idle_unload=1))
        self.served.reload = self._count
        self.load()
        self.unload()

    def _count(self) -> None:
        self.reloads += 1

    def load(self) -> None:
        self.served.start(prepare(read_source(self._path), Checks()))

    def unload(self) -> None:
        assert self.served.unload_if_idle(monotonic() + 3600)

    def ask(self) -> None:
        inputs = {"x": np.zeros((1, 4), np.float32)}
        self.served.submit(Call(inputs, ["y"], self._take, received=0.0))

    def _take(self, outcome: Outcome) -> ApiError | None:
        self.got.append(outcome)
        return outcome if isinstance(outcome, ApiError) else None

    def fail(self, reason: Reason) -> None:
        self.served.fail(StartError(reason, "no memory"))


@pytest.fixture
def desk(models: ModelMaker, tmp_path: Path) -> Desk:
    return Desk(models.dense(tmp_path / "dense.onnx"))


@pytest.mark.parametrize("reason", [Reason.LOAD_FAILED, Reason.WARM_UP_FAILED])
def test_what_may_pass_is_tried_again_with_growing_pauses_until_it_succeeds(
    desk: Desk, reason: Reason
) -> None:
    desk.ask()
    pauses = []
    for reloads in range(1, 9):
        assert desk.reloads == reloads
        desk.fail(reason)
        assert not desk.served.ready
        pauses.append(desk.clock.turn())
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    (refused,) = desk.got
    assert isinstance(refused, ApiError)
    assert refused.status == 503
    desk.load()
    assert desk.served.ready
    desk.unload()
    desk.fail(reason)
    assert desk.clock.turn() == 2


@pytest.mark.parametrize(
    "reason", [Reason.FILE_DIGEST_MISMATCH, Reason.PROVIDER_MISMATCH, Reason.GOLDEN_MISMATCH]
)
def test_what_time_does_not_heal_stays(desk: Desk, reason: Reason) -> None:
    desk.ask()
    desk.fail(reason)
    assert not desk.clock.later
    desk.ask()
    assert desk.reloads == 1
    assert all(isinstance(outcome, ApiError) for outcome in desk.got)


def test_a_first_start_that_fails_is_not_tried_again() -> None:
    clock = Clock()
    workers = Workers(cast("asyncio.AbstractEventLoop", clock), 1)
    served = ServedModel("dense", "1", workers, ServeOptions(idle_unload=1))
    served.reload = lambda: None
    served.fail(StartError(Reason.LOAD_FAILED, "no such operator"))
    assert not clock.later


def test_a_thread_that_cannot_be_started_is_a_failure_to_load(
    models: ModelMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = models.dense(tmp_path / "dense.onnx")
    clock = Clock()
    loop = cast("asyncio.AbstractEventLoop", clock)
    served = ServedModel("dense", "1", Workers(loop, 1), ServeOptions())

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    start_models(loop, parse_settings(["--idle-unload", "1"]), [read_source(path)], [served])
    clock.turn()
    assert served.failure == (Reason.LOAD_FAILED, "can't start new thread")


def test_a_server_is_ready_again_when_its_model_can_be_loaded_again(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.dense(tmp_path / "dense.onnx")
    content = path.read_bytes()
    server = start_server("--model", path, "--idle-unload", "0.2")

    def wait_for(path: str, status: int) -> None:
        while server.ask("GET", path).status != status:
            assert server.process.poll() is None
            time.sleep(0.01)

    while server.metric('edgemodel_server_model_loaded{model="dense"}'):
        time.sleep(0.01)
    path.write_bytes(b"something else")
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    assert server.infer("dense", request).status == 503
    reasons = server.ask("GET", "/v2/health/ready").json["reasons"]
    assert [one["reason"] for one in reasons] == ["LoadFailed"]
    path.write_bytes(content)
    wait_for("/v2/health/ready", 200)  # by itself: nobody asks a server that is not ready
    assert server.infer("dense", request).status == 200
