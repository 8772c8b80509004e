"""The two ways to compute a model's calls: at once on the loop's thread, or on the workers' threads.

Both make batches without waiting: on the loop, of the calls that one poll of the sockets brought; on a
thread, of the calls that came while all threads were busy. A longer wait for a fuller batch is the user's
choice.
"""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import NamedTuple, Protocol

import numpy as np

from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.log import log_exception
from edgemodel_server.metrics import ModelMetrics
from edgemodel_server.runtimes import Model
from edgemodel_server.runtimes.slot import Geometry, Slot
from edgemodel_server.workers import Workers


class Report(Protocol):
    """Takes what became of calls that were computed together, on the loop's thread."""

    def __call__(
        self, calls: Sequence[Call], outcomes: Sequence[Outcome], started: float, finished: float
    ) -> None:
        """End the calls; the times are monotonic seconds of their computation."""


def compute_one(model: Model, call: Call) -> Outcome:
    """Return what a call alone gives; never raises."""
    try:
        inputs = {name: array if array.flags.aligned else array.copy() for name, array in call.inputs.items()}
        return model.run(inputs, call.outputs)
    except ApiError as error:
        return error.as_value()
    except Exception as error:
        log_exception("inference failed", error=str(error))
        return ApiError(500, "the computation failed: " + " ".join(str(error).split())[:500])


def count_rows(inputs: Mapping[str, Tensor]) -> int:
    """Return the number of rows of a call; 0 where its inputs differ in it."""
    rows = -1
    for array in inputs.values():
        if rows < 0:
            rows = array.shape[0]
        elif array.shape[0] != rows:
            return 0
    return rows


