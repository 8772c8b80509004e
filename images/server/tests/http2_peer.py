"""The client's end of HTTP/2 without a socket: says exactly the frames that a test wants to say."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from edgemodel_server.grpc import frames
from edgemodel_server.grpc.header_block import Head
from edgemodel_server.grpc.http2 import Http2
from edgemodel_server.grpc.http2_limits import Http2Limits
from edgemodel_server.grpc.stream import Stream

REQUEST = (
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/package.Service/Method"),
    (":authority", "edge"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
)
NAMES = {
    number: name
    for name in ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PING", "GOAWAY", "WINDOW_UPDATE")
    if isinstance(number := getattr(frames, name), int)
}


class Frame(NamedTuple):
    kind: str
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> frames.ErrorCode:
        """The error code of a RST_STREAM or a GOAWAY."""
        return frames.ErrorCode(int.from_bytes(self.payload[4 if self.kind == "GOAWAY" else 0 :][:4], "big"))

    @property
    def ends(self) -> bool:
        return bool(self.flags & frames.END_STREAM)


def cut_frames(data: bytes) -> list[Frame]:
    found = []
    while data:
        end = 9 + int.from_bytes(data[:3], "big")
        assert len(data) >= end, "the server wrote half a frame"
        found.append(Frame(NAMES[data[3]], data[4], int.from_bytes(data[5:9], "big"), data[9:end]))
        data = data[end:]
    return found


class Recorder:
    """A receiver that keeps what it is given."""

    def __init__(self, stream: Stream, head: Head) -> None:
        self.stream = stream
        self.head = head
        self.body = b""
        self.complete = False
        self.abandoned = False

    def take(self, chunk: bytes, *, end: bool) -> None:
        assert not self.complete
        assert not self.abandoned
        self.body += chunk
        self.complete = end

    def abandon(self) -> None:
        assert not self.abandoned
        self.abandoned = True

    def wind_down(self) -> None:
        pass

    def enforce_deadline(self, now: float) -> None:
        pass


class Peer:
    """A client on top of a server's state machine; ``requests`` are what the server made of its streams."""

    def __init__(self, *, greet: bool = True, **limits: Any) -> None:
        self._written: list[bytes] = []
        self.requests: dict[int, Recorder] = {}
        self.http2 = Http2(self._written.append, self._accept, Http2Limits(**limits))
        self.encoder = Encoder()
        self.decoder = Decoder()
        if greet:
            self.say(frames.PREFACE + frames.make_settings({}))
            assert [frame.kind for frame in self.heard()] == ["SETTINGS", "WINDOW_UPDATE", "SETTINGS"]

    def _accept(self, stream: Stream, head: Head) -> Recorder:
        self.requests[stream.id] = Recorder(stream, head)
        return self.requests[stream.id]

    def say(self, data: bytes) -> "Peer":
        self.http2.receive(data)
        return self

    def frame(self, kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> "Peer":
        return self.say(frames.make_frame(kind, flags, stream, payload))

    def ask(
        self,
        stream: int,
        fields: Iterable[tuple[str, str]] = REQUEST,
        *,
        end: bool = False,
        huffman: bool = True,
    ) -> "Peer":
        """Send the HEADERS of a request."""
        block = self.encoder.encode(list(fields), huffman=huffman)
        return self.frame(
            frames.HEADERS, frames.END_HEADERS | (frames.END_STREAM if end else 0), stream, block
        )

    def data(self, stream: int, payload: bytes, *, end: bool = False) -> "Peer":
        return self.frame(frames.DATA, frames.END_STREAM if end else 0, stream, payload)

    def window(self, stream: int, size: int) -> "Peer":
        return self.say(frames.make_window_update(stream, size))

    def settings(self, **values: int) -> "Peer":
        return self.say(frames.make_settings({frames.Setting[name]: value for name, value in values.items()}))

    def heard(self) -> list[Frame]:
        """Return what the server wrote since the last call."""
        written = b"".join(self._written)
        self._written.clear()
        return cut_frames(written)

    def heard_only(self) -> Frame:
        (frame,) = self.heard()
        return frame

    def fields(self, frame: Frame) -> list[tuple[str, str]]:
        return [(str(name), str(value)) for name, value in self.decoder.decode(frame.payload)]


def body_of(heard: Sequence[Frame], stream: int) -> bytes:
    return b"".join(frame.payload for frame in heard if frame.kind == "DATA" and frame.stream == stream)
