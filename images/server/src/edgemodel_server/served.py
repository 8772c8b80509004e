"""A model as it is served: its state, its queue, its numbers, and its answers."""

import time
from collections.abc import Mapping
from typing import Any

from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.http.messages import BINARY, JSON, Request, Response, error_response
from edgemodel_server.inference import InferRequest, make_infer_answer, parse_infer_request
from edgemodel_server.log import log_exception
from edgemodel_server.metrics import ModelMetrics, Result
from edgemodel_server.startup import Prepared
from edgemodel_server.workers import Job, Workers

INLINE_SECONDS = 0.001
"""A computation that is expected to take less runs on the loop's thread: handing it over would cost more."""

_SMOOTHING = 0.125
_JSON_LENGTH = b"inference-header-content-length"


class ServedModel:
    """One model, from its start to the end of the process; all methods run on the loop's thread."""

    def __init__(self, name: str, version: str, workers: Workers, max_queue: int) -> None:
        self.name = name
        self.version = version
        self.metrics = ModelMetrics()
        self.prepared: Prepared | None = None
        self.failure: tuple[Reason, str] | None = (
            Reason.STARTING,
            f'model "{name}" is being verified and loaded',
        )
        self._workers = workers
        self._max_queue = max_queue
        self._inline_bytes = -1  # requests up to this size are computed inline
        self._mean_seconds = 0.0

    # -- state -----------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the model passed all of its checks."""
        return self.prepared is not None

    @property
    def started(self) -> bool:
        """Whether the checks have ended, well or not."""
        return self.failure is None or self.failure[0] is not Reason.STARTING

    def start(self, prepared: Prepared) -> None:
        """Begin to serve."""
        self.prepared = prepared
        self.failure = None
        seconds = prepared.run_seconds
        if seconds is not None and seconds < INLINE_SECONDS:
            # A larger input (free dimensions) is taken to cost in proportion.
            self._inline_bytes = int(prepared.run_bytes * INLINE_SECONDS / max(seconds, 1e-6))
            self._mean_seconds = seconds

    def fail(self, failure: StartError) -> None:
        """Stay, and say why the model is not served."""
        self.failure = (failure.reason, failure.message)

    def describe(self) -> dict[str, Any]:
        """Return the model metadata answer; raises ApiError(503) before the model is loaded."""
        model = self._require_prepared().model
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": model.platform,
            "inputs": [spec.describe() for spec in model.signature.inputs.values()],
            "outputs": [spec.describe() for spec in model.signature.outputs.values()],
        }

    def _require_prepared(self) -> Prepared:
        if self.prepared is None:
            message = self.failure[1] if self.failure else ""
            raise ApiError(503, f'model "{self.name}" is not ready: {message}')
        return self.prepared

    # -- inference -------------------------------------------------------------------------------------------

    def infer(self, request: Request) -> None:
        """Answer an inference request, at once or when a thread has computed it."""
        try:
            model = self._require_prepared().model
            parsed = parse_infer_request(request.body, _parse_json_length(request.headers), model.signature)
        except ApiError as error:
            self._refuse(request, error)
            return
        self.metrics.inputs_bytes += len(request.body)
        request.body = b""  # tensors hold what they need of it
        job = Job(model, parsed, lambda job: self._finish(request, job))
        if sum(array.nbytes for array in parsed.inputs.values()) <= self._inline_bytes:
            job.run()
            self._watch_inline(job.finished - job.started)
            self._finish(request, job, queued=False)
        elif self.metrics.queued >= self._max_queue:
            self._refuse(
                request, ApiError(503, f'{self._max_queue} requests already wait for model "{self.name}"')
            )
        else:
            self.metrics.queued += 1
            self._workers.submit(job)

    def _watch_inline(self, seconds: float) -> None:
        """Leave the loop for good when computations turn out slower than the warm-up promised."""
        self._mean_seconds += _SMOOTHING * (seconds - self._mean_seconds)
        if self._mean_seconds > 2 * INLINE_SECONDS:
            self._inline_bytes = -1

    def _finish(self, request: Request, job: Job, *, queued: bool = True) -> None:
        metrics = self.metrics
        if queued:
            metrics.queued -= 1
        metrics.queue.observe(job.started - job.queued)
        metrics.compute.observe(job.finished - job.started)
        try:
            response = self._make_response(job.request, job)
        except ApiError as error:
            self._refuse(request, error)
            return
        except Exception as error:
            log_exception("inference failed", model=self.name, error=str(error))
            self._refuse(
                request, ApiError(500, "the computation failed: " + " ".join(str(error).split())[:500])
            )
            return
        metrics.results[Result.OK] += 1
        metrics.outputs_bytes += sum(map(len, response.parts))
        self._observe(request)
        request.answer(response)

    def _make_response(self, parsed: InferRequest, job: Job) -> Response:
        if job.error is not None:
            raise job.error
        answer = make_infer_answer(self.name, self.version, parsed, job.outputs, job.model.signature)
        if not answer.tensors:
            return Response(200, (answer.document,), JSON)
        length = b"Inference-Header-Content-Length: %d\r\n" % len(answer.document)
        return Response(200, (answer.document, *answer.tensors), BINARY, length)

    def _refuse(self, request: Request, error: ApiError) -> None:
        results = {400: Result.REFUSED, 500: Result.FAILED}
        overloaded = Result.OVERLOADED if self.ready else Result.NOT_READY
        self.metrics.results[results.get(error.status, overloaded)] += 1
        self._observe(request)
        request.answer(error_response(error.status, error.message))

    def _observe(self, request: Request) -> None:
        self.metrics.requests.observe(time.monotonic() - request.received)


def _parse_json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the length of the JSON part; None where the whole body is JSON."""
    text = headers.get(_JSON_LENGTH)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise ApiError(400, "Inference-Header-Content-Length must be a number of bytes")
    return int(text)
