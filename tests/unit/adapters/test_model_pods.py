"""Asking model pods: what counts as ready; silence is an answer, too. The pods are servers on loopback."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.adapters.pods import ModelPods, Question
from edgemodel_operator.core.world import Pod

OUTPUT = {"name": "y", "shape": [2], "datatype": "FP32", "data": [0.25, 0.75]}
GOLDEN = json.dumps(
    {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}], "outputs": [OUTPUT]}
)


@dataclass
class FakePod:
    """What the pod says."""

    health: tuple[int, dict[str, Any]] = (200, {"ready": True, "provider": "CPUExecutionProvider"})
    outputs: list[dict[str, Any]] = field(default_factory=lambda: [OUTPUT])
    asked: int = 0
    busy: bool = False
    port: int = 0

    async def answer_health(self, _: web.Request) -> web.Response:
        return web.json_response(self.health[1], status=self.health[0])

    async def answer_inference(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.busy:
            return web.json_response({"error": "the queue is full"}, status=503)
        assert (await request.json())["inputs"][0]["data"] == [1.0]
        return web.json_response({"outputs": self.outputs})


@pytest.fixture
async def pod() -> AsyncIterator[FakePod]:
    fake = FakePod()
    application = web.Application()
    application.router.add_get("/v2/health/ready", fake.answer_health)
    application.router.add_post("/v2/models/line/infer", fake.answer_inference)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()


@pytest.fixture
async def pods() -> AsyncIterator[ModelPods]:
    async with aiohttp.ClientSession() as session:
        yield ModelPods(session)


def question(port: int, **changes: Any) -> Question:
    seen = Pod("line-x", "uid-1", "edge-a", "abc", "cpu", "serve", datetime.now(UTC), ip="127.0.0.1")
    asked: dict[str, Any] = {
        "pod": seen,
        "port": port,
        "model": "line",
        "provider": "CPUExecutionProvider",
        "golden": GOLDEN,
        "tolerance": 0.01,
    }
    return Question(**(asked | changes))


async def test_a_pod_that_answers_right_is_ready_and_its_sample_is_asked_once(
    pod: FakePod, pods: ModelPods
) -> None:
    for _ in range(3):
        answer = await pods.ask(question(pod.port))
        assert (answer.reachable, answer.ready, answer.reason) == (True, True, "")
    assert pod.asked == 1


async def test_a_pod_that_answers_wrongly_is_not_ready_and_is_asked_again(
    pod: FakePod, pods: ModelPods
) -> None:
    pod.outputs = [{**OUTPUT, "data": [0.75, 0.25]}]
    for _ in range(2):
        answer = await pods.ask(question(pod.port))
        assert (answer.ready, answer.reason) == (False, "GoldenMismatch")
        assert "expected 0.25" in answer.message
    assert pod.asked == 2


@pytest.mark.parametrize("data", [[0.25], [0.25, None], [0.25, "x"], [0.25, float("nan")]])
async def test_an_answer_that_is_no_number_never_passes(
    pod: FakePod, pods: ModelPods, data: list[Any]
) -> None:
    pod.outputs = [{**OUTPUT, "data": data}]
    assert (await pods.ask(question(pod.port))).reason == "GoldenMismatch"


async def test_another_provider_is_a_mismatch_unless_any_will_do(pod: FakePod, pods: ModelPods) -> None:
    answer = await pods.ask(question(pod.port, provider="CUDAExecutionProvider"))
    assert (answer.ready, answer.reason) == (False, "ProviderMismatch")
    assert (await pods.ask(question(pod.port, provider=""))).ready is True


async def test_a_pod_that_is_not_ready_gives_its_reason(pod: FakePod, pods: ModelPods) -> None:
    reasons = [{"reason": "FileDigestMismatch", "message": "model.onnx is damaged"}]
    pod.health = (503, {"ready": False, "reasons": reasons})
    answer = await pods.ask(question(pod.port))
    assert (answer.ready, answer.reason, answer.message) == (
        False,
        "FileDigestMismatch",
        "model.onnx is damaged",
    )


async def test_silence_is_an_answer(pod: FakePod, pods: ModelPods) -> None:
    answer = await pods.ask(question(1))
    assert (answer.reachable, answer.ready) == (False, False)
    assert "cannot be asked" in answer.message


async def test_a_busy_pod_is_no_data_and_not_a_wrong_answer(pod: FakePod, pods: ModelPods) -> None:
    pod.busy = True
    answer = await pods.ask(question(pod.port))
    assert (answer.reachable, answer.ready, answer.reason) == (False, False, "")
    pod.busy = False
    assert (await pods.ask(question(pod.port))).ready is True
