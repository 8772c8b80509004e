"""Calls that share a computation get their own rows, whatever begins while others are being answered."""

import asyncio
from collections import UserDict, deque
from collections.abc import Callable, Sequence, ValuesView
from typing import cast

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.lanes import InlineLane, ThreadLane
from edgemodel_server.metrics import ModelMetrics
from edgemodel_server.override import override
from edgemodel_server.runtimes import Model
from edgemodel_server.runtimes.slot import Geometry
from edgemodel_server.workers import Workers

CAPACITY = 4


class Slot:
    """Bound memory of a model with y = 2x; ``failing`` lets the next computation fail."""

    def __init__(self) -> None:
        self.inputs = [np.zeros((CAPACITY, 1))]
        self.failing = False
        self._results = [np.zeros((CAPACITY, 1))]

    def run(self, rows: int) -> list[Tensor]:
        if self.failing:
            self.failing = False
            raise RuntimeError("a fault of the test's")
        self._results[0][:rows] = self.inputs[0][:rows] * 2
        return self._results


class Doubles:
    """The model of that slot, as it computes calls alone or on a thread."""

    class signature:  # noqa: N801 - the name that a model has for it
        outputs = ("y",)

    @staticmethod
    def run(inputs: dict[str, Tensor], outputs: Sequence[str]) -> list[Tensor]:
        return [inputs["x"] * 2]


def report(calls: Sequence[Call], outcomes: Sequence[Outcome], started: float, finished: float) -> None:
    for call, outcome in zip(calls, outcomes, strict=True):
        call.end(outcome)


class Loop:
    """The loop's next turn, as a list."""

    def __init__(self) -> None:
        self.soon: deque[Callable[[], None]] = deque()

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def turn(self) -> None:
        for _ in range(len(self.soon)):
            self.soon.popleft()()


class LaneMachine(RuleBasedStateMachine):
    """Connections that ask for one computation after the other: an answer begins the next at once."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = Loop()
        self.slot = Slot()
        geometry = Geometry({"x": (1, 1)}, {"y": (1, 1)}, CAPACITY)
        loop = cast("asyncio.AbstractEventLoop", self.loop)
        self.lane = InlineLane(loop, cast("Model", Doubles), self.slot, geometry, report)
        self.rows = self.asked = self.answered = 0

    @rule(sizes=st.lists(st.integers(1, CAPACITY + 1), min_size=1, max_size=5))
    def ask(self, sizes: list[int]) -> None:
        size, *rest = sizes
        x = np.arange(self.rows, self.rows + size, dtype=float).reshape(size, 1)
        self.rows += size
        self.asked += 1

        def finish(outcome: Outcome) -> ApiError | None:
            assert not isinstance(outcome, ApiError)
            assert np.array_equal(outcome[0], x * 2)
            self.answered += 1
            if rest:
                self.ask(rest)
            return None

        call = Call({"x": x}, ["y"], finish, received=0.0)
        if not self.lane.take(call):
            call.end([x * 2])  # as a served model does: it is computed alone, in memory of its own

    @rule()
    def fail(self) -> None:
        self.slot.failing = True

    @rule()
    def turn(self) -> None:
        self.loop.turn()

    @override
    def teardown(self) -> None:
        while self.loop.soon:
            self.loop.turn()
        assert self.lane.idle
        assert self.answered == self.asked


TestInlineLane = LaneMachine.TestCase


class Threads:
    """Workers whose threads do what they are given when the test wants it."""

    pacer = None

    def __init__(self) -> None:
        self.work: deque[Callable[[], None]] = deque()
        self.loop = self

    def submit(self, work: Callable[[], None]) -> None:
        self.work.append(work)

    def call_soon_threadsafe(self, callback: Callable[..., None], *arguments: object) -> None:
        callback(*arguments)

    def run_one(self) -> None:
        if self.work:
            self.work.popleft()()


class LookedAt(UserDict[str, Tensor]):
    """Inputs that let another thread run while one looks at them for the first time."""

    def __init__(self, x: Tensor, other: Callable[[], None]) -> None:
        super().__init__(x=x)
        self._other: Callable[[], None] | None = other

    @override
    def values(self) -> ValuesView[Tensor]:
        other, self._other = self._other, None
        if other is not None:
            other()
        return super().values()


def test_a_call_that_one_thread_puts_back_is_computed_though_the_other_found_nothing() -> None:
    threads = Threads()
    metrics = ModelMetrics()
    lane = ThreadLane(cast("Workers", threads), cast("Model", Doubles), CAPACITY, metrics, report)
    got: list[Outcome] = []
    rows = np.ones((CAPACITY - 1, 1))

    def finish(outcome: Outcome) -> None:
        got.append(outcome)

    # The second does not fit beside the first; while that is found out, the thread that it woke looks for it.
    for inputs in ({"x": rows}, LookedAt(rows, threads.run_one)):
        lane.put(Call(inputs, ["y"], finish, received=0.0))
    while threads.work:
        threads.run_one()
    assert len(got) == 2
    assert metrics.queued == 0
