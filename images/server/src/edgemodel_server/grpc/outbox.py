"""What a connection sends: frames at once, DATA as the client's windows and the socket take it.

Source: RFC 9113, section 5.2 (flow control). Streams that wait for the connection's window take turns, a
frame each.
"""

from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic

from edgemodel_server.grpc.frame_reader import Allowance
from edgemodel_server.grpc.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    MIN_FRAME_BYTES,
    ConnectionFault,
    ErrorCode,
    StreamFault,
    begin_frame,
)
from edgemodel_server.grpc.stream import Stream

_EARNED_BY_SENDING = 8


class Outbox:
    """The sending half of a connection."""

    def __init__(self, write: Callable[[bytes], None], allowance: Allowance) -> None:
        self.write = write
        self._allowance = allowance
        self.writable = True
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.max_frame_bytes = MIN_FRAME_BYTES
        self._turns: dict[Stream, None] = {}  # an ordered set of the streams that may have something to send

    def send(self, stream: Stream, head: bytes | None, body: bytes, trailers: bytes | None) -> None:
        """Send what belongs to one stream, in one write where nothing stands in the way."""
        self._allowance.earn(_EARNED_BY_SENDING)
        size = len(body)
        room = min(self.window, stream.send_window, self.max_frame_bytes)
        if stream.queue is not None or size > room or not self.writable:
            self._enqueue(stream, head, body, trailers)
            return
        number = stream.id.to_bytes(4, "big")
        pieces: list[bytes] = []
        if head is not None:
            pieces += (begin_frame(HEADERS, END_HEADERS, len(head)), number, head)
        if body:
            pieces += (begin_frame(DATA, 0, size), number, body)
            self.window -= size
            stream.send_window -= size
        if trailers is not None:
            pieces += _make_end(number, trailers)
        self.write(b"".join(pieces))
        if trailers is not None:
            stream.finish()

    def _enqueue(self, stream: Stream, head: bytes | None, body: bytes, trailers: bytes | None) -> None:
        if head is not None:
            self.write(begin_frame(HEADERS, END_HEADERS, len(head)) + stream.id.to_bytes(4, "big") + head)
        if stream.queue is None:
            stream.queue = deque()
            stream.since = monotonic()
        if body:
            stream.queue.append(memoryview(body))
            stream.queued_bytes += len(body)
        stream.trailers = trailers
        self._turns[stream] = None
        self.flush()

    def flush(self) -> None:
        """Send as much of what waits as the windows and the socket take."""
        while self._turns and self.writable:
            stream = next(iter(self._turns))
            queue = stream.queue
            if queue and self.window <= 0:
                return
            del self._turns[stream]
            if queue is None:  # it was reset in the meantime
                continue
            if not queue:
                self._end(stream)
            elif stream.send_window > 0:  # else it comes back with its window
                self._send_frame(stream, queue)

    def _send_frame(self, stream: Stream, queue: deque[memoryview]) -> None:
        """Send one DATA frame of the stream whose turn it is, and put it at the end of the line."""
        chunk = queue.popleft()
        size = min(len(chunk), self.window, stream.send_window, self.max_frame_bytes)
        if size < len(chunk):
            queue.appendleft(chunk[size:])
        self.window -= size
        stream.send_window -= size
        stream.queued_bytes -= size
        stream.since = monotonic()
        self._turns[stream] = None
        self._allowance.earn(_EARNED_BY_SENDING)
        self.write(b"".join((begin_frame(DATA, 0, size), stream.id.to_bytes(4, "big"), chunk[:size])))

    def _end(self, stream: Stream) -> None:
        stream.queue = None
        if stream.trailers is None:
            return
        self.write(b"".join(_make_end(stream.id.to_bytes(4, "big"), stream.trailers)))
        stream.finish()

    # -- the client's windows --------------------------------------------------------------------------------

    def open_connection(self, size: int) -> None:
        """Widen the connection's window."""
        if size == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a WINDOW_UPDATE of 0")
        self.window += size
        if self.window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "the window is larger than 2^31-1")
        self.flush()

    def open_stream(self, stream: Stream, size: int) -> None:
        """Widen a stream's window."""
        if size == 0:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR)
        if stream.send_window + size > MAX_WINDOW:
            raise StreamFault(stream.id, ErrorCode.FLOW_CONTROL_ERROR)
        self._widen(stream, size)
        self.flush()

    def _widen(self, stream: Stream, size: int) -> None:
        stream.send_window += size
        if stream.queue is not None:
            self._turns[stream] = None

    def set_initial_window(self, size: int, streams: Sequence[Stream]) -> None:
        """Take over the client's INITIAL_WINDOW_SIZE, which moves the windows of all open streams, too."""
        change = size - self.initial_window
        self.initial_window = size
        for stream in streams:
            if stream.send_window + change > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window is larger than 2^31-1")
            self._widen(stream, change)
        self.flush()


def _make_end(number: bytes, trailers: bytes) -> tuple[bytes, bytes, bytes]:
    """Return the frame that ends a stream: its trailers, or an empty DATA frame where there are none."""
    if trailers:
        return begin_frame(HEADERS, END_HEADERS | END_STREAM, len(trailers)), number, trailers
    return begin_frame(DATA, END_STREAM, 0), number, b""