class InlineLane:
    """Computes in bound memory, on the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, model: Model, slot: Slot, geometry: Geometry, report: Report
    ) -> None:
        self._loop = loop
        self._model = model
        self._slot = slot
        self._report = report
        self._batched = geometry.rows > 0
        self._capacity = max(1, geometry.rows)
        # A fixed shape is one row of its own: then every tensor has the same leading dimension.
        memory = slot.inputs if self._batched else [array[np.newaxis] for array in slot.inputs]
        self._memory = tuple(zip(geometry.inputs, memory, strict=True))
        self._places = {name: place for place, name in enumerate(geometry.outputs)}
        self._calls: list[Call] = []
        self._ends: list[int] = []  # behind the last row of each call
        self._computing = False
        self.delay = 0.0

    @property
    def idle(self) -> bool:
        """Whether nothing waits."""
        return not self._calls

    def take(self, call: Call) -> bool:
        """Take a call over; False where its shape is not one of the prepared ones, or there is no room."""
        rows = count_rows(call.inputs) if self._batched else 1
        if not rows or rows > self._capacity:
            return False
        start = self._ends[-1] if self._ends else 0
        if start + rows > self._capacity:
            start = self._make_room()
            if start + rows > self._capacity:
                return False
        end = start + rows
        for name, memory in self._memory:
            memory[start:end] = call.inputs[name]
        self._calls.append(call)
        self._ends.append(end)
        if end == self._capacity and not self._computing:
            self._flush()
        elif start == 0:
            if self.delay:
                self._loop.call_later(self.delay, self._flush)
            else:
                self._loop.call_soon(self._flush)
        return True

    def _make_room(self) -> int:
        """Compute what is waiting, unless the memory still holds answers that are being sent.

        Returns the first free row. It is not always 0: an answer may begin the next call of its connection,
        which then waits here.
        """
        if not self._computing:
            self._flush()
        return self._ends[-1] if self._ends else 0

    def _flush(self) -> None:
        """Compute what is waiting."""
        calls, ends = self._calls, self._ends
        if not calls:
            return
        self._calls, self._ends = [], []
        self._computing = True
        started = monotonic()
        try:
            results = self._slot.run(ends[-1])
        except Exception:  # one of them is at fault, and the others must not pay for it
            outcomes = [compute_one(self._model, call) for call in calls]
        else:
            outcomes = self._share_out(calls, ends, results)
        self._report(calls, outcomes, started, monotonic())
        self._computing = False

    def _share_out(
        self, calls: Sequence[Call], ends: Sequence[int], results: Sequence[Tensor]
    ) -> list[Outcome]:
        places = self._places
        if not self._batched:
            return [[results[places[name]] for name in calls[0].outputs]]
        outcomes: list[Outcome] = []
        start = 0
        for call, end in zip(calls, ends, strict=True):
            outcomes.append([results[places[name]][start:end] for name in call.outputs])
            start = end
        return outcomes


class _Done(NamedTuple):
    """What a thread did: ``taken`` calls left the queue, and ``paced`` seconds went by before."""

    calls: list[Call]
    outcomes: list[Outcome]
    taken: int
    paced: float
    started: float
    finished: float


class ThreadLane:
    """Computes on the workers' threads; ``metrics.queued`` are the calls that wait or are being computed."""

    def __init__(
        self, workers: Workers, model: Model, max_rows: int, metrics: ModelMetrics, report: Report
    ) -> None:
        self._workers = workers
        self._model = model
        self._max_rows = max_rows
        self._report = report
        self._waiting: deque[Call] = deque()
        self.metrics = metrics
        self.delay = 0.0

    def put(self, call: Call) -> None:
        """Queue a call."""
        self.metrics.queued += 1
        self._waiting.append(call)
        if not self.delay or len(self._waiting) >= self._max_rows:
            self._workers.submit(self._work)
        else:
            self._workers.loop.call_later(self.delay, self._workers.submit, self._work)

    def _work(self) -> None:
        """Compute what is waiting, as much as goes together; on a worker's thread."""
        pacer = self._workers.pacer
        paced = 0.0 if pacer is None else pacer.wait()
        calls, dropped = self._next()
        started = monotonic()
        outcomes = self._compute(calls) if calls else []
        finished = monotonic()
        done = _Done(calls, outcomes, len(calls) + dropped, paced, started, finished)
        if done.taken or paced:
            self._workers.loop.call_soon_threadsafe(self._settle, done)

    def _settle(self, done: "_Done") -> None:
        self.metrics.queued -= done.taken
        self.metrics.paced_seconds += done.paced
        if done.calls:
            self._report(done.calls, done.outcomes, done.started, done.finished)

    def _next(self) -> tuple[list[Call], int]:
        """Return calls that go together, and how many were dropped: nobody waits for them any more."""
        calls: list[Call] = []
        filled = dropped = 0
        while True:
            try:
                call = self._waiting.popleft()
            except IndexError:
                return calls, dropped
            if call.over:
                dropped += 1
                continue
            rows = count_rows(call.inputs) if self._max_rows > 1 else 0
            if calls and not 0 < rows <= self._max_rows - filled:
                self._waiting.appendleft(call)
                self._workers.submit(self._work)  # the thread that it woke may have found nothing meanwhile
                return calls, dropped
            calls.append(call)
            filled += rows
            if not rows or filled >= self._max_rows:
                return calls, dropped

    def _compute(self, calls: list[Call]) -> list[Outcome]:
        if len(calls) > 1:
            try:
                return self._compute_together(calls)
            except Exception:  # one of them is at fault, and the others must not pay for it
                return [compute_one(self._model, call) for call in calls]
        return [compute_one(self._model, calls[0])]

    def _compute_together(self, calls: list[Call]) -> list[Outcome]:
        names = list(self._model.signature.outputs)
        inputs = {name: np.concatenate([call.inputs[name] for call in calls]) for name in calls[0].inputs}
        results = dict(zip(names, self._model.run(inputs, names), strict=True))
        outcomes: list[Outcome] = []
        start = 0
        for call in calls:
            end = start + count_rows(call.inputs)
            outcomes.append([results[name][start:end] for name in call.outputs])
            start = end
        return outcomes
