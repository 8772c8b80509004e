"""Protobuf messages in and out of a call."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from edgemodel_server.grpc.rpc import Rpc
from edgemodel_server.grpc.status import Code, RpcError

_Message = TypeVar("_Message", bound=Message)


def parse(kind: type[_Message], message: bytes) -> _Message:
    """Return a message of ``kind``; raises RpcError."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise RpcError(Code.INVALID_ARGUMENT, f"the message is no {kind.DESCRIPTOR.name}: {error}") from None


def reply(rpc: Rpc, message: Message) -> None:
    """Answer the present message of a call."""
    rpc.answer(message.SerializeToString())
