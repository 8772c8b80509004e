"""Opening an untrusted archive into a folder: tar, tar.gz, tar.zst or zip, told apart by content.

Only plain files are written, under plain names, into a folder that appears when all of them are there.
Number, sizes and time are bounded while reading; what a header promises counts for nothing.
"""

from __future__ import annotations

import shutil
import stat
import tarfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tarfile import HeaderError
from typing import IO, Self

from typing_extensions import override

from edgemodel_operator.build.archive_names import InvalidName, NameBook
from edgemodel_operator.build.archives import (
    COPY_BYTES,
    ArchiveLimits,
    BoundedHeader,
    Budget,
    Budgeted,
    InvalidArchive,
    decompressed,
    members_of,
    readable,
)
from edgemodel_operator.build.zip_entries import ZIP_MAGICS, open_zip

MAX_FILES = 1000
MAX_RATIO = 20
"""A whole archive may unpack to this many times its size. Single files may compress better."""
HARMLESS_BYTES = 64 * 1024 * 1024
"""Below this an archive may unpack to any multiple of its size: models of equal weights compress well."""

_STRANGERS = {
    b"\xfd7zXZ\x00": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!": "RAR",
}


@dataclass(frozen=True)
class UnpackLimits(ArchiveLimits):
    """What opening an archive may cost."""

    max_files: int = MAX_FILES

    @classmethod
    def of(cls, archive: Path, max_bytes: int, deadline: float) -> Self:
        """Give the limits for an archive; `max_bytes` bounds all its files together."""
        expanded = min(max_bytes, max(HARMLESS_BYTES, MAX_RATIO * archive.stat().st_size))
        return cls(max_bytes, expanded, deadline, what="archive")


def unpack(
    archive: Path, folder: Path, limits: UnpackLimits, *, keep_executable: bool = False
) -> tuple[str, ...]:
    """Open the archive into `folder`, which must not exist, and give the paths of its files in their order.

    With `keep_executable` a file that its owner may run in the archive stays one; else no file is.

    Blocking: call it in a thread. Raises InvalidArchive, or OSError when the local disk fails; then nothing
    of it is left.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir()
    try:
        paths = _unpack(archive, _Target(partial, limits, keep_executable=keep_executable), limits)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return paths


def _unpack(archive: Path, target: _Target, limits: UnpackLimits) -> tuple[str, ...]:
    with archive.open("rb") as file:
        magic = file.read(8)
    for start, kind in _STRANGERS.items():
        if magic.startswith(start):
            raise InvalidArchive(f"The archive is {kind}: pack it as tar, tar.gz, tar.zst or zip.")
    try:
        with readable("archive"):
            if magic.startswith(ZIP_MAGICS):
                _unpack_zip(archive, target, limits)
            else:
                _unpack_tar(archive, target, limits)
    except InvalidName as error:
        raise InvalidArchive(str(error)) from error
    if not target.paths:
        raise InvalidArchive("The archive holds no files.")
    return tuple(target.paths)


class _Target:
    """The folder that is being filled."""

    def __init__(self, folder: Path, limits: UnpackLimits, *, keep_executable: bool) -> None:
        self._folder, self._limits, self._keep_executable = folder, limits, keep_executable
        self._names = NameBook(limits.max_files)
        self.paths: list[str] = []

    def name(self, name: str, *, folder: bool) -> str | None:
        """Check the name of an entry; None where it is left out. Raises InvalidName."""
        return self._names.add(name, folder=folder)

    def write(self, path: str, content: IO[bytes] | Budgeted, size: int, mode: int) -> None:
        """Write a file of exactly `size` bytes; `mode` is what the archive says of it."""
        if size > self._limits.max_file_bytes:
            limit = self._limits.max_file_bytes
            raise InvalidArchive(f"The file {path!r} in the archive has {size} bytes; the limit is {limit}.")
        destination = self._folder / path
        destination.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with destination.open("xb") as file:
            while chunk := content.read(COPY_BYTES):
                written += file.write(chunk)
        if written != size:
            raise InvalidArchive(f"The file {path!r} in the archive has {written} bytes instead of {size}.")
        if self._keep_executable and mode & stat.S_IXUSR:
            destination.chmod(0o755)
        self.paths.append(path)


def _unpack_zip(archive: Path, target: _Target, limits: UnpackLimits) -> None:
    budget = Budget(limits)
    with open_zip(archive, limits.max_files) as (reader, entries):
        for entry in entries:
            folder = entry.orig_filename.endswith("/")  # the library's own name ends at a NUL
            path = target.name(entry.orig_filename, folder=folder)
            if path is None or folder:
                continue
            with reader.open(entry) as content:
                target.write(path, Budgeted(content, budget), entry.file_size, entry.external_attr >> 16)


def _unpack_tar(archive: Path, target: _Target, limits: UnpackLimits) -> None:
    class Header(BoundedHeader):
        ended = False
        """Whether the last header was the end mark: the reader takes a cut archive for a shorter one."""

        @override
        @classmethod
        def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
            try:
                return super().fromtarfile(tarfile)
            except HeaderError as error:
                Header.ended = type(error).__name__ == "EOFHeaderError"  # which the type stubs do not know
                raise

    with ExitStack() as stack:
        stream = Budgeted(decompressed(stack, archive), Budget(limits))
        tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", tarinfo=Header))
        for member in members_of(tar):
            _unpack_member(tar, member, target)
        if not Header.ended:
            raise InvalidArchive("The archive breaks off: it has no end mark.")
        while stream.read(COPY_BYTES):
            pass  # checksums of gzip and zstd come last


def _unpack_member(tar: tarfile.TarFile, member: tarfile.TarInfo, target: _Target) -> None:
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise InvalidArchive(
            f"The archive holds {member.name!r}, which is {_kind(member)}: only files and folders are opened."
        )
    path = target.name(member.name, folder=member.isdir())
    if path is None or member.isdir():
        return
    content = tar.extractfile(member)
    if content is None:
        raise InvalidArchive(f"The file {path!r} in the archive has no content.")
    with content:
        target.write(path, content, member.size, member.mode)


def _kind(member: tarfile.TarInfo) -> str:
    if member.issym():
        return "a symbolic link"
    if member.islnk():
        return "a hard link"
    return "a sparse file" if member.issparse() else "a device or the like"
