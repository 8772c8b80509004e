"""Compressors whose output depends on nothing but their input, and names that say when it would change.

What a library of another version makes of the same bytes is its own affair: its version is part of the name,
and the name belongs into every cache key.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard
from typing_extensions import override

from .descriptor import OCI_LAYER_GZIP, OCI_LAYER_ZSTD

FEED_BYTES = 128 * 1024
"""A compressor is fed in steps of this size, so that how its input was cut leaves no trace."""

_GZIP_HEADER = b"\x1f\x8b\x08\x00" + bytes(4) + b"\x00\xff"
"""RFC 1952: deflate, no flags, no time, no hint of the level, unknown operating system."""


class Stream(Protocol):
    """One blob in the making."""

    def compress(self, data: bytes, /) -> bytes:
        """Take input and give what output there is."""

    def flush(self) -> bytes:
        """Give the rest."""


@dataclass(frozen=True)
class Compressor:
    """A way to compress layers."""

    level: int

    @property
    def id(self) -> str:
        """Its name: equal names promise equal bytes."""
        raise NotImplementedError

    @property
    def media_type(self) -> str:
        """The media type of the layers that it makes."""
        raise NotImplementedError

    def start(self) -> Stream:
        """Begin a blob."""
        raise NotImplementedError


@dataclass(frozen=True)
class Zstd(Compressor):
    """Zstandard, with a checksum (RFC 8878).

    Weights compress little at any level; 3 costs an eighth of gzip's time and unpacks faster.
    """

    level: int = 3

    @property
    @override
    def id(self) -> str:
        version = ".".join(str(number) for number in zstandard.ZSTD_VERSION)
        return f"zstd-{self.level}/libzstd-{version}"

    @property
    @override
    def media_type(self) -> str:
        return OCI_LAYER_ZSTD

    @override
    def start(self) -> Stream:
        return zstandard.ZstdCompressor(level=self.level, write_checksum=True, threads=0).compressobj()


@dataclass(frozen=True)
class Gzip(Compressor):
    """Gzip (RFC 1952), with a header that is the same everywhere."""

    level: int = 6

    @property
    @override
    def id(self) -> str:
        return f"gzip-{self.level}/zlib-{zlib.ZLIB_RUNTIME_VERSION}"

    @property
    @override
    def media_type(self) -> str:
        return OCI_LAYER_GZIP

    @override
    def start(self) -> Stream:
        return _GzipStream(self.level)


ZSTD, GZIP = Zstd(), Gzip()
"""What layers of models are compressed with."""


class _GzipStream:
    """Raw deflate between a header and a trailer of our own: zlib's header names the operating system."""

    def __init__(self, level: int) -> None:
        self._deflate = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 8)
        self._checksum, self._size = 0, 0
        self._head = _GZIP_HEADER

    def compress(self, data: bytes) -> bytes:
        self._checksum = zlib.crc32(data, self._checksum)
        self._size += len(data)
        head, self._head = self._head, b""
        return head + self._deflate.compress(data)

    def flush(self) -> bytes:
        trailer = struct.pack("<II", self._checksum, self._size & 0xFFFF_FFFF)
        return self._head + self._deflate.flush() + trailer


class EvenSteps:
    """Feeds a compressor in steps of one size, however its own input is cut."""

    def __init__(self, compressor: Compressor) -> None:
        self._stream = compressor.start()
        self._pending = bytearray()

    def compress(self, data: bytes) -> Iterator[bytes]:
        """Take input and give what output there is."""
        self._pending += data
        whole = len(self._pending) // FEED_BYTES * FEED_BYTES
        for start in range(0, whole, FEED_BYTES):
            yield self._stream.compress(bytes(self._pending[start : start + FEED_BYTES]))
        del self._pending[:whole]

    def flush(self) -> Iterator[bytes]:
        """Give the rest."""
        yield self._stream.compress(bytes(self._pending))
        yield self._stream.flush()
