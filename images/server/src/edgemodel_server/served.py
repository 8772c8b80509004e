"""A model as it is served: its state, the way its calls are computed, and its numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from edgemodel_server.call import Call, Outcome
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.lanes import InlineLane, ThreadLane, compute_one
from edgemodel_server.log import log_exception
from edgemodel_server.metrics import ModelMetrics, Result
from edgemodel_server.runtimes import Model
from edgemodel_server.runtimes.slot import Binding
from edgemodel_server.startup import Prepared
from edgemodel_server.unload import UnloadedModel, give_memory_back
from edgemodel_server.workers import Workers

INLINE_SECONDS = 0.001
"""A computation that is expected to take less runs on the loop's thread: handing it over would cost more."""

_SLOW_IN_A_ROW = 8

_MAY_PASS = frozenset({Reason.LOAD_FAILED, Reason.WARM_UP_FAILED})
"""Why a model that was served could not be loaded again, where that may be want of memory, for a moment."""

_RETRY_SECONDS = 2.0
_MAX_RETRY_SECONDS = 60.0
_RESULTS = {
    400: Result.REFUSED,
    413: Result.REFUSED,
    415: Result.REFUSED,
    500: Result.FAILED,
    504: Result.DEADLINE,
}


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How calls are treated.

    ``max_queue`` counts calls; ``max_delay`` and ``idle_unload`` are seconds, 0 is none and never. ``inline``
    allows short computations on the loop's thread.
    """

    max_queue: int = 64
    max_delay: float = 0.0
    idle_unload: float = 0.0
    inline: bool = True


class ServedModel:
    """One model, from its start to the end of the process; all methods run on the loop's thread."""

    def __init__(self, name: str, version: str, workers: Workers, options: ServeOptions) -> None:
        self.name = name
        self.version = version
        self.metrics = ModelMetrics()
        self.prepared: Prepared | None = None
        self.failure: tuple[Reason, str] | None = (
            Reason.STARTING,
            f'model "{name}" is being verified and loaded',
        )
        self.reload: Callable[[], None] | None = None
        """Begins to load the model again; ``start`` or ``fail`` is called when that ended."""
        self._workers = workers
        self._options = options
        self._inline: InlineLane | None = None
        self._threads: ThreadLane | None = None
        self._inline_bytes = -1  # calls up to this size are computed on the loop's thread
        self._slow = 0  # computations in a row that took too long for the loop
        self._used = monotonic()
        self._parked: list[Call] = []  # came while the model was not in memory
        self._retry_seconds = _RETRY_SECONDS

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the model passed all of its checks."""
        return self.failure is None

    @property
    def started(self) -> bool:
        """Whether the checks have ended, well or not."""
        return self.failure is None or self.failure[0] is not Reason.STARTING

    def start(self, prepared: Prepared) -> None:
        """Begin to serve, or go on after the model was loaded again."""
        self.prepared = prepared
        self.failure = None
        self._retry_seconds = _RETRY_SECONDS
        self.metrics.loaded = True
        self.metrics.memory_bytes = prepared.memory_bytes
        self._used = monotonic()
        self._open_lanes(prepared)
        parked, self._parked = self._parked, []
        for call in parked:
            if not call.over:
                self._begin(call)

    def fail(self, failure: StartError) -> None:
        """Stay, and say why the model is not served; try again if it was, and may be again."""
        self.failure = (failure.reason, failure.message)
        parked, self._parked = self._parked, []
        for call in parked:
            self._end(call, self._not_ready())
        if self.prepared is not None and self.reload is not None and failure.reason in _MAY_PASS:
            # Not left to the next request: none comes to a server that is not ready.
            self._workers.loop.call_later(self._retry_seconds, self.reload)
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)

    def _open_lanes(self, prepared: Prepared) -> None:
        tuning, model, options = prepared.tuning, prepared.model, self._options
        self._threads = ThreadLane(self._workers, model, tuning.max_rows, self.metrics, self._report)
        self._threads.delay = options.max_delay
        seconds = tuning.seconds
        if not options.inline or seconds is None or seconds >= INLINE_SECONDS:
            return
        # A larger input (free dimensions) is taken to cost in proportion.
        self._inline_bytes = int(tuning.input_bytes * INLINE_SECONDS / max(seconds, 1e-6))
        geometry = tuning.shrink(INLINE_SECONDS)
        slot = model.bind(geometry) if geometry is not None and isinstance(model, Binding) else None
        if geometry is not None and slot is not None:
            self._inline = InlineLane(self._workers.loop, model, slot, geometry, self._report)
            self._inline.delay = options.max_delay

    def unload_if_idle(self, now: float) -> bool:
        """Give the model's memory back if nobody has asked for a while; say whether that was done."""
        prepared, threads = self.prepared, self._threads
        if not self._options.idle_unload or self.reload is None or prepared is None or threads is None:
            return False
        busy = self.metrics.queued or not (self._inline is None or self._inline.idle)
        if busy or now < self._used + self._options.idle_unload:
            return False
        self._inline = self._threads = None
        self._inline_bytes = -1
        self.prepared = replace(prepared, model=UnloadedModel(prepared.model))
        self.metrics.loaded = False
        self.metrics.memory_bytes = 0
        prepared.model.close()
        del prepared, threads
        give_memory_back()
        return True

    def describe(self) -> dict[str, Any]:
        """Return the model metadata answer; raises ApiError(503) before the model is loaded."""
        model = self.require_model()
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": model.platform,
            "inputs": [spec.describe() for spec in model.signature.inputs.values()],
            "outputs": [spec.describe() for spec in model.signature.outputs.values()],
        }

    def require_model(self) -> Model:
        """Return the model, for what it says of itself; raises ApiError(503) before it is ready."""
        if self.prepared is None or self.failure is not None:
            raise self._not_ready()
        return self.prepared.model

    def _not_ready(self) -> ApiError:
        message = self.failure[1] if self.failure else ""
        return ApiError(503, f'model "{self.name}" is not ready: {message}')

    # -- inference -------------------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Compute a call; it is finished at once or later, or cancelled. Never raises."""
        call.on_cancel = self._count_cancelled
        if call.deadline < math.inf:
            call.timer = self._workers.loop.call_later(
                max(0.0, call.deadline - monotonic()), self._expire, call
            )
        if self._threads is not None:
            self._begin(call)
        elif self.failure is not None or self.reload is None:
            self._end(call, self._not_ready())
        elif len(self._parked) >= self._options.max_queue:
            self._end(call, self._overloaded())
        else:
            self._parked.append(call)
            if len(self._parked) == 1:
                self.reload()

    def _begin(self, call: Call) -> None:
        if self._inline is not None and self._inline.take(call):
            return
        prepared, threads = self.prepared, self._threads
        if prepared is None or threads is None:
            self._end(call, self._not_ready())
        elif sum(array.nbytes for array in call.inputs.values()) <= self._inline_bytes:
            started = monotonic()
            outcome = compute_one(prepared.model, call)
            self._report((call,), (outcome,), started, monotonic())
        elif self.metrics.queued >= self._options.max_queue:
            self._end(call, self._overloaded())
        else:
            threads.put(call)

    def _overloaded(self) -> ApiError:
        return ApiError(503, f'{self._options.max_queue} requests already wait for model "{self.name}"')

    def _report(
        self, calls: Sequence[Call], outcomes: Sequence[Outcome], started: float, finished: float
    ) -> None:
        """End calls that were computed together; see ``lanes.Report``."""
        metrics = self.metrics
        self._note_computation(len(calls), started, finished)
        for call, outcome in zip(calls, outcomes, strict=True):
            metrics.queue.observe(started - call.queued)
            if call.work is not None:
                call.work.queue, call.work.compute = started - call.queued, finished - started
            if isinstance(outcome, ApiError):
                self._end(call, outcome)
            elif not call.over:
                self._tell(call, outcome)
        now = monotonic()
        for call in calls:
            metrics.requests.observe(now - call.received)

    def _tell(self, call: Call, outcome: Outcome) -> None:
        try:
            error = call.end(outcome)
        except Exception:  # a fault in writing one answer must not cost the other calls theirs
            log_exception("answer failed", model=self.name)
            error = ApiError(500, "the answer could not be written: the server's log has the details")
            call.finish(error)
        if error is None:
            self.metrics.results[Result.OK] += 1
        else:
            self.count_refused(error)

    def _note_computation(self, count: int, started: float, finished: float) -> None:
        metrics = self.metrics
        metrics.batch.observe(count)
        metrics.compute.observe(finished - started, count)
        self._used = finished
        if self._inline_bytes >= 0:
            self._watch_inline(finished - started)

    def _watch_inline(self, seconds: float) -> None:
        """Leave the loop for good when computations turn out slower than the warm-up promised."""
        # One slow computation may be the machine's fault; many in a row are the model's.
        self._slow = self._slow + 1 if seconds > 2 * INLINE_SECONDS else 0
        if self._slow >= _SLOW_IN_A_ROW:
            self._inline_bytes = -1
            self._inline = None

    def _end(self, call: Call, error: ApiError) -> None:
        if not call.over:
            self.count_refused(error)
            call.end(error)

    def _expire(self, call: Call) -> None:
        self._end(call, ApiError(504, "the deadline of the request passed before it was computed"))

    def count_refused(self, error: ApiError) -> None:
        """Count a request that ended with an error, here or before it became a call."""
        overloaded = Result.OVERLOADED if self.ready else Result.NOT_READY
        self.metrics.results[_RESULTS.get(error.status, overloaded)] += 1

    def _count_cancelled(self) -> None:
        self.metrics.results[Result.CANCELLED] += 1
