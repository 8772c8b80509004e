"""A picture as a request: decoded and prepared by a worker's thread, then computed like any other call.

The answer is one of the protocol: the classes that the manifest declares, as a tensor of texts, or the
outputs of the model as they are. Its ``parameters`` say where the picture came to lie in the input.
"""

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from edgemodel_server.answers import Answers
from edgemodel_server.call import Call
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.exposition import Page
from edgemodel_server.http.messages import Request, Response, error_response
from edgemodel_server.inference import InferRequest, Signature
from edgemodel_server.log import log_exception
from edgemodel_server.media import PictureType, parse_picture_type
from edgemodel_server.metrics import Histogram, Result
from edgemodel_server.preprocessing.geometry import Placement
from edgemodel_server.preprocessing.wishes import Wish, parse_wish
from edgemodel_server.rest import answer_call, make_response
from edgemodel_server.served import ServedModel
from edgemodel_server.workers import Workers

if TYPE_CHECKING:
    from edgemodel_server.preprocessing.pipeline import Pipeline

CONTENT_TYPE = b"content-type"

PictureInput: TypeAlias = tuple[Tensor, Placement]
"""The model's input, and how the picture was laid into it."""


class PictureTask:
    """A picture on its way to a model's input; ``then`` gets the outcome on the loop's thread."""

    __slots__ = ("body", "kind", "lost", "pipeline", "then")

    def __init__(
        self,
        pipeline: "Pipeline",
        body: bytes,
        kind: PictureType,
        then: Callable[[PictureInput | ApiError], None],
    ) -> None:
        self.pipeline = pipeline
        self.body = body
        self.kind = kind
        self.then = then
        self.lost = False  # nobody waits for it any more, and ``then`` is not called; read by other threads


class PictureQueue:
    """The pictures of all models that wait for a worker's thread or are read by one. Lives on the loop.

    ``max_waiting`` bounds their number, ``max_pixels`` the width times the height of each.
    """

    def __init__(self, workers: Workers, max_waiting: int, max_pixels: int) -> None:
        self._workers = workers
        self._max_waiting = max_waiting
        self._max_pixels = max_pixels
        self._waiting = 0
        self._seconds = Histogram()

    def add_metrics(self, page: Page) -> None:
        """Add the numbers of the queue to the metrics page."""
        name = "edgemodel_server_picture"
        page.add(f"{name}s_waiting", "gauge", "Pictures that wait for a thread or are read by one.",
                 [({}, self._waiting)])  # fmt: skip
        page.add_histograms(f"{name}_duration_seconds", "Making a model's input of a picture.",
                            [({}, self._seconds)])  # fmt: skip

    def put(self, task: PictureTask) -> None:
        """Have a picture read; raises ApiError(503) where too many are waiting."""
        if self._waiting >= self._max_waiting:
            raise ApiError(503, f"{self._max_waiting} pictures already wait")
        self._waiting += 1
        self._workers.submit(partial(self._read, task))

    def _read(self, task: PictureTask) -> None:
        """Do the work, on a worker's thread."""
        started = monotonic()
        outcome = ApiError(503, "the client went away") if task.lost else self._make_input(task)
        self._workers.loop.call_soon_threadsafe(self._settle, task, outcome, monotonic() - started)

    def _make_input(self, task: PictureTask) -> PictureInput | ApiError:
        try:
            return task.pipeline.make_input(task.body, task.kind, self._max_pixels)
        except ApiError as error:
            return error.as_value()
        except Exception as error:
            log_exception("reading a picture failed", error=str(error))
            return ApiError(500, "the picture could not be read: the server's log has the details")

    def _settle(self, task: PictureTask, outcome: PictureInput | ApiError, seconds: float) -> None:
        self._waiting -= 1
        task.body = b""  # whoever still knows the task needs no more of it
        if not task.lost:
            self._seconds.observe(seconds)
            task.then(outcome)


class PictureInference:
    """Answers the pictures that are sent to one model; all methods run on the loop's thread."""

    def __init__(self, model: ServedModel, queue: PictureQueue) -> None:
        self._model = model
        self._queue = queue

    def infer(self, request: Request) -> None:
        """Answer a request whose body is a picture, when it is computed or refused."""
        if request.work is not None:
            request.work.model = self._model.name
        try:
            pipeline, signature = self._require_pipeline()
            kind = parse_picture_type(request.headers[CONTENT_TYPE])
            wish = parse_wish(request.path, pipeline.classes, signature)

            def submit(outcome: PictureInput | ApiError) -> None:
                self._submit(request, pipeline, wish, outcome)

            task = PictureTask(pipeline, request.body, kind, submit)
            self._queue.put(task)
        except ApiError as error:
            self._refuse(request, error)
            return
        self._model.metrics.inputs_bytes += len(request.body)
        request.body = b""
        request.on_lost = partial(self._drop, task)

    def _require_pipeline(self) -> "tuple[Pipeline, Signature]":
        served = self._model
        signature = served.require_model().signature
        pipeline = served.prepared.pictures if served.prepared is not None else None
        if pipeline is None:
            told = f'model "{served.name}" takes no pictures, for its manifest declares no preprocessing'
            raise ApiError(415, f"{told}: send tensors, or add preprocessing to the manifest")
        return pipeline, signature

    def _drop(self, task: PictureTask) -> None:
        task.lost = True
        self._model.metrics.results[Result.CANCELLED] += 1

    def _refuse(self, request: Request, error: ApiError) -> None:
        # Else request and task would hold each other: work for the garbage collector.
        request.on_lost = None
        self._model.count_refused(error)
        request.answer(error_response(error.status, error.message))

    def _submit(
        self, request: Request, pipeline: "Pipeline", wish: Wish, outcome: PictureInput | ApiError
    ) -> None:
        """Compute what became of a picture."""
        if isinstance(outcome, ApiError):
            self._refuse(request, outcome)
            return
        array, placement = outcome
        call = Call(
            {pipeline.spec.name: array},
            [name for name, _ in wish.outputs],
            lambda outcome: answer_call(
                self._model, request, outcome, lambda arrays: self._make_response(wish, placement, arrays)
            ),
            received=request.received,
        )
        call.work = request.work
        request.on_lost = call.cancel
        self._model.submit(call)

    def _make_response(self, wish: Wish, placement: Placement, arrays: Sequence[Tensor]) -> Response:
        answers = Answers(self._model.name, self._model.version, wish.signature)
        wanted = InferRequest(None, {}, wish.outputs)
        return make_response(answers.make(wanted, wish.tell(arrays), placement.describe()))
