"""``grpc.health.v1.Health``: readiness, as gRPC's own tools and Kubernetes' gRPC probes ask for it.

Source: the health checking protocol of gRPC. The names that can be asked for: "" and the inference service
for the server as a whole, and the name of each model.
"""

from edgemodel_server.app import App
from edgemodel_server.grpc.inference_service import SERVICE as INFERENCE
from edgemodel_server.grpc.protobuf import parse, reply
from edgemodel_server.grpc.protos.health_pb2 import HealthCheckRequest, HealthCheckResponse
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.grpc.status import Code, RpcError

SERVICE = "grpc.health.v1.Health"

_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN


class HealthService:
    """The methods of the service; lives on the loop's thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._models = {model.name: model for model in app.models}
        self._watchers: dict[Rpc, tuple[str, int]] = {}  # what each asked for, and was told last

    def methods(self) -> list[Method]:
        """Return what the service can do."""
        return [Method(f"/{SERVICE}/Check", self._check), Method(f"/{SERVICE}/Watch", self._watch)]

    def tell_watchers(self) -> None:
        """Tell those that watch what has changed for them."""
        for rpc, (service, told) in tuple(self._watchers.items()):
            status = self._look_up(service)
            if status != told:
                self._tell(rpc, service, status)

    def end_watches(self) -> None:
        """End every watch: the server is about to end, and nobody should wait for that."""
        watchers, self._watchers = tuple(self._watchers), {}
        for rpc in watchers:
            rpc.fail(RpcError(Code.UNAVAILABLE, "the server was told to stop"))

    def _check(self, rpc: Rpc, message: bytes) -> None:
        service = parse(HealthCheckRequest, message).service
        status = self._look_up(service)
        if status == _UNKNOWN:
            raise RpcError(Code.NOT_FOUND, f'there is no service and no model "{service}"')
        reply(rpc, HealthCheckResponse(status=status))

    def _watch(self, rpc: Rpc, message: bytes) -> None:
        service = parse(HealthCheckRequest, message).service
        rpc.on_abandon = lambda: self._forget(rpc)
        self._tell(rpc, service, self._look_up(service))

    def _tell(self, rpc: Rpc, service: str, status: HealthCheckResponse.ServingStatus) -> None:
        self._watchers[rpc] = (service, status)
        rpc.send(HealthCheckResponse(status=status).SerializeToString())

    def _forget(self, rpc: Rpc) -> None:
        self._watchers.pop(rpc, None)

    def _look_up(self, service: str) -> HealthCheckResponse.ServingStatus:
        if service in ("", INFERENCE):
            serving = not self._app.reasons()
        elif service in self._models:
            serving = self._models[service].ready and not self._app.draining
        else:
            return _UNKNOWN
        return HealthCheckResponse.SERVING if serving else HealthCheckResponse.NOT_SERVING
