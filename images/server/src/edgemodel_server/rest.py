"""The REST end of a model: from an HTTP request to a call, and from its outcome to an HTTP response."""

import math
from collections.abc import Mapping, Sequence

from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.http.messages import BINARY, JSON, Request, Response, error_response
from edgemodel_server.inference import InferRequest, Layouts, make_infer_answer, parse_infer_request
from edgemodel_server.runtimes import Model
from edgemodel_server.served import ServedModel

_JSON_LENGTH = b"inference-header-content-length"


class RestInference:
    """Answers the inference requests for one model; all methods run on the loop's thread."""

    def __init__(self, model: ServedModel) -> None:
        self._model = model
        self._layouts = Layouts()
        self._signature: object = None  # what the layouts were checked against

    def infer(self, request: Request) -> None:
        """Answer an inference request, at once or when it is computed."""
        served = self._model
        try:
            model = served.require_model()
            parsed = self._parse(request, model)
        except ApiError as error:
            served.count_refused(error)
            request.answer(error_response(error.status, error.message))
            return
        served.metrics.inputs_bytes += len(request.body)
        request.body = b""  # tensors hold what they need of it
        call = Call(
            parsed.inputs,
            parsed.output_names,
            lambda outcome: self._answer(request, parsed, model, outcome),
            received=request.received,
            deadline=math.inf if parsed.timeout is None else request.received + parsed.timeout,
        )
        request.on_lost = call.cancel
        served.submit(call)

    def _parse(self, request: Request, model: Model) -> InferRequest:
        signature = model.signature
        if signature is not self._signature:
            self._signature = signature
            self._layouts = Layouts()
        return parse_infer_request(
            request.body, _parse_json_length(request.headers), signature, self._layouts
        )

    def _answer(
        self, request: Request, parsed: InferRequest, model: Model, outcome: Outcome
    ) -> ApiError | None:
        try:
            if isinstance(outcome, ApiError):
                raise outcome
            response = self._make_response(parsed, model, outcome)
        except ApiError as error:
            request.answer(error_response(error.status, error.message))
            return error
        self._model.metrics.outputs_bytes += sum(map(len, response.parts))
        request.answer(response)
        return None

    def _make_response(self, parsed: InferRequest, model: Model, arrays: Sequence[Tensor]) -> Response:
        answer = make_infer_answer(self._model.name, self._model.version, parsed, arrays, model.signature)
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
