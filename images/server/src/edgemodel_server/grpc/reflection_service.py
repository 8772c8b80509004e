"""``ServerReflection``, v1 and v1alpha: tools such as ``grpcurl`` ask it for the services and their messages.

Source: the server reflection protocol of gRPC. Both versions have the same messages under different names.
"""

from collections.abc import Sequence
from typing import TypeAlias

from google.protobuf.descriptor import FileDescriptor

from edgemodel_server.grpc.protobuf import parse, reply
from edgemodel_server.grpc.protos import health_pb2, inference_pb2
from edgemodel_server.grpc.protos import reflection_v1_pb2 as v1
from edgemodel_server.grpc.protos import reflection_v1alpha_pb2 as v1alpha
from edgemodel_server.grpc.rpc import Method, Rpc
from edgemodel_server.grpc.status import Code

_FILES: Sequence[FileDescriptor] = (
    inference_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, v1.DESCRIPTOR, v1alpha.DESCRIPTOR,
)  # fmt: skip

_Request: TypeAlias = "type[v1.ServerReflectionRequest] | type[v1alpha.ServerReflectionRequest]"


class ReflectionService:
    """The methods of both versions."""

    def __init__(self) -> None:
        self._services = sorted(name for file in _FILES for name in _service_names(file))
        self._by_symbol = {symbol: file for file in _FILES for symbol in _symbols(file)}
        self._by_name = {file.name: file for file in _FILES}

    def methods(self) -> list[Method]:
        """Return what the services can do."""
        return [
            Method(
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", self._answer_v1, streaming=True
            ),
            Method(
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                self._answer_v1alpha,
                streaming=True,
            ),
        ]

    def _answer_v1(self, rpc: Rpc, message: bytes) -> None:
        request = parse(v1.ServerReflectionRequest, message)
        answer = v1.ServerReflectionResponse(valid_host=request.host, original_request=request)
        self._fill(request, answer)
        reply(rpc, answer)

    def _answer_v1alpha(self, rpc: Rpc, message: bytes) -> None:
        request = parse(v1alpha.ServerReflectionRequest, message)
        answer = v1alpha.ServerReflectionResponse(valid_host=request.host, original_request=request)
        self._fill(request, answer)
        reply(rpc, answer)

    def _fill(
        self,
        request: v1.ServerReflectionRequest | v1alpha.ServerReflectionRequest,
        answer: v1.ServerReflectionResponse | v1alpha.ServerReflectionResponse,
    ) -> None:
        """Write what was asked for into an answer."""
        wanted = request.WhichOneof("message_request")
        if wanted == "list_services":
            for name in self._services:
                answer.list_services_response.service.add(name=name)
            return
        file = None
        if wanted == "file_by_filename":
            file = self._by_name.get(request.file_by_filename)
        elif wanted == "file_containing_symbol":
            file = self._by_symbol.get(request.file_containing_symbol)
        if file is not None:
            answer.file_descriptor_response.file_descriptor_proto.append(file.serialized_pb)
        else:
            answer.error_response.error_code = Code.NOT_FOUND
            answer.error_response.error_message = "there is no such file, symbol or extension"


def _service_names(file: FileDescriptor) -> list[str]:
    return [service.full_name for service in file.services_by_name.values()]


def _symbols(file: FileDescriptor) -> list[str]:
    """Return the full names of everything that a file defines and a client may ask for."""
    messages = list(file.message_types_by_name.values())
    for message in messages:  # grows while it is read: nested messages are messages, too
        messages += message.nested_types
    enums = [enum for message in messages for enum in message.enum_types]
    methods = [method.full_name for service in file.services_by_name.values() for method in service.methods]
    return [*_service_names(file), *methods, *(message.full_name for message in messages),
            *(enum.full_name for enum in enums)]  # fmt: skip
