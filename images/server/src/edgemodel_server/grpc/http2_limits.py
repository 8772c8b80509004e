"""What one HTTP/2 connection may cost; a client is told in SETTINGS."""

from collections.abc import Mapping
from dataclasses import dataclass

from edgemodel_server.grpc.frames import Setting


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """What a client is told in SETTINGS. Bytes, but for the number of streams."""

    max_streams: int = 128
    max_head_bytes: int = 16 << 10
    max_frame_bytes: int = 64 << 10
    stream_window: int = 1 << 20
    connection_window: int = 4 << 20

    def settings(self) -> Mapping[Setting, int]:
        """Return the settings that say so; the connection's window has none, it is opened by a frame."""
        return {
            Setting.MAX_CONCURRENT_STREAMS: self.max_streams,
            Setting.INITIAL_WINDOW_SIZE: self.stream_window,
            Setting.MAX_FRAME_SIZE: self.max_frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self.max_head_bytes,
        }
