"""Status codes, their words in trailers, and time-outs as gRPC writes them.

Source: "gRPC over HTTP2" (PROTOCOL-HTTP2) and the list of status codes of gRPC.
"""

import re
from enum import IntEnum

from edgemodel_server.errors import ApiError
from edgemodel_server.grpc.header_block import encode_fields


class Code(IntEnum):
    """The status codes of gRPC that this server uses."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class RpcError(Exception):
    """A call that ends with a status other than OK; ``message`` is for a person."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


_CODES = {
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    413: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    503: Code.UNAVAILABLE,
    504: Code.DEADLINE_EXCEEDED,
}


def from_api_error(error: ApiError) -> RpcError:
    """Return the status of a call for what REST would answer."""
    return RpcError(_CODES.get(error.status, Code.UNKNOWN), error.message)


HEAD = encode_fields([(b":status", b"200"), (b"content-type", b"application/grpc")])
"""The header block before the first message of every answer."""

OK_TRAILERS = encode_fields([(b"grpc-status", b"0")])


def make_trailers(code: Code, message: str, *, alone: bool) -> bytes:
    """Return the last header block of a call; ``alone``: there was none before it."""
    fields = [(b":status", b"200"), (b"content-type", b"application/grpc")] if alone else []
    fields.append((b"grpc-status", str(code.value).encode()))
    if message:
        fields.append((b"grpc-message", _encode_message(message)))
    if code is Code.UNIMPLEMENTED:
        fields.append((b"grpc-accept-encoding", b"identity"))
    return encode_fields(fields)


_MAX_MESSAGE_BYTES = 4096


def _encode_message(message: str) -> bytes:
    """Return a message with everything but printable ASCII, and the percent sign, as %XX."""
    text = message.encode()[:_MAX_MESSAGE_BYTES]
    return re.sub(rb"[^ -$&-~]", lambda match: b"%%%02X" % match[0][0], text)


_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNIT_SECONDS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


def parse_timeout(text: bytes) -> float:
    """Return the seconds in a ``grpc-timeout``."""
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise RpcError(
            Code.INVALID_ARGUMENT, "grpc-timeout must be up to eight digits and one of the units H M S m u n"
        )
    return int(match[1]) * _UNIT_SECONDS[match[2]]
