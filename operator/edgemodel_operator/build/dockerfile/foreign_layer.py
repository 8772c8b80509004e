"""Making a builder's layer ours: the same files, without what differs from one run to the next.

Times and names of owners are dropped, numbers of owners, modes, links, deletions and extended attributes are
kept, and the compressor is our own. Two builds that write the same files in the same order therefore give the
same blob. Format: OCI image specification 1.1, `layer.md`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from typing import IO, BinaryIO

import zstandard
from typing_extensions import override

from edgemodel_operator.build.layout import MODEL_ROOT
from edgemodel_operator.oci.compression import Compressor
from edgemodel_operator.oci.image import InvalidImage
from edgemodel_operator.oci.layer import Layer, LayerSink

_KINDS = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE})
_KEPT_RECORDS = ("SCHILY.xattr.",)
_MOUNTED = frozenset({"etc/hostname", "etc/hosts", "etc/resolv.conf"})
_BROKEN = (tarfile.TarError, EOFError, ValueError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError)
_REST_BYTES = 64 * 1024


def rewrite_layer(
    source: IO[bytes], diff_id: str, out: BinaryIO, *, compressor: Compressor, max_bytes: int
) -> Layer:
    """Write the tar `source` anew, compressed, and describe it; `max_bytes` bounds what is read.

    Blocking. Raises InvalidImage when the content is not that of `diff_id`, is no tar, is too large, or holds
    what no model image may hold.
    """
    hashed = _Hashing(source, max_bytes)
    sink = LayerSink(out, compressor)
    try:
        with (
            tarfile.open(fileobj=hashed, mode="r|", errorlevel=2) as entries,
            tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8") as written,
        ):
            for entry in entries:
                if _is_mount_point(entry):
                    continue
                content = entries.extractfile(entry) if entry.isreg() else None
                written.addfile(_plain(entry), content)
    except _BROKEN as error:
        if isinstance(error, InvalidImage):
            raise
        raise InvalidImage(f"A layer of the builder's image cannot be read: {error}.") from error
    hashed.read_rest()
    if hashed.digest != diff_id:
        raise InvalidImage(f"A layer of the builder's image hashes to {hashed.digest}, not to {diff_id}.")
    return sink.finish()


def _is_mount_point(entry: tarfile.TarInfo) -> bool:
    """Tell whether a builder made this empty file to mount its own there, as every container runtime does."""
    return entry.isreg() and entry.size == 0 and entry.name.removeprefix("./") in _MOUNTED


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Give the header of an entry with nothing in it that its file does not have."""
    name = entry.name.removeprefix("./").rstrip("/") or "."
    parts = name.split("/")
    if entry.type not in _KINDS:
        raise InvalidImage(
            f"/{name} is a device or a pipe: a Dockerfile may only make files, folders and links."
        )
    if ".." in parts or name.startswith("/"):
        raise InvalidImage(f"A layer of the builder's image has a file outside of it: {name!r}.")
    if parts[0] == MODEL_ROOT and len(parts) > 1:
        raise InvalidImage(
            f"The Dockerfile writes /{name}, and everything below /{MODEL_ROOT} is served as a model: "
            "put it elsewhere."
        )
    plain = tarfile.TarInfo(name)
    plain.type, plain.mode, plain.linkname = entry.type, entry.mode & 0o7777, entry.linkname
    plain.uid, plain.gid = entry.uid, entry.gid
    plain.size = entry.size if entry.isreg() else 0
    plain.pax_headers = {
        key: value for key, value in entry.pax_headers.items() if key.startswith(_KEPT_RECORDS)
    }
    return plain


class _Hashing(io.RawIOBase):
    """Passes a tar on, hashes it, and ends what is endless."""

    def __init__(self, inner: IO[bytes], max_bytes: int) -> None:
        super().__init__()
        self._inner = inner
        self._max_bytes = self._left = max_bytes
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    @override
    def readable(self) -> bool:
        return True

    @override
    def read(self, size: int = -1, /) -> bytes:
        data = self._inner.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidImage(f"The builder's image is larger than {self._max_bytes} bytes.")
        self._hash.update(data)
        return data

    def read_rest(self) -> None:
        """Read what follows the last entry: it belongs to the digest."""
        while self.read(_REST_BYTES):
            pass
