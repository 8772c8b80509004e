"""What shared libraries are linked against: the names of others, and the symbols that they take of them.

Format: System V ABI, chapters 4 and 5 (64-bit, little-endian), and the GNU extension for symbol versions
(https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_IDENTITY = b"\x7fELF\x02\x01"  # 64-bit, little-endian
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<qQ")
_NEED = struct.Struct("<HHIII")
_NEED_VERSION = struct.Struct("<IHHII")

_NEEDED_TAG, _GLOBAL = 1, 1
_DYNSYM, _DYNAMIC_SECTION, _VERSIONS_NEEDED, _VERSIONS = 11, 6, 0x6FFFFFFE, 0x6FFFFFFF
_INDEX_MASK = 0x7FFF

Sections = Mapping[int, tuple[int, ...]]
"""Section headers by type: of those that are read there is one each."""


@dataclass(frozen=True)
class Linked:
    """What one library names, gives, and asks for."""

    machine: int
    needed: Sequence[str]
    given: frozenset[str]
    asked: Sequence[tuple[str, str, str]]
    """Library (empty: any), version (empty: none), symbol."""


def is_library(path: Path) -> bool:
    """Tell whether a file is a 64-bit little-endian library; a link is not."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_IDENTITY)) == _IDENTITY


def read_linked(content: bytes) -> Linked:
    """Read the dynamic part of a library that has its section headers."""
    header = _HEADER.unpack_from(content)
    table, size, count = header[6], _SECTION.size, header[12]
    sections = [_SECTION.unpack_from(content, table + number * size) for number in range(count)]
    by_type = {section[1]: section for section in sections}
    if _DYNSYM not in by_type or _DYNAMIC_SECTION not in by_type:
        return Linked(header[2], (), frozenset(), ())
    strings = sections[by_type[_DYNSYM][6]][4]
    dynamic = by_type[_DYNAMIC_SECTION]
    entries = _DYNAMIC.iter_unpack(content[dynamic[4] : dynamic[4] + dynamic[5]])
    needed = [_text(content, strings + value) for tag, value in entries if tag == _NEEDED_TAG]
    versions = dict(_read_versions(content, by_type, strings))
    given, asked = set(), []
    for name, info, section, index in _read_symbols(content, by_type, strings):
        if section:
            given.add(name)
        elif info >> 4 == _GLOBAL:  # weak ones may be missing
            asked.append((*versions.get(index, ("", "")), name))
    return Linked(header[2], needed, frozenset(given), asked)


def _read_symbols(content: bytes, by_type: Sections, strings: int) -> Iterator[tuple[str, int, int, int]]:
    """Give name, info, section and the index of the version of each dynamic symbol."""
    table, indexes = by_type[_DYNSYM], by_type.get(_VERSIONS)
    for number in range(1, table[5] // _SYMBOL.size):
        name, info, _, section, _, _ = _SYMBOL.unpack_from(content, table[4] + number * _SYMBOL.size)
        index = struct.unpack_from("<H", content, indexes[4] + 2 * number)[0] if indexes else 0
        yield _text(content, strings + name), info, section, index & _INDEX_MASK


def _read_versions(content: bytes, by_type: Sections, strings: int) -> Iterator[tuple[int, tuple[str, str]]]:
    """Give index, library and version of each version that is asked for."""
    position = by_type[_VERSIONS_NEEDED][4] if _VERSIONS_NEEDED in by_type else 0
    while position:
        _, count, library, names, step = _NEED.unpack_from(content, position)
        place = position + names
        for _ in range(count):
            _, _, index, name, next_name = _NEED_VERSION.unpack_from(content, place)
            yield index & _INDEX_MASK, (_text(content, strings + library), _text(content, strings + name))
            place += next_name
        position = position + step if step else 0


def _text(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()
