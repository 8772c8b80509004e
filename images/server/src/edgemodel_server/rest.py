"""The REST end of a model: from an HTTP request to a call, and from its outcome to an HTTP response."""

import math
from collections.abc import Callable, Mapping, Sequence

from edgemodel_server.answers import Answers, InferAnswer
from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.http.messages import BINARY, JSON, Request, Response, error_response, render_lines
from edgemodel_server.layouts import Layouts
from edgemodel_server.runtimes import Model
from edgemodel_server.served import ServedModel

_MAX_KNOWN = 256
_JSON_LENGTH = b"inference-header-content-length"


class RestInference:
    """Answers the inference requests for one model; all methods run on the loop's thread."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._layouts: Layouts | None = None
        self._answers: Answers | None = None
        self._lines: dict[object, bytes] = {}

    def infer(self, request: Request) -> None:
        """Answer an inference request, at once or when it is computed."""
        served, work = self._model, request.work
        if work is not None:
            work.model = served.name
        try:
            layouts, answers = self._fit(served.require_model())
            parsed = layouts.parse(request.body, _parse_json_length(request.headers))
        except ApiError as error:
            served.count_refused(error)
            request.answer(error_response(error.status, error.message))
            return
        served.metrics.inputs_bytes += len(request.body)
        request.body = b""  # tensors hold what they need of it
        call = Call(
            parsed.inputs,
            parsed.output_names,
            lambda outcome: answer_call(
                served, request, outcome, lambda arrays: self._make_response(answers.make(parsed, arrays))
            ),
            received=request.received,
            deadline=math.inf if parsed.timeout is None else request.received + parsed.timeout,
        )
        if work is not None:
            work.id, call.work = parsed.id, work
        request.on_lost = call.cancel
        served.submit(call)

    def _fit(self, model: Model) -> tuple[Layouts, Answers]:
        """Return what reads and writes for the model as it is loaded now."""
        layouts, answers = self._layouts, self._answers
        if layouts is None or answers is None or layouts.signature is not model.signature:
            layouts = self._layouts = Layouts(model.signature)
            answers = self._answers = Answers(self._model.name, self._model.version, model.signature)
        return layouts, answers

    def _make_response(self, answer: InferAnswer) -> Response:
        """Return the response; its head is rendered once for answers of the same sizes."""
        if not answer.tensors:
            return make_response(answer)
        key = (len(answer.document), len(answer.tensors[0])) if len(answer.tensors) == 1 else None
        lines = self._lines.get(key)
        if lines is not None:
            return Response(200, (answer.document, *answer.tensors), lines=lines)
        response = make_response(answer)
        if key is not None and len(self._lines) < _MAX_KNOWN:
            self._lines[key] = render_lines(response)
        return response


def answer_call(
    served: ServedModel, request: Request, outcome: Outcome, write: Callable[[Sequence[Tensor]], Response]
) -> ApiError | None:
    """Answer a request with what became of its call, see ``Call.finish``; ``write`` may raise ApiError."""
    # Else request and call would hold each other: work for the garbage collector.
    request.on_lost = None
    if isinstance(outcome, ApiError):
        request.answer(error_response(outcome.status, outcome.message))
        return outcome
    try:
        response = write(outcome)
    except ApiError as error:
        request.answer(error_response(error.status, error.message))
        return error.as_value()
    served.metrics.outputs_bytes += response.size
    request.answer(response)
    return None


def make_response(answer: InferAnswer) -> Response:
    """Return the response that carries an encoded answer."""
    if not answer.tensors:
        return Response(200, (answer.document,), JSON)
    length = b"Inference-Header-Content-Length: %d\r\n" % len(answer.document)
    return Response(200, (answer.document, *answer.tensors), BINARY, length)


def _parse_json_length(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the length of the JSON part; None where the whole body is JSON."""
    text = headers.get(_JSON_LENGTH)
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise ApiError(400, "Inference-Header-Content-Length must be a number of bytes")
    return int(text)
