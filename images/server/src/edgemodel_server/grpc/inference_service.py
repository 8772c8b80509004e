"""``inference.GRPCInferenceService``: the Open Inference Protocol v2 over gRPC.

Source: Open Inference Protocol v2, "GRPC". Beyond it, as clients of other servers use them: the repository's
index, and a stream of inferences, which are computed and answered one after the other.
"""

from collections.abc import Callable, Sequence

from edgemodel_server.app import App
from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.infer_answer import encode_head, encode_outputs, encode_varint
from edgemodel_server.grpc.infer_plans import Plan, Plans
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.protobuf import parse, reply
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.grpc.status import from_api_error
from edgemodel_server.repository import describe_server, index_models
from edgemodel_server.served import ServedModel

SERVICE = "inference.GRPCInferenceService"

_ANSWER_IN_STREAM = bytes((pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2,))

Answer = Callable[[list[bytes]], None]
Refuse = Callable[[ApiError], None]


class InferenceService:
    """The methods of the service; lives on the loop's thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._models = {model.name: model for model in app.models}
        self._plans = Plans()

    def methods(self) -> list[Method]:
        """Return what the service can do."""
        return [
            Method(f"/{SERVICE}/ModelInfer", self._infer),
            Method(f"/{SERVICE}/ModelStreamInfer", self._infer_in_stream, streaming=True),
            Method(f"/{SERVICE}/ServerLive", self._report_live),
            Method(f"/{SERVICE}/ServerReady", self._report_ready),
            Method(f"/{SERVICE}/ModelReady", self._report_model_ready),
            Method(f"/{SERVICE}/ServerMetadata", self._describe_server),
            Method(f"/{SERVICE}/ModelMetadata", self._describe_model),
            Method(f"/{SERVICE}/RepositoryIndex", self._index),
        ]

    def _find(self, name: str, version: str) -> ServedModel:
        model = self._models.get(name)
        if model is None:
            raise ApiError(404, f'there is no model "{name}"')
        if version and version != model.version:
            raise ApiError(404, f'model "{name}" has no version "{version}", only "{model.version}"')
        return model

    # -- what there is ---------------------------------------------------------------------------------------

    def _report_live(self, rpc: Rpc, message: bytes) -> None:
        parse(pb.ServerLiveRequest, message)
        reply(rpc, pb.ServerLiveResponse(live=True))

    def _report_ready(self, rpc: Rpc, message: bytes) -> None:
        parse(pb.ServerReadyRequest, message)
        reply(rpc, pb.ServerReadyResponse(ready=not self._app.reasons()))

    def _report_model_ready(self, rpc: Rpc, message: bytes) -> None:
        request = parse(pb.ModelReadyRequest, message)
        reply(rpc, pb.ModelReadyResponse(ready=self._find(request.name, request.version).ready))

    def _describe_server(self, rpc: Rpc, message: bytes) -> None:
        parse(pb.ServerMetadataRequest, message)
        reply(rpc, pb.ServerMetadataResponse(**describe_server()))

    def _describe_model(self, rpc: Rpc, message: bytes) -> None:
        request = parse(pb.ModelMetadataRequest, message)
        reply(rpc, pb.ModelMetadataResponse(**self._find(request.name, request.version).describe()))

    def _index(self, rpc: Rpc, message: bytes) -> None:
        request = parse(pb.RepositoryIndexRequest, message)
        answer = pb.RepositoryIndexResponse()
        for entry in index_models(self._app.models, only_ready=request.ready):
            answer.models.add(**entry)
        reply(rpc, answer)

    # -- inference -------------------------------------------------------------------------------------------

    def _infer(self, rpc: Rpc, message: bytes) -> None:
        rpc.deadline = rpc.hand_over_deadline()
        self._begin(rpc, message, rpc.answer, lambda error: rpc.fail(from_api_error(error)))

    def _infer_in_stream(self, rpc: Rpc, message: bytes) -> None:
        def answer(parts: list[bytes]) -> None:
            rpc.answer([_ANSWER_IN_STREAM, encode_varint(sum(map(len, parts))), *parts])

        def refuse(error: ApiError) -> None:
            reply(rpc, pb.ModelStreamInferResponse(error_message=error.message))

        self._begin(rpc, message, answer, refuse)

    def _begin(self, rpc: Rpc, message: bytes, answer: Answer, refuse: Refuse) -> None:
        """Have an inference computed; one of ``answer`` and ``refuse`` is called, now or later."""
        try:
            plan, inputs = self._recall(message) or self._read(message)
        except ApiError as error:
            refuse(error)
            return
        self._submit(rpc, _Inference(plan, answer, refuse), inputs, len(message))

    def _recall(self, message: bytes) -> tuple[Plan, dict[str, Tensor]] | None:
        """Return what a message means if one like it came before, to the same model."""
        found = self._plans.find(message)
        if found is None:
            return None
        plan = found[0]
        if plan.served.ready and plan.served.require_model().signature is plan.signature:
            return found
        self._plans.forget(plan)
        return None

    def _read(self, message: bytes) -> tuple[Plan, dict[str, Tensor]]:
        """Return what a message means by the strict path, and remember it where that is possible."""
        parsed = parse_message(message)
        served = self._find(parsed.model_name, parsed.model_version)
        try:
            signature = served.require_model().signature
            request = parse_request(parsed, signature)
        except ApiError as error:
            served.count_refused(error)
            raise
        plan = self._plans.learn(message, parsed, request, served, signature)
        return plan or Plan(served, signature, (), request, request.output_names, {}), request.inputs

    def _submit(self, rpc: Rpc, inference: "_Inference", inputs: dict[str, Tensor], size: int) -> None:
        plan = inference.plan
        plan.served.metrics.inputs_bytes += size
        deadline = rpc.deadline
        if plan.template.timeout is not None:
            deadline = min(deadline, rpc.received + plan.template.timeout)
        call = Call(inputs, plan.output_names, inference.finish, received=rpc.received, deadline=deadline)
        rpc.on_abandon = call.cancel
        plan.served.submit(call)


class _Inference:
    """Where the outcome of a call goes."""

    __slots__ = ("_answer", "_refuse", "plan")

    def __init__(self, plan: Plan, answer: Answer, refuse: Refuse) -> None:
        self.plan = plan
        self._answer = answer
        self._refuse = refuse

    def finish(self, outcome: Outcome) -> ApiError | None:
        """Take the outcome; see ``Call``."""
        if isinstance(outcome, ApiError):
            self._refuse(outcome)
            return outcome
        plan = self.plan
        parts = [self._head(outcome), *encode_outputs(plan.template, outcome, plan.signature)]
        plan.served.metrics.outputs_bytes += sum(map(len, parts))
        self._answer(parts)
        return None

    def _head(self, arrays: Sequence[Tensor]) -> bytes:
        plan = self.plan
        shapes = tuple([array.shape for array in arrays])
        head = plan.heads.get(shapes)
        if head is None:
            served = plan.served
            head = encode_head(served.name, served.version, plan.template, arrays, plan.signature)
            if len(plan.heads) < _MAX_HEADS:
                plan.heads[shapes] = head
        return head


_MAX_HEADS = 64
