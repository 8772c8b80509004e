"""Taking one file out of an untrusted layer: a tar archive, plain or compressed with gzip or zstd.

Nothing is ever unpacked by the archive's own names: entries are read as a stream, only plain regular files
are looked at, and the one that is wanted goes to a path that the caller chose. Byte budgets bound what a
compression bomb can cost.
"""

from __future__ import annotations

import errno
import gzip
import io
import tarfile
import time
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import zstandard
from typing_extensions import override

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BYTES = 1 << 27
_COPY_BYTES = 256 * 1024
_BROKEN = (
    tarfile.TarError,
    zlib.error,
    zstandard.ZstdError,
    gzip.BadGzipFile,
    EOFError,
    MemoryError,
    ValueError,
    OverflowError,
)


class InvalidArchive(Exception):  # noqa: N818 - reads as the fact it states
    """The archive is broken or beyond a limit; the message is a sentence."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Byte budgets for one archive, and the time (monotonic clock, seconds) at which to give up."""

    max_file_bytes: int
    max_expanded_bytes: int
    deadline: float


def extract_file(
    archive: Path, wanted: Callable[[str], bool], destination: Path, limits: ArchiveLimits
) -> list[str]:
    """Write the wanted file to `destination` and give the paths of all wanted regular files.

    Where several paths are wanted the first one is written; where the same path comes twice, its last entry
    counts, as when unpacking. Blocking: call it in a thread. Raises InvalidArchive, or OSError when the
    local disk fails.
    """
    found: list[str] = []
    try:
        with ExitStack() as stack:
            expanded = _Budget(_decompressed(stack, archive), limits)
            tar = stack.enter_context(tarfile.open(fileobj=expanded, mode="r|"))
            for member in tar:
                path = _plain_path(member.name)
                if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or not wanted(path):
                    continue
                if path not in found:
                    found.append(path)
                if path == found[0]:
                    _copy(tar, member, destination, limits)
    except _BROKEN as error:
        raise InvalidArchive(
            f"A layer is no tar archive that can be read ({type(error).__name__})."
        ) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EIO}:
            raise
        raise InvalidArchive("A layer is no tar archive that can be read.") from error
    return found


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, destination: Path, limits: ArchiveLimits) -> None:
    if member.size > limits.max_file_bytes:
        raise InvalidArchive(
            f"The file in the layer has {member.size} bytes; the limit is {limits.max_file_bytes}."
        )
    content: IO[bytes] | None = tar.extractfile(member)
    if content is None:
        raise InvalidArchive("The file in the layer has no content.")
    with content, destination.open("wb") as file:
        while chunk := content.read(_COPY_BYTES):
            file.write(chunk)


def _plain_path(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def _decompressed(stack: ExitStack, archive: Path) -> IO[bytes] | gzip.GzipFile:
    raw: BinaryIO = stack.enter_context(archive.open("rb"))
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return stack.enter_context(gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD_MAGIC:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        return stack.enter_context(decompressor.stream_reader(raw, read_across_frames=True))
    return raw


class _Budget(io.RawIOBase):
    """Passes reads on until the budget of bytes or time is used up."""

    def __init__(self, inner: IO[bytes] | gzip.GzipFile, limits: ArchiveLimits) -> None:
        super().__init__()
        self._inner = inner
        self._limits = limits
        self._left = limits.max_expanded_bytes

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1, /) -> bytes:
        if time.monotonic() > self._limits.deadline:
            raise InvalidArchive("Reading the layer took too long.")
        data = self._inner.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidArchive(
                f"A layer unpacks to more than {self._limits.max_expanded_bytes} bytes; that is refused."
            )
        return data
