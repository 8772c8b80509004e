"""Image layers as reproducible, compressed tar archives.

The same entries give the same bytes in any process on any machine: names are sorted, each parent directory
comes once, owner is 0:0 without names, modes are 0644 or 0755, times are one given number, extensions are
PAX only where a name needs them, and the compressor is fed in chunks of a fixed size. What remains is the
library of the compressor, whose version is part of `Compressor.id`: use that in every cache key.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from typing_extensions import override

from .compression import ZSTD, Compressor, EvenSteps
from .descriptor import Descriptor
from .splice import Content, open_content, size_of


class InvalidEntry(ValueError):  # noqa: N818 - reads as the fact it states
    """An entry cannot be part of a layer: bad or repeated name, or a file where a directory must be."""


@dataclass(frozen=True)
class File:
    """A regular file; `source` is its content, or says which local files hold it."""

    path: str
    source: Content
    executable: bool = False


@dataclass(frozen=True)
class Link:
    """A symbolic link; `target` is written as it is."""

    path: str
    target: str


@dataclass(frozen=True)
class Directory:
    """A directory that must exist even when empty, or needs a mode other than 0755."""

    path: str
    mode: int = 0o755


Entry = File | Link | Directory


@dataclass(frozen=True)
class Layer:
    """A written layer: the compressed blob, and the digest of the tar inside (`diff_id`)."""

    descriptor: Descriptor
    diff_id: str


def write_layer(
    entries: Iterable[Entry], out: BinaryIO, *, mtime: int = 0, compressor: Compressor = ZSTD
) -> Layer:
    """Write the entries as one compressed layer to `out` and describe it.

    `mtime` is the one time of all entries (seconds since the epoch: SOURCE_DATE_EPOCH). File content is
    streamed, so memory stays flat however large a model is. Raises InvalidEntry before the first byte is
    written, OSError when a source cannot be read or shrinks meanwhile.
    """
    ordered = arrange(entries)
    sink = LayerSink(out, compressor)
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as archive:
        for entry in ordered:
            _add(archive, entry, mtime)
    return sink.finish()


def arrange(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Check the entries, add missing parent directories, and sort: parents before children, then by name."""
    known: dict[str, Entry] = {}
    for entry in entries:
        check_path(entry.path)
        if entry.path in known:
            raise InvalidEntry(f"{entry.path!r} is in the layer twice.")
        known[entry.path] = entry
    for path in tuple(known):
        for parent in _parents(path):
            if not isinstance(known.setdefault(parent, Directory(parent)), Directory):
                raise InvalidEntry(f"{path!r} needs a directory where {parent!r} is something else.")
    return tuple(entry for _, entry in sorted(_by_parts(known)))


def check_path(path: str) -> None:
    """Accept only plain relative paths: no absolute, empty, `.` or `..` parts, no control characters, NFC.

    Names starting with `.wh.` are refused because unpacking them deletes files of lower layers.
    """
    parts = path.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        raise InvalidEntry(f"{path!r} is not a plain relative path.")
    if any(part.startswith(".wh.") for part in parts):
        raise InvalidEntry(f"{path!r} would delete a file of a lower layer when unpacked.")
    if not path.isprintable() or "\\" in path or unicodedata.normalize("NFC", path) != path:
        raise InvalidEntry(f"{path!r} has characters that file systems do not agree about.")


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth])


def _by_parts(known: Mapping[str, Entry]) -> Iterator[tuple[list[str], Entry]]:
    # The keys are unique, so that sorting never compares two entries.
    return ((path.split("/"), entry) for path, entry in known.items())


def _add(archive: tarfile.TarFile, entry: Entry, mtime: int) -> None:
    header = tarfile.TarInfo(entry.path)
    header.mtime = mtime
    match entry:
        case Directory():
            header.type, header.mode = tarfile.DIRTYPE, entry.mode
            archive.addfile(header)
        case Link():
            header.type, header.mode, header.linkname = tarfile.SYMTYPE, 0o777, entry.target
            archive.addfile(header)
        case File():
            header.mode = 0o755 if entry.executable else 0o644
            header.size = size_of(entry.source)
            with open_content(entry.source) as content:
                archive.addfile(header, content)


class LayerSink(io.RawIOBase):
    """Where the tar goes: hashes it, compresses it in fixed steps, hashes and counts the result."""

    def __init__(self, out: BinaryIO, compressor: Compressor) -> None:
        super().__init__()
        self._out = out
        self._media_type = compressor.media_type
        self._compressed = EvenSteps(compressor)
        self._tar_hash, self._blob_hash = hashlib.sha256(), hashlib.sha256()
        self._tar_bytes = self._blob_bytes = 0

    @override
    def tell(self) -> int:
        return self._tar_bytes

    @override
    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._tar_hash.update(data)
        self._tar_bytes += len(data)
        self._emit(self._compressed.compress(data))
        return len(data)

    def finish(self) -> Layer:
        """Write the rest and describe the layer."""
        self._emit(self._compressed.flush())
        digest = f"sha256:{self._blob_hash.hexdigest()}"
        return Layer(
            descriptor=Descriptor(self._media_type, digest, self._blob_bytes),
            diff_id=f"sha256:{self._tar_hash.hexdigest()}",
        )

    def _emit(self, compressed: Iterable[bytes]) -> None:
        for piece in compressed:
            self._blob_hash.update(piece)
            self._blob_bytes += len(piece)
            self._out.write(piece)
