"""A connection's way to its client, without a socket."""

import asyncio
from typing import Any

from edgemodel_server.override import override


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""

    @override
    def write(self, data: Any) -> None:
        self.written += bytes(data)

    @override
    def write_eof(self) -> None:
        pass

    @override
    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    @override
    def is_closing(self) -> bool:
        return False

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    @override
    def pause_reading(self) -> None:
        pass

    @override
    def resume_reading(self) -> None:
        pass
