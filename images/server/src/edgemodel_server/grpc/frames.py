"""HTTP/2 frames: numbers, building, and the two ways in which a peer can be wrong.

Source: RFC 9113, sections 4 (frames), 6 (frame definitions) and 7 (error codes).
"""

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from struct import Struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MAX_WINDOW = 2**31 - 1
DEFAULT_WINDOW = 65535
MIN_FRAME_BYTES = 1 << 14
MAX_FRAME_BYTES = (1 << 24) - 1
PRIORITY_BYTES = 5

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    range(10)
)

END_STREAM = ACK = 0x01
END_HEADERS = 0x04
PADDED = 0x08
HAS_PRIORITY = 0x20

unpack_header = Struct(">BHBBI").unpack_from
"""Reads the length in two pieces (its high byte, then the rest), type, flags, and the stream."""

_LENGTH_TYPE_FLAGS = Struct(">BHBB")
_SETTING = Struct(">HI")


class Setting(IntEnum):
    """The settings of RFC 9113, section 6.5.2."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """The error codes of RFC 9113, section 7."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class ConnectionFault(Exception):  # noqa: N818 - "connection error" is a term of the RFC with another meaning here
    """The peer broke the connection as a whole: it is told why and cut off."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamFault(Exception):  # noqa: N818 - as above
    """The peer broke one stream: it is reset, the others go on."""

    def __init__(self, stream_id: int, code: ErrorCode) -> None:
        super().__init__(f"stream {stream_id}: {code.name}")
        self.stream_id = stream_id
        self.code = code


@lru_cache(maxsize=1024)  # servers repeat themselves
def begin_frame(kind: int, flags: int, length: int) -> bytes:
    """Return the first five bytes of a frame: the stream's number and the payload follow."""
    return _LENGTH_TYPE_FLAGS.pack(length >> 16, length & 0xFFFF, kind, flags)


def make_frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return begin_frame(kind, flags, len(payload)) + stream_id.to_bytes(4, "big") + payload


def make_settings(values: Mapping[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return make_frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*item) for item in values.items()))


def make_window_update(stream_id: int, size: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return make_frame(WINDOW_UPDATE, 0, stream_id, size.to_bytes(4, "big"))


def make_reset(stream_id: int, code: ErrorCode) -> bytes:
    """Return a RST_STREAM frame."""
    return make_frame(RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def make_goaway(last_stream_id: int, code: ErrorCode, message: str = "") -> bytes:
    """Return a GOAWAY frame; ``message`` is for whoever debugs the peer."""
    payload = last_stream_id.to_bytes(4, "big") + code.to_bytes(4, "big") + message.encode()
    return make_frame(GOAWAY, 0, 0, payload)


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return the settings in a frame's payload, in its order, each checked by itself."""
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS takes six bytes per setting")
    values = list(_SETTING.iter_unpack(payload))
    for key, value in values:
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1")
        if key == Setting.INITIAL_WINDOW_SIZE and value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "INITIAL_WINDOW_SIZE is at most 2^31-1")
        if key == Setting.MAX_FRAME_SIZE and not MIN_FRAME_BYTES <= value <= MAX_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "MAX_FRAME_SIZE is 2^14 to 2^24-1")
    return values


def strip_padding(flags: int, payload: bytes) -> bytes:
    """Return the payload of a DATA or HEADERS frame without its padding."""
    if not flags & PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a padded frame has at least one byte")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the padding is longer than the frame")
    return payload[1:end]


def strip_priority(flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return the header block fragment of a HEADERS frame; the priority, which nobody follows, is checked."""
    if not flags & HAS_PRIORITY:
        return payload
    if len(payload) < PRIORITY_BYTES:
        raise ConnectionFault(
            ErrorCode.FRAME_SIZE_ERROR, "a HEADERS frame with priority has at least five bytes"
        )
    check_dependency(stream_id, payload)
    return payload[PRIORITY_BYTES:]


def check_dependency(stream_id: int, payload: bytes) -> None:
    """Refuse a stream that depends on itself."""
    if int.from_bytes(payload[:4], "big") & MAX_WINDOW == stream_id:
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR)
