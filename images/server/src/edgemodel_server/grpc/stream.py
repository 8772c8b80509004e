"""One stream of a connection: its state in both directions, and who listens to it."""

from collections import deque
from typing import TYPE_CHECKING, Protocol

from edgemodel_server.override import override

if TYPE_CHECKING:
    from edgemodel_server.grpc.http2 import Http2


class Receiver(Protocol):
    """Whoever a stream's request is for. Its methods must not raise."""

    def take(self, chunk: bytes, *, end: bool) -> None:
        """Take a piece of the body; ``end``: it was the last one."""

    def abandon(self) -> None:
        """Stop: the client, or the connection, is gone, and nothing can be sent any more."""

    def wind_down(self) -> None:
        """Come to an end soon: the server is about to end."""

    def enforce_deadline(self, now: float) -> None:
        """Refuse the request if its client takes too long to send it; ``now`` is a monotonic time."""


class _Nobody(Receiver):
    """Listens to a stream until somebody does."""

    @override
    def take(self, chunk: bytes, *, end: bool) -> None:
        """Do nothing."""

    @override
    def abandon(self) -> None:
        """Do nothing."""

    @override
    def wind_down(self) -> None:
        """Do nothing."""

    @override
    def enforce_deadline(self, now: float) -> None:
        """Do nothing."""


NOBODY = _Nobody()


class Stream:
    """State, windows and what waits to be sent; made by the connection for each request.

    ``receive_window`` is what the client may still send, ``uncredited`` what was received and may be granted
    again. ``queue`` and ``trailers`` wait for the client's windows; ``since`` is when they last got some.
    """

    __slots__ = (
        "_http2", "_outbox", "expected", "id", "local_done", "queue", "queued_bytes", "receive_window",
        "received_bytes", "receiver", "remote_done", "send_window", "since", "trailers", "uncredited",
    )  # fmt: skip

    receiver: Receiver

    def __init__(
        self,
        http2: "Http2",
        stream_id: int,
        windows: tuple[int, int],
        expected: int | None,
        remote_done: bool,
    ) -> None:
        self._http2 = http2
        self._outbox = http2.outbox
        self.id = stream_id
        self.send_window, self.receive_window = windows
        self.expected = expected  # bytes of the body, where the request says so
        self.remote_done = remote_done
        self.local_done = False
        self.received_bytes = 0
        self.uncredited = 0
        self.queue: deque[memoryview] | None = None
        self.queued_bytes = 0
        self.trailers: bytes | None = None
        self.since = 0.0

    def send(self, head: bytes | None, body: bytes, trailers: bytes | None) -> None:
        """Send a header block, a piece of the body, and a last header block; each may be missing.

        With ``trailers``, even empty ones, the answer is complete.
        """
        if not self.local_done:
            self._outbox.send(self, head, body, trailers)

    def credit(self, size: int) -> None:
        """Let the client send ``size`` bytes more: so many were taken."""
        self._http2.credit(self, size)

    def finish(self) -> None:
        """Take note that the answer is sent; for whoever sends it."""
        self._http2.finish(self)
