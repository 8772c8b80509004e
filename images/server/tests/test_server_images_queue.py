"""Pictures are read away from the loop, a bounded number of them, and none that nobody waits for."""

import asyncio
import threading
from typing import cast

import numpy as np
import pytest

from edgemodel_server.errors import ApiError
from edgemodel_server.media import Encoding, PictureType
from edgemodel_server.picture_requests import PictureInput, PictureQueue, PictureTask
from edgemodel_server.preprocessing.geometry import Placement
from edgemodel_server.preprocessing.pipeline import Pipeline
from edgemodel_server.workers import Workers

INPUT = (np.zeros(1), Placement((1, 1), (1, 1), (0, 0), (1, 1)))


class Gate:
    """Stands for a pipeline that takes as long as the test wants, and notes the threads it was called on."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.threads: list[int] = []
        self.error: Exception | None = None

    def make_input(self, body: bytes, kind: PictureType, max_pixels: int) -> PictureInput:
        self.threads.append(threading.get_ident())
        assert self.open.wait(60)
        if self.error is not None:
            raise self.error
        return INPUT


class Desk:
    """A queue for two pictures with one thread, and what came out of it."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.queue = PictureQueue(Workers(asyncio.get_running_loop(), 1), 2, 100)
        self.outcomes: asyncio.Queue[PictureInput | ApiError] = asyncio.Queue()

    def put(self) -> PictureTask:
        pipeline = cast("Pipeline", self.gate)
        task = PictureTask(pipeline, b"a picture", PictureType(Encoding.PNG), self.outcomes.put_nowait)
        self.queue.put(task)
        return task

    async def next(self) -> PictureInput | ApiError:
        async with asyncio.timeout(60):
            return await self.outcomes.get()


async def test_pictures_are_read_by_another_thread() -> None:
    desk = Desk()
    desk.put()
    await asyncio.sleep(0)
    assert desk.outcomes.empty()
    desk.gate.open.set()
    assert await desk.next() == INPUT
    assert threading.get_ident() not in desk.gate.threads


async def test_more_pictures_than_may_wait_are_refused_until_there_is_room() -> None:
    desk = Desk()
    desk.put()
    desk.put()
    with pytest.raises(ApiError, match="2 pictures already wait") as caught:
        desk.put()
    assert caught.value.status == 503
    desk.gate.open.set()
    assert await desk.next() == INPUT
    desk.put()
    assert await desk.next() == await desk.next() == INPUT


async def test_a_picture_is_not_read_when_its_client_has_gone() -> None:
    desk = Desk()
    desk.put()
    desk.put().lost = True
    desk.gate.open.set()
    assert await desk.next() == INPUT
    desk.put()
    assert await desk.next() == INPUT
    assert len(desk.gate.threads) == 2


async def test_a_picture_that_was_read_is_let_go_of() -> None:
    desk = Desk()
    desk.gate.open.set()
    task = desk.put()
    await desk.next()
    assert not task.body


async def test_a_fault_of_ours_is_an_answer_and_the_thread_lives_on() -> None:
    desk = Desk()
    desk.gate.open.set()
    desk.gate.error = ZeroDivisionError("oops")
    desk.put()
    outcome = await desk.next()
    assert isinstance(outcome, ApiError)
    assert outcome.status == 500
    desk.gate.error = None
    desk.put()
    assert await desk.next() == INPUT
