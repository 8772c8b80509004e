"""Shared libraries without what only debuggers and linkers read.

Wheels are often built with symbol tables and debug information: uvloop's library is 12 of 14 MB of it. The
loader follows program headers alone, so that everything behind the last segment can go, and the section
headers with it. Nothing that is loaded moves: a library that packers have rewritten stays intact, which
``strip`` does not promise, and one that is built for another architecture needs no tool of that architecture.

Source: System V ABI, chapter 4 "Object files" and chapter 5 "Program loading" (64-bit, little-endian).
"""

from __future__ import annotations

import struct
from pathlib import Path

_IDENTITY = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_SHARED_OBJECT = 3
_HEADER = struct.Struct("<6s10xHHIQQQIHHHHHH")
_SECTIONS_AT = 40  # e_shoff; e_shentsize, e_shnum and e_shstrndx are the last three fields
_SEGMENT_EXTENT = struct.Struct("<8xQ16xQ")  # p_offset, p_filesz


def strip_library(path: Path) -> int:
    """Cut a shared library behind its last segment, in place; returns the bytes saved, 0 for other files."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_IDENTITY):
            return 0
        kind, table, entry_size, entries = _read_header(head)
        if kind != _SHARED_OBJECT or not entries:
            return 0
        stream.seek(table)
        segments = stream.read(entry_size * entries)
    if entry_size < _SEGMENT_EXTENT.size or len(segments) < entry_size * entries:
        return 0
    extents = (_SEGMENT_EXTENT.unpack_from(segments, entry_size * index) for index in range(entries))
    end: int = max(table + len(segments), _HEADER.size, *(offset + size for offset, size in extents))
    size = path.stat().st_size
    if end < size:
        _cut(path, head, end)
    return max(size - end, 0)


def _read_header(head: bytes) -> tuple[int, int, int, int]:
    """Return e_type, e_phoff, e_phentsize and e_phnum."""
    fields: tuple[int, ...] = _HEADER.unpack(head)
    return fields[1], fields[5], fields[9], fields[10]


def _cut(path: Path, head: bytes, end: int) -> None:
    """Shorten the file and say in its header that it has no sections; hard links keep the old content."""
    sectionless = bytearray(head)
    struct.pack_into("<Q", sectionless, _SECTIONS_AT, 0)
    struct.pack_into("<HHH", sectionless, _HEADER.size - 6, 0, 0, 0)
    mode = path.stat().st_mode
    content = path.read_bytes()[len(head) : end]
    path.unlink()
    path.write_bytes(bytes(sectionless) + content)
    path.chmod(mode)
