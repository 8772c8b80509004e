"""The state machine of one HTTP/2 connection: bytes in, bytes out, no socket, no clock.

Source: RFC 9113; the server's end, with prior knowledge and without push. What a client does wrong ends its
stream (RST_STREAM) or the connection (GOAWAY).
"""

from collections import deque
from collections.abc import Callable
from typing import ClassVar

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.frame_reader import Allowance, FrameReader, split_call
from edgemodel_server.grpc.frames import ConnectionFault, ErrorCode, Setting, StreamFault
from edgemodel_server.grpc.header_block import Head, HeadReader, MalformedHeadError
from edgemodel_server.grpc.http2_limits import Http2Limits
from edgemodel_server.grpc.outbox import Outbox
from edgemodel_server.grpc.stream import NOBODY, Receiver, Stream

_SMALL_DATA_BYTES = 64
_PAST_STREAMS = 256


class Http2:
    """One connection. ``write`` takes what is to be sent, ``accept`` the head of each request.

    Neither may raise. After ``ended`` nothing is read any more; ``write`` was given what is left to say.
    """

    def __init__(
        self, write: Callable[[bytes], None], accept: Callable[[Stream, Head], Receiver], limits: Http2Limits
    ) -> None:
        self._accept = accept
        self._limits = limits
        self.allowance = Allowance()
        self.reader = FrameReader(
            self.allowance, max_frame_bytes=limits.max_frame_bytes, max_head_bytes=limits.max_head_bytes
        )
        self._heads = HeadReader(limits.max_head_bytes)
        self.outbox = Outbox(write, self.allowance)
        self.streams: dict[int, Stream] = {}
        self.ended = False
        self.settled = False  # the client's first SETTINGS came
        self.going_away = False  # either side will begin no more streams
        self.pings_answered = 0
        self._last_id = 0
        self._refuse_above = frames.MAX_WINDOW
        self._closed: deque[int] = deque(maxlen=_PAST_STREAMS)
        self._cut: deque[int] = deque(maxlen=_PAST_STREAMS)  # reset by us: the client may not know yet
        self._window = limits.connection_window
        self._uncredited = 0
        more = limits.connection_window - frames.DEFAULT_WINDOW
        write(frames.make_settings(limits.settings()) + frames.make_window_update(0, more))

    # -- receiving -------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take what the client sent; never raises."""
        if self.ended:
            return
        try:
            if not self._receive_call(data):
                self.reader.feed(data, self._on_frame)
        except ConnectionFault as fault:
            self.end(fault.code, str(fault))

    def _receive_call(self, data: bytes) -> bool:
        """Take a new request that is all there is to read and whose head is known by its bytes.

        That is how nearly every call of a busy client comes. False, and nothing is done, where there is
        anything else about it.
        """
        parts = split_call(data) if self.reader.between_frames and self.settled else None
        if parts is None:
            return False
        stream_id, block, body = parts
        size = len(body)
        head = self._heads.recall(block)
        if head is None or not self._has_room(stream_id, size, head.content_length):
            return False
        self._last_id = stream_id
        self._window -= size
        self._uncredited += size
        stream = self._open(stream_id, head, end=False)
        if not stream.local_done:
            stream.received_bytes = size
            stream.remote_done = True
            stream.receiver.take(body, end=True)
        return True

    def _has_room(self, stream_id: int, body: int, expected: int | None) -> bool:
        """Say whether a whole request fits as it is: no limit is reached, no window has to be opened."""
        limits = self._limits
        return (
            self._last_id < stream_id <= self._refuse_above
            and stream_id & 1 == 1
            and (expected is None or expected == body)
            and len(self.streams) < limits.max_streams
            and body <= limits.max_frame_bytes
            and body <= limits.stream_window
            and self._uncredited + body < limits.connection_window >> 1
        )

    def _on_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self.settled and kind != frames.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame must be SETTINGS")
        if kind == frames.CONTINUATION:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "there is no header block to continue")
        if kind > frames.CONTINUATION:  # unknown: to be ignored
            self.allowance.spend()
            return
        try:
            self._HANDLERS[kind](self, flags, stream_id, payload)
        except StreamFault as fault:
            self.allowance.spend()
            stream = self.streams.get(fault.stream_id)
            if stream is None:
                self.outbox.write(frames.make_reset(fault.stream_id, fault.code))
            else:
                self.cut(stream, fault.code)

    # -- requests --------------------------------------------------------------------------------------------

    def _on_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client's streams have odd numbers")
        block = frames.strip_padding(flags, payload) if flags & frames.PADDED else payload
        if flags & frames.HAS_PRIORITY:
            block = frames.strip_priority(flags, stream_id, block)
        self._on_block(stream_id, flags, block)

    def _on_block(self, stream_id: int, flags: int, block: bytes) -> None:
        """Begin a stream, or end the request of one, with a complete header block."""
        end = bool(flags & frames.END_STREAM)
        stream = self.streams.get(stream_id)
        if stream is None and stream_id <= self._last_id:
            self._heads.skip(block)
            self._refuse_old(stream_id)
            return
        try:
            head = self._heads.read(block, trailers=stream is not None)
        except MalformedHeadError:
            if stream is None:
                self._last_id = stream_id
                self._cut.append(stream_id)
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR) from None
        if stream is None:
            self._begin(stream_id, head, end=end)
        else:
            self._end_by_trailers(stream, end=end)

    def _end_by_trailers(self, stream: Stream, *, end: bool) -> None:
        if stream.remote_done:
            raise StreamFault(stream.id, ErrorCode.STREAM_CLOSED)
        if not end:
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR)
        self._take(stream, b"", end=True)

    def _refuse_old(self, stream_id: int) -> None:
        """React to a header block for a stream that has been closed."""
        if stream_id in self._cut:
            return
        if stream_id in self._closed:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {stream_id} is closed")
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} is older than the last one")

    def _begin(self, stream_id: int, head: Head, *, end: bool) -> None:
        self._last_id = stream_id
        if stream_id > self._refuse_above or len(self.streams) >= self._limits.max_streams:
            self._cut.append(stream_id)
            raise StreamFault(stream_id, ErrorCode.REFUSED_STREAM)
        stream = self._open(stream_id, head, end=end)
        if end and not stream.local_done:
            self._take(stream, b"", end=True)

    def _open(self, stream_id: int, head: Head, *, end: bool) -> Stream:
        windows = (self.outbox.initial_window, self._limits.stream_window)
        stream = Stream(self, stream_id, windows, head.content_length, end)
        self.streams[stream_id] = stream
        stream.receiver = NOBODY
        receiver = self._accept(stream, head)
        if not stream.local_done:
            stream.receiver = receiver
        return stream

    def _on_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._window -= size
        if self._window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more DATA than the connection's window")
        self._uncredited += size
        if self._uncredited >= self._limits.connection_window >> 1:
            self._window += self._uncredited
            self.outbox.write(frames.make_window_update(0, self._uncredited))
            self._uncredited = 0
        stream = self.streams.get(stream_id)
        if stream is None or stream.remote_done:
            self._refuse_data(stream_id)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR)
        chunk = frames.strip_padding(flags, payload) if flags & frames.PADDED else payload
        end = bool(flags & frames.END_STREAM)
        if not end and size < _SMALL_DATA_BYTES:
            self.allowance.spend()
        self._take(stream, chunk, end=end)
        if size > len(chunk):
            self.credit(stream, size - len(chunk))

    def _take(self, stream: Stream, chunk: bytes, *, end: bool) -> None:
        """Give a piece of the body to the receiver, once it is known to be what the head promised."""
        stream.received_bytes += len(chunk)
        expected = stream.expected
        if expected is not None and (
            stream.received_bytes != expected if end else stream.received_bytes > expected
        ):
            raise StreamFault(stream.id, ErrorCode.PROTOCOL_ERROR)
        stream.remote_done = end
        stream.receiver.take(chunk, end=end)

    def _refuse_data(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id > self._last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"DATA for the idle stream {stream_id}")
        if stream_id not in self._cut:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED)

    def credit(self, stream: Stream, size: int) -> None:
        """Let the client send more on a stream, unless it has ended its request."""
        stream.uncredited += size
        if stream.remote_done or stream.id not in self.streams:
            return
        if stream.uncredited >= self._limits.stream_window >> 1:
            stream.receive_window += stream.uncredited
            self.outbox.write(frames.make_window_update(stream.id, stream.uncredited))
            stream.uncredited = 0

    # -- everything else that a client may send --------------------------------------------------------------

    def _on_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY needs a stream")
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR)
        frames.check_dependency(stream_id, payload)

    def _on_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM takes four bytes")
        self._require_known(stream_id, "RST_STREAM")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self._forget(stream).abandon()

    def _on_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS belongs to no stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS is empty")
            return
        values = frames.parse_settings(payload)
        self.settled = True
        self.outbox.write(frames.make_frame(frames.SETTINGS, frames.ACK, 0))
        for key, value in values:
            if key == Setting.MAX_FRAME_SIZE:
                self.outbox.max_frame_bytes = value
            elif key == Setting.INITIAL_WINDOW_SIZE:
                self.outbox.set_initial_window(value, tuple(self.streams.values()))

    def _on_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a client must not push")

    def _on_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING belongs to no stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING takes eight bytes")
        if flags & frames.ACK:
            self.pings_answered += 1
            self._go_away_finally()
        else:
            self.outbox.write(frames.make_frame(frames.PING, frames.ACK, 0, payload))

    def _on_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if stream_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY belongs to no stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY takes at least eight bytes")
        self.going_away = True
        self._refuse_above = min(self._refuse_above, self._last_id)

    def _on_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.allowance.spend()
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE takes four bytes")
        size = int.from_bytes(payload, "big") & frames.MAX_WINDOW
        if stream_id == 0:
            self.outbox.open_connection(size)
            return
        self._require_known(stream_id, "WINDOW_UPDATE")
        stream = self.streams.get(stream_id)
        if stream is not None:
            self.outbox.open_stream(stream, size)

    def _require_known(self, stream_id: int, what: str) -> None:
        if stream_id == 0 or stream_id > self._last_id:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"{what} for the idle stream {stream_id}")

    # -- sending and ending ----------------------------------------------------------------------------------

    def finish(self, stream: Stream) -> None:
        """Close a stream whose answer is sent; if its request still goes on, say that nobody listens."""
        stream.local_done = True
        if stream.remote_done:
            self._forget(stream)
        else:
            self.reset(stream, ErrorCode.NO_ERROR)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once."""
        if stream.id in self.streams and not self.ended:
            self._forget(stream)
            self._cut.append(stream.id)
            self.outbox.write(frames.make_reset(stream.id, code))

    def cut(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once, and tell its receiver."""
        receiver = stream.receiver
        self.reset(stream, code)
        receiver.abandon()

    def _forget(self, stream: Stream) -> Receiver:
        """Close a stream and return its receiver; both let go of each other, for nobody looks for cycles."""
        receiver = stream.receiver
        del stream.receiver, self.streams[stream.id]
        stream.local_done = True
        stream.queue = None
        stream.queued_bytes = 0
        self._closed.append(stream.id)
        return receiver

    def ping(self) -> None:
        """Ask whether the client is still there; the answer counts in ``pings_answered``."""
        self.outbox.write(frames.make_frame(frames.PING, 0, 0, b"edgemodl"))

    def go_away(self) -> None:
        """Ask the client to begin no more streams here.

        The first GOAWAY names no stream; the second one, when the client has answered the PING behind the
        first, names the last stream that is served. So no request is lost on the way.
        """
        if not self.going_away and not self.ended:
            self.going_away = True
            self.outbox.write(frames.make_goaway(frames.MAX_WINDOW, ErrorCode.NO_ERROR))
            self.ping()

    def _go_away_finally(self) -> None:
        if self.going_away and self._refuse_above == frames.MAX_WINDOW:
            self._refuse_above = self._last_id
            self.outbox.write(frames.make_goaway(self._last_id, ErrorCode.NO_ERROR))

    @property
    def idle_and_gone(self) -> bool:
        """Whether nothing is under way and nothing will be."""
        return self.going_away and self._refuse_above != frames.MAX_WINDOW and not self.streams

    def end(self, code: ErrorCode = ErrorCode.NO_ERROR, message: str = "") -> None:
        """End the connection: say why, and drop every stream."""
        if self.ended:
            return
        self.outbox.write(frames.make_goaway(self._last_id, code, message))
        self.abandon()

    def abandon(self) -> None:
        """Drop every stream: the connection is gone."""
        self.ended = True
        self.reader.stop()
        for stream in tuple(self.streams.values()):
            self._forget(stream).abandon()

    _HANDLERS: ClassVar[tuple[Callable[["Http2", int, int, bytes], None], ...]] = (
        _on_data, _on_headers, _on_priority, _on_reset, _on_settings, _on_push, _on_ping, _on_goaway,
        _on_window_update,
    )  # fmt: skip
    """By the type of frame; functions, for bound methods would be a cycle of each connection with itself."""
