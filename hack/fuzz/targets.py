"""What can be fuzzed."""

from collections.abc import Callable, Mapping

from fuzz.connections import HttpTarget
from fuzz.engine import Target
from fuzz.grpc_connections import ConnectionTarget
from fuzz.grpc_messages import MessageTarget
from fuzz.tensors import BinaryTarget, JsonTarget

TARGETS: Mapping[str, Callable[[], Target]] = {
    "json": JsonTarget,
    "binary": BinaryTarget,
    "http": HttpTarget,
    "grpc-message": MessageTarget,
    "grpc-http2": ConnectionTarget,
}
SHARES: Mapping[str, float] = {
    "json": 0.4,
    "binary": 0.25,
    "http": 0.15,
    "grpc-message": 0.15,
    "grpc-http2": 0.05,
}
"""The share of the inputs that each gets when all are fuzzed: cheap ones get more."""
