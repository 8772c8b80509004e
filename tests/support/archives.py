"""Archives for tests, good and bad: by the standard library where it can, by hand where it refuses."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections.abc import Mapping

import zstandard

Member = tuple[str, bytes] | tarfile.TarInfo


def make_tar(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Make a tar of (name, content) and of headers as they are given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            tar.addfile(header, io.BytesIO(member[1]))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    """Make the header of a link, device or folder."""
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def make_zip(
    *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED, mode: int = 0o100644, flags: int = 0
) -> bytes:
    """Make a zip; `mode` is the Unix mode of its entries, `flags` are set in both headers of each."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members:
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.external_attr = method, mode << 16
            archive.writestr(entry, content)
    made = bytearray(out.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = made.find(signature)
        while flags and place >= 0:
            made[place + offset] |= flags
            place = made.find(signature, place + 4)
    return bytes(made)


def pack(files: Mapping[str, bytes], kind: str) -> bytes:
    """Pack the files as `tar`, `tar.gz`, `tar.zst` or `zip`."""
    members = tuple(files.items())
    match kind:
        case "zip":
            return make_zip(*members)
        case "tar.gz":
            return gzip.compress(make_tar(*members))
        case "tar.zst":
            return zstandard.compress(make_tar(*members))
        case _:
            return make_tar(*members)


def overlapping_zip(count: int, size: int) -> bytes:
    """Make a zip whose entries are all the same bytes: `count` files of `size` zeros from one."""
    name = b"zeros"
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(bytes(size)) + deflate.flush()
    sums = zlib.crc32(bytes(size)).to_bytes(4, "little")
    sizes = sums + len(packed).to_bytes(4, "little") + size.to_bytes(4, "little")
    head = b"\x14\0\0\0\x08\0" + bytes(4) + sizes + len(name).to_bytes(2, "little") + bytes(2)
    local = b"PK\x03\x04" + head + name + packed
    entry = b"PK\x01\x02\x14\x03" + head + bytes(2) + bytes(2) + bytes(2) + bytes(4) + bytes(4) + name
    table = entry * count
    counts = count.to_bytes(2, "little") * 2
    end = b"PK\x05\x06" + bytes(4) + counts + len(table).to_bytes(4, "little")
    return local + table + end + len(local).to_bytes(4, "little") + bytes(2)
