"""Which method a request is for; what is not of gRPC at all is refused here, in HTTP's own words."""

from collections.abc import Sequence
from time import monotonic

from edgemodel_server.grpc.header_block import Head, encode_fields
from edgemodel_server.grpc.rpc import Client, Desk, Method, Rpc
from edgemodel_server.grpc.status import Code, RpcError
from edgemodel_server.grpc.stream import Receiver, Stream
from edgemodel_server.http.messages import Limits
from edgemodel_server.override import override


class Switchboard:
    """Begins calls; lives on the loop's thread."""

    def __init__(self, methods: Sequence[Method], desk: Desk) -> None:
        self._methods = {method.path.encode(): method for method in methods}
        self._desk = desk
        desk.ended = {method.path: [0] * (max(Code) + 1) for method in (*methods, _UNKNOWN)}

    def accept(self, stream: Stream, head: Head, client: Client) -> Receiver:
        """Begin the call that a request's head asks for."""
        if isinstance(head.route, Method):  # it came before, and there is nothing special about it
            return Rpc(self._desk, stream, head.route, head, client)
        refusal = _refuse_http(head)
        if refusal is not None:
            return _Refusal(stream, *refusal, self._desk.limits)
        method = self._methods.get(head.path)
        rpc = Rpc(self._desk, stream, method or _UNKNOWN, head, client)
        if method is None:
            name = head.path.decode("latin-1")
            rpc.fail(RpcError(Code.UNIMPLEMENTED, f"there is no method {name}"))
            return rpc
        timeout = head.fields.get(b"grpc-timeout")
        if timeout is None:
            head.route = method
        else:
            rpc.limit_time(timeout)
        return rpc


def _refuse_http(head: Head) -> tuple[bytes, bytes] | None:
    """Return status and sentence for a request that is not of gRPC at all."""
    if head.method != b"POST":
        return b"405", b"this port speaks gRPC: REST is on the other one (--http-port)\n"
    kind = head.fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind not in (b"application/grpc", b"application/grpc+proto"):
        return b"415", b"this port speaks gRPC: the content-type must be application/grpc\n"
    return None


def _encode_http_head(status: bytes, length: int) -> bytes:
    return encode_fields(
        [
            (b":status", status),
            (b"content-type", b"text/plain"),
            (b"allow", b"POST"),
            (b"content-length", str(length).encode()),
        ]
    )


class _Refusal(Receiver):
    """Answers what is not of gRPC at all, once it has arrived: until then it may turn out to be malformed."""

    def __init__(self, stream: Stream, status: bytes, sentence: bytes, limits: Limits) -> None:
        self._stream = stream
        self._status = status
        self._sentence = sentence
        self._end = monotonic() + limits.head_seconds

    @override
    def take(self, chunk: bytes, *, end: bool) -> None:
        """Drop the body."""
        self._stream.credit(len(chunk))
        if end:
            self._answer()

    def _answer(self) -> None:
        head = _encode_http_head(self._status, len(self._sentence))
        self._stream.send(head, self._sentence, b"")

    @override
    def abandon(self) -> None:
        """Do nothing."""

    @override
    def wind_down(self) -> None:
        """Do nothing."""

    @override
    def enforce_deadline(self, now: float) -> None:
        """Answer without waiting for the end of the body any longer."""
        if now > self._end:
            self._answer()


def _handle_nothing(rpc: "Rpc", message: bytes) -> None:
    """Be the handler of a method that is not there."""


_UNKNOWN = Method("unknown", _handle_nothing)
