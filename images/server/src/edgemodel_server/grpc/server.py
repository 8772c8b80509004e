"""The gRPC port of a server: services, connections, numbers. Imported only where one is wanted."""

import asyncio

from edgemodel_server.access_log import AccessLog
from edgemodel_server.app import App
from edgemodel_server.exposition import Page
from edgemodel_server.grpc.connection import Connection
from edgemodel_server.grpc.endpoint import Endpoint
from edgemodel_server.grpc.health_service import HealthService
from edgemodel_server.grpc.inference_service import InferenceService
from edgemodel_server.grpc.reflection_service import ReflectionService
from edgemodel_server.grpc.status import Code
from edgemodel_server.http.messages import Limits


class GrpcServer:
    """Everything behind the gRPC port; lives on the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, app: App, limits: Limits, access_log: AccessLog | None
    ) -> None:
        self._health = HealthService(app)
        services = (InferenceService(app), self._health, ReflectionService())
        methods = [method for service in services for method in service.methods()]
        self._endpoint = Endpoint(loop, methods, limits, self._health.tell_watchers)
        self._endpoint.desk.access_log = access_log
        app.add_metrics(self._add_metrics)

    def accept(self) -> Connection:
        """Return the protocol of a new connection."""
        return Connection(self._endpoint)

    def start_sweeping(self) -> None:
        """Look after slow clients, and after those that watch the health, from now on."""
        self._endpoint.start_sweeping()

    def announce_end(self) -> None:
        """Tell those that watch the health that the server is not ready any more."""
        self._health.tell_watchers()

    async def finish(self, seconds: float) -> int:
        """Send the clients away, finish what is under way, and return how many connections had to be cut."""
        self._health.end_watches()
        cut = await self._endpoint.finish(seconds)
        self._endpoint.stop_sweeping()
        return cut

    def _add_metrics(self, page: Page) -> None:
        desk = self._endpoint.desk
        page.add("edgemodel_server_grpc_calls_total", "counter", "Calls by method and status.",
                 [({"method": path.strip("/"), "code": code.name}, counts[code])
                  for path, counts in desk.ended.items() for code in Code])  # fmt: skip
        page.add("edgemodel_server_grpc_connections", "gauge", "Open gRPC connections.",
                 [({}, len(self._endpoint.connections))])  # fmt: skip
