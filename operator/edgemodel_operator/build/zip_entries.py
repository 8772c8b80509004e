"""Reading the entries of an untrusted zip: what its table of contents says is held against the file.

Format: APPNOTE.TXT 6.3. The standard library reads the entries; what it does not check is checked here:
sizes of the table, entries that share bytes, encryption, links.
"""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from typing_extensions import override

from edgemodel_operator.build.archives import InvalidArchive

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER_BYTES = 30
_TABLE_BYTES = 1024 * 1024
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 0x1 | 0x40 | 0x2000


@contextmanager
def open_zip(path: Path, max_entries: int) -> Iterator[tuple[zipfile.ZipFile, Sequence[zipfile.ZipInfo]]]:
    """Open the zip, check its table of contents, and give its entries; raises InvalidArchive."""
    with path.open("rb") as raw, zipfile.ZipFile(_BoundedReads(raw)) as archive:
        listed = archive.infolist()
        if len(listed) > max_entries:
            raise InvalidArchive(
                f"The archive holds more than {max_entries} files and folders; that is refused."
            )
        for entry in listed:
            _check_entry(entry)
        _check_overlaps(listed, path.stat().st_size)
        yield archive, listed


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.orig_filename
    if entry.flag_bits & _ENCRYPTED:
        raise InvalidArchive(f"The file {name!r} in the archive is encrypted: pack it without a password.")
    if entry.compress_type not in _METHODS:
        raise InvalidArchive(
            f"The file {name!r} in the archive is compressed in a rare way: pack it with deflate."
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        what = "a symbolic link" if kind == stat.S_IFLNK else "a device or the like"
        raise InvalidArchive(
            f"The archive holds {name!r}, which is {what}: only files and folders are opened."
        )


def _check_overlaps(entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    """Refuse entries that share bytes: a few kilobytes could stand for any number of files."""
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    ends = [entry.header_offset for entry in ordered[1:]] + [size]
    for entry, end in zip(ordered, ends, strict=True):
        name_bytes = len(entry.orig_filename)  # no more than the file holds for it
        if entry.header_offset + _LOCAL_HEADER_BYTES + name_bytes + entry.compress_size > end:
            raise InvalidArchive("Files in the archive share their bytes; that is refused.")


class _BoundedReads(io.RawIOBase):
    """Refuses to read much at once: a table of contents of gigabytes would be held in memory."""

    def __init__(self, inner: BinaryIO) -> None:
        super().__init__()
        self._inner = inner

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._inner.seek(offset, whence)

    @override
    def tell(self) -> int:
        return self._inner.tell()

    @override
    def read(self, size: int = -1, /) -> bytes:
        data = self._inner.read(_TABLE_BYTES + 1 if size < 0 else min(size, _TABLE_BYTES + 1))
        if len(data) > _TABLE_BYTES:
            raise InvalidArchive("The table of contents of the archive is too long; that is refused.")
        return data
