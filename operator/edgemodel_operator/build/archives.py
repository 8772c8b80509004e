"""Reading untrusted tar archives, plain or compressed with gzip or zstd, as streams with budgets.

`extract_file` takes one file out of a layer: nothing is unpacked by the archive's own names, only plain
regular files are looked at, and the one that is wanted goes to a path that the caller chose. Byte budgets
bound what a compression bomb can cost. Opening a whole archive: `unpacking`.
"""

from __future__ import annotations

import errno
import gzip
import io
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import zstandard
from typing_extensions import override

LOCAL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Failures of the local disk rather than of what is read."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_WINDOW_BYTES = 1 << 27
COPY_BYTES = 256 * 1024
_HEADER_BYTES = 64 * 1024
_GLOBAL_HEADERS = 1000
_BROKEN = (
    tarfile.TarError,
    zlib.error,
    zstandard.ZstdError,
    gzip.BadGzipFile,
    EOFError,
    MemoryError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    struct.error,
    zipfile.BadZipFile,
)
_EXTENSIONS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


class InvalidArchive(Exception):  # noqa: N818 - reads as the fact it states
    """The archive is broken or beyond a limit; the message is a sentence."""


@dataclass(frozen=True)
class ArchiveLimits:
    """Byte budgets for one archive, and the time (monotonic clock, seconds) at which to give up."""

    max_file_bytes: int
    max_expanded_bytes: int
    deadline: float
    what: str = "layer"
    """What it is called in messages."""


def extract_file(
    archive: Path,
    wanted: Callable[[str], bool],
    destination: Path,
    limits: ArchiveLimits,
    on_other: Callable[[str], None] = lambda path: None,
) -> list[str]:
    """Write the wanted file to `destination` and give the paths of all wanted regular files.

    Where several paths are wanted the first one is written; where the same path comes twice, its last entry
    counts, as when unpacking. `on_other` is told the paths of what is neither a file nor a folder. Blocking:
    call it in a thread. Raises InvalidArchive, or OSError when the local disk fails.
    """
    found: list[str] = []
    with readable(limits.what), ExitStack() as stack:
        expanded = Budgeted(decompressed(stack, archive), Budget(limits))
        tar = stack.enter_context(tarfile.open(fileobj=expanded, mode="r|", tarinfo=BoundedHeader))
        for member in members_of(tar):
            path = _plain_path(member.name)
            if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE}:
                if not member.isdir():
                    on_other(path)
                continue
            if not wanted(path):
                continue
            if path not in found:
                found.append(path)
            if path == found[0]:
                _copy(tar, member, destination, limits)
    return found


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turn everything that a broken archive makes its readers raise into InvalidArchive."""
    try:
        yield
    except _BROKEN as error:
        raise InvalidArchive(
            f"The {what} is no archive that can be read ({type(error).__name__})."
        ) from error
    except OSError as error:
        if error.errno in LOCAL_ERRORS:
            raise
        raise InvalidArchive(f"The {what} is no archive that can be read.") from error


def members_of(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Give the entries of a tar that is read as a stream, and keep none: there may be millions."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]
        if len(tar.pax_headers) > _GLOBAL_HEADERS:
            raise InvalidArchive("The archive has too many global headers; that is refused.")
        yield member


class BoundedHeader(tarfile.TarInfo):
    """A header of a tar that refuses what its reader would hold in memory as a whole: long extensions, and
    the maps of sparse files.
    """

    def _proc_member(self, tar: tarfile.TarFile) -> tarfile.TarInfo:
        # Not `frombuf`: readers with the corrections of 2026 do not call it any more.
        if self.type in _EXTENSIONS and self.size > _HEADER_BYTES:
            raise InvalidArchive(f"A header in the archive has {self.size} bytes; that is refused.")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse(self.name)
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, *_: object) -> None:
        # The one map that lies in the data, not in a header; the reader calls this before anybody can ask.
        raise _sparse(following.name)


def _sparse(name: str) -> InvalidArchive:
    return InvalidArchive(f"The archive holds {name!r}, which is a sparse file: pack it without `--sparse`.")


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, destination: Path, limits: ArchiveLimits) -> None:
    if member.size > limits.max_file_bytes:
        raise InvalidArchive(
            f"The file in the layer has {member.size} bytes; the limit is {limits.max_file_bytes}."
        )
    content: IO[bytes] | None = tar.extractfile(member)
    if content is None:
        raise InvalidArchive("The file in the layer has no content.")
    with content, destination.open("wb") as file:
        while chunk := content.read(COPY_BYTES):
            file.write(chunk)


def _plain_path(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def decompressed(stack: ExitStack, archive: Path) -> IO[bytes] | gzip.GzipFile:
    """Open an archive, told by its first bytes, for reading what was compressed."""
    raw: BinaryIO = stack.enter_context(archive.open("rb"))
    magic = raw.read(4)
    raw.seek(0)
    if magic.startswith(_GZIP_MAGIC):
        return stack.enter_context(gzip.GzipFile(fileobj=raw))
    if magic == _ZSTD_MAGIC:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
        return stack.enter_context(decompressor.stream_reader(raw, read_across_frames=True))
    return raw


class Budget:
    """Bytes and time that reading an archive may still cost."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._left = limits.max_expanded_bytes

    def spend(self, count: int) -> None:
        """Take so many bytes away; raises InvalidArchive when they or the time are used up."""
        what = self._limits.what
        if time.monotonic() > self._limits.deadline:
            raise InvalidArchive(f"Reading the {what} took too long.")
        self._left -= count
        if self._left < 0:
            most = self._limits.max_expanded_bytes
            raise InvalidArchive(f"The {what} unpacks to more than {most} bytes; that is refused.")


class Budgeted(io.RawIOBase):
    """Passes reads on until the budget is used up."""

    def __init__(self, inner: IO[bytes] | gzip.GzipFile, budget: Budget) -> None:
        super().__init__()
        self._inner, self._budget = inner, budget

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1, /) -> bytes:
        data = self._inner.read(size)
        self._budget.spend(len(data))
        return data
