"""``inference.GRPCInferenceService``: the Open Inference Protocol v2 over gRPC.

Source: Open Inference Protocol v2, "GRPC". Beyond it, as clients of other servers use them: the repository's
index, and a stream of inferences, which are computed and answered one after the other.
"""

from time import monotonic

from edgemodel_server.access_log import Work
from edgemodel_server.app import App
from edgemodel_server.call import Call, Outcome
from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.infer_answer import AnswerWriter, encode_varint
from edgemodel_server.grpc.infer_plans import Plan, Plans
from edgemodel_server.grpc.infer_request import parse_message, parse_request
from edgemodel_server.grpc.protobuf import parse, reply
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.grpc.status import from_api_error
from edgemodel_server.override import override
from edgemodel_server.repository import describe_server, index_models
from edgemodel_server.served import ServedModel

SERVICE = "inference.GRPCInferenceService"

_ANSWER_IN_STREAM = bytes((pb.ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER << 3 | 2,))


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
        document = self._find(request.name, request.version).describe()
        for tensor in (*document["inputs"], *document["outputs"]):
            tensor.pop("parameters", None)  # REST alone has a place for them
        reply(rpc, pb.ModelMetadataResponse(**document))

    def _index(self, rpc: Rpc, message: bytes) -> None:
        request = parse(pb.RepositoryIndexRequest, message)
        answer = pb.RepositoryIndexResponse()
        for entry in index_models(self._app.models, only_ready=request.ready):
            answer.models.add(**entry)
        reply(rpc, answer)

    # -- inference -------------------------------------------------------------------------------------------

    def _infer(self, rpc: Rpc, message: bytes) -> None:
        rpc.hand_over_deadline()
        self._begin(_Inference(rpc), message)

    def _infer_in_stream(self, rpc: Rpc, message: bytes) -> None:
        self._begin(_StreamedInference(rpc), message)

    def _begin(self, inference: "_Inference", message: bytes) -> None:
        """Have an inference computed; it is finished now or later."""
        try:
            plan, inputs = self._recall(message) or self._read(message)
        except ApiError as error:
            inference.refuse(error)
            return
        plan.served.metrics.inputs_bytes += len(message)
        inference.plan = plan
        rpc = inference.rpc
        received, deadline = monotonic(), rpc.deadline
        if plan.timeout is not None:  # the message's own: a stream may be as old as it likes
            deadline = min(deadline, received + plan.timeout)
        call = Call(inputs, plan.output_names, inference.finish, received=received, deadline=deadline)
        if rpc.logged:
            rpc.work = call.work = Work(plan.served.name, plan.request_id)
        rpc.on_abandon = call.cancel
        plan.served.submit(call)

    def _recall(self, message: bytes) -> tuple[Plan, dict[str, Tensor]] | None:
        """Return what a message means if one like it came before, to the same model."""
        found = self._plans.find(message)
        if found is None or found[0].holds:
            return found
        self._plans.forget(found[0])
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
        writer = AnswerWriter(served.name, served.version, request, signature)
        plan = Plan(served, served.prepared, (), request.output_names, request.timeout, request.id, writer)
        self._plans.learn(message, parsed, request, plan)
        return plan, request.inputs


class _Inference:
    """One inference under way, the only one of its call."""

    __slots__ = ("plan", "rpc")

    plan: Plan

    def __init__(self, rpc: Rpc) -> None:
        self.rpc = rpc

    def finish(self, outcome: Outcome) -> ApiError | None:
        """Take the outcome; see ``Call``."""
        if isinstance(outcome, ApiError):
            self.refuse(outcome)
            return outcome
        plan = self.plan
        message = plan.writer.write(outcome)
        plan.served.metrics.outputs_bytes += len(message)
        self.answer(message)
        return None

    def answer(self, message: bytes) -> None:
        """Answer with a ModelInferResponse."""
        self.rpc.answer(message)

    def refuse(self, error: ApiError) -> None:
        """Answer with an error, which ends the call."""
        self.rpc.fail(from_api_error(error))


class _StreamedInference(_Inference):
    """One of several inferences of a call: an error is an answer like any other."""

    __slots__ = ()

    @override
    def answer(self, message: bytes) -> None:
        self.rpc.answer(_ANSWER_IN_STREAM + encode_varint(len(message)) + message)

    @override
    def refuse(self, error: ApiError) -> None:
        reply(self.rpc, pb.ModelStreamInferResponse(error_message=error.message))
