"""What a file in a layer is made of: bytes, a local file, or stretches of local files with bytes between."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from typing_extensions import Buffer, override

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of a local file: offset and length in bytes."""

    path: Path
    offset: int
    length: int

    def __len__(self) -> int:
        return self.length


@dataclass(frozen=True)
class Spliced:
    """Content that is put together from stretches and bytes, in this order, while it is read."""

    pieces: tuple[Slice | bytes, ...]

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._ends[-1] if self._ends else 0

    def stretch(self, offset: int, length: int) -> Spliced:
        """Give the bytes from `offset` on; raises ValueError when they are not all within the content."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"{length} bytes at {offset} are beyond the end of {self.size} bytes")
        found: list[Slice | bytes] = []
        index = bisect_right(self._ends, offset)
        while length:
            piece = self.pieces[index]
            skipped = offset - (self._ends[index] - len(piece))
            part = _cut(piece, skipped, min(length, len(piece) - skipped))
            found.append(part)
            offset, length, index = offset + len(part), length - len(part), index + 1
        return Spliced(tuple(found))

    @cached_property
    def _ends(self) -> tuple[int, ...]:
        return tuple(accumulate(len(piece) for piece in self.pieces))


def _cut(piece: Slice | bytes, offset: int, length: int) -> Slice | bytes:
    if isinstance(piece, bytes):
        return piece[offset : offset + length]
    return Slice(piece.path, piece.offset + offset, length)


Content = bytes | Path | Slice | Spliced


def size_of(content: Content) -> int:
    """Give the size of the content in bytes."""
    match content:
        case bytes():
            return len(content)
        case Path():
            return content.stat().st_size
        case Slice():
            return content.length
        case Spliced():
            return content.size


def read_chunks(content: Content) -> Generator[bytes, None, None]:
    """Read the content from its beginning in chunks; memory stays flat.

    Raises OSError when a file cannot be read or is shorter than a stretch of it.
    """
    match content:
        case bytes():
            yield content
        case Path():
            with content.open("rb", buffering=0) as file:
                while chunk := file.read(_PIECE_BYTES):
                    yield chunk
        case Slice():
            yield from _read_pieces(Spliced((content,)))
        case Spliced():
            yield from _read_pieces(content)


def open_content(content: Content) -> BinaryIO:
    """Open the content for reading from its beginning; see `read_chunks`."""
    match content:
        case bytes():
            return io.BytesIO(content)
        case Path():
            return content.open("rb")
        case Slice() | Spliced():
            return io.BufferedReader(_SplicedReader(read_chunks(content)), _PIECE_BYTES)


class _SplicedReader(io.RawIOBase):
    """Makes a file of chunks."""

    def __init__(self, chunks: Generator[bytes, None, None]) -> None:
        super().__init__()
        self._chunks = chunks
        self._rest = memoryview(b"")

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    @override
    def close(self) -> None:
        self._chunks.close()
        super().close()


def _read_pieces(content: Spliced) -> Generator[bytes, None, None]:
    path: Path | None = None
    file: BinaryIO = io.BytesIO()
    try:
        for piece in content.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            if piece.path != path:
                file.close()
                path, file = piece.path, piece.path.open("rb", buffering=0)
            yield from _read_slice(file, piece)
    finally:
        file.close()


def _read_slice(file: BinaryIO, piece: Slice) -> Iterator[bytes]:
    file.seek(piece.offset)
    left = piece.length
    while left:
        chunk = file.read(min(left, _PIECE_BYTES))
        if not chunk:
            raise OSError(f"{piece.path} ends before byte {piece.offset + piece.length}.")
        yield chunk
        left -= len(chunk)


def hash_content(content: Content) -> tuple[str, int]:
    """Give the SHA-256 (hex) and the size (bytes) of the content."""
    digest, size = hashlib.sha256(), 0
    for chunk in read_chunks(content):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def write_content(content: Content, destination: Path) -> tuple[str, int]:
    """Write the content to a file; gives its SHA-256 (hex) and its size (bytes)."""
    digest, size = hashlib.sha256(), 0
    with destination.open("wb") as out:
        for chunk in read_chunks(content):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
