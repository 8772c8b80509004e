"""The bytes of a connection, cut into frames; header blocks that were sent in pieces are put together.

Source: RFC 9113, sections 3.4 (preface), 4.1 (frame format), 4.3 and 6.10 (header blocks).
"""

from collections.abc import Callable

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.frames import ConnectionFault, ErrorCode

FrameHandler = Callable[[int, int, int, bytes], None]
"""Takes type, flags, stream and payload of a frame."""

ALLOWANCE = 2000
"""How many frames that cost a client less than us it may send in a row, and in a second without work."""


class Allowance:
    """What a client may do that is legal, but leads to nothing: PING, SETTINGS, resets, empty frames …

    Completed work and time give it back; who overdraws it is flooding us, and loses the connection.
    """

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = ALLOWANCE

    def spend(self) -> None:
        """Pay for one frame."""
        self._left -= 1
        if self._left < 0:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many frames that lead to nothing")

    def earn(self, frames_worth: int) -> None:
        """Get something back for work that was done."""
        if self._left < ALLOWANCE:
            self._left += frames_worth

    def refill(self) -> None:
        """Get everything back: a second has gone by."""
        self._left = ALLOWANCE


class FrameReader:
    """Cuts what a client sends into frames.

    A header block always comes as one HEADERS frame without padding, whatever the client made of it.
    """

    def __init__(self, allowance: Allowance, *, max_frame_bytes: int, max_head_bytes: int) -> None:
        self._allowance = allowance
        self._max_frame_bytes = max_frame_bytes
        self._max_head_bytes = max_head_bytes
        self._rest = b""
        self._began = False  # the preface came
        self._stopped = False
        self._block: tuple[int, int, bytearray] | None = None  # a block that goes on: stream, flags, bytes

    @property
    def between_frames(self) -> bool:
        """Whether the next byte begins a frame of any kind."""
        return not self._rest and self._block is None and self._began

    @property
    def amid_block(self) -> bool:
        """Whether the client owes us the rest of a header block."""
        return self._block is not None

    def feed(self, data: bytes, handle: FrameHandler) -> None:
        """Take what the client sent, and have each frame handled; raises ConnectionFault."""
        if self._rest:
            data = self._rest + data
        position = self._skip_preface(data) if not self._began else 0
        last = len(data) - frames.HEADER_BYTES if self._began else -1
        while position <= last and not self._stopped:
            high, low, kind, flags, stream_id = frames.unpack_header(data, position)
            length = high << 16 | low
            if length > self._max_frame_bytes:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a frame is larger than MAX_FRAME_SIZE")
            begin = position + frames.HEADER_BYTES
            if begin + length > len(data):
                break
            position = begin + length
            payload = data[begin:position]
            if self._block is None and (kind != frames.HEADERS or flags & frames.END_HEADERS):
                handle(kind, flags, stream_id & frames.MAX_WINDOW, payload)
            else:
                block = self._read_block(kind, flags, stream_id & frames.MAX_WINDOW, payload)
                if block is not None:
                    handle(frames.HEADERS, *block)
        self._rest = data[position:]

    def stop(self) -> None:
        """Read no more, not even what has been fed."""
        self._stopped = True

    def _skip_preface(self, data: bytes) -> int:
        length = len(frames.PREFACE)
        if data[:length] != frames.PREFACE[: len(data)]:
            message = "this port speaks gRPC: HTTP/2 with prior knowledge, without TLS"
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, message)
        self._began = len(data) >= length
        return length if self._began else 0

    def _read_block(
        self, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> tuple[int, int, bytes] | None:
        """Take a frame that must be a piece of a header block; the last one gives flags, stream, block."""
        self._allowance.spend()
        if self._block is None:
            fragment = frames.strip_padding(flags, payload)
            if flags & frames.HAS_PRIORITY and len(fragment) < frames.PRIORITY_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame ends within its priority")
            self._block = (stream_id, flags & ~frames.PADDED, bytearray(fragment))
            return None
        expected, first_flags, block = self._block
        if kind != frames.CONTINUATION or stream_id != expected:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was not continued")
        block += payload
        if len(block) > self._max_head_bytes:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "the header block is too large")
        if not flags & frames.END_HEADERS:
            return None
        self._block = None
        return first_flags | frames.END_HEADERS, stream_id, bytes(block)


def split_call(data: bytes) -> tuple[int, bytes, bytes] | None:
    """Return stream, header block and body if ``data`` is exactly one request in the plainest form.

    That is a HEADERS frame with a whole block, without padding and priority, and a DATA frame that ends the
    request, without padding.
    """
    begin, size = frames.HEADER_BYTES, len(data)
    if size < 2 * begin:
        return None
    high, low, kind, flags, stream_id = frames.unpack_header(data)
    middle = begin + (high << 16 | low)
    if kind != frames.HEADERS or flags != frames.END_HEADERS or middle + begin > size:
        return None
    high, low, kind, flags, same_id = frames.unpack_header(data, middle)
    end = middle + begin + (high << 16 | low)
    if kind != frames.DATA or flags != frames.END_STREAM or same_id != stream_id or end != size:
        return None
    return stream_id, data[begin:middle], data[middle + begin :]
