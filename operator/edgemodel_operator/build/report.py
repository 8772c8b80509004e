"""Telling how far a build is: steps with their durations, and bytes at a bearable rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from edgemodel_operator.build.failures import BuildError, Step
from edgemodel_operator.build.request import Progress

_INTERVAL_SECONDS = 0.5


class Reporter:
    """Keeps the current step, measures it, and emits progress at most twice a second."""

    def __init__(self, emit: Callable[[Progress], None]) -> None:
        self._emit = emit
        self._step = Step.RESOLVE
        self._last = 0.0
        self.seconds: dict[str, float] = {}

    @contextmanager
    def step(self, step: Step) -> Iterator[None]:
        """Run the block as this step: announced, measured, and named in every BuildError that leaves it."""
        self._step = step
        self._emit(Progress(step=step))
        started = time.monotonic()
        self._last = started
        try:
            yield
        except BuildError as error:
            raise BuildError(error.failure.model_copy(update={"step": step})) from error
        finally:
            self.seconds[step.value] = round(time.monotonic() - started, 3)

    def bytes(self, done: int, total: int | None) -> None:
        """Tell that the current step has done so many bytes."""
        now = time.monotonic()
        if now - self._last >= _INTERVAL_SECONDS or done == total:
            self._last = now
            self._emit(Progress(step=self._step, done=done, total=total))
