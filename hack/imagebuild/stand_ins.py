"""Libraries that stand in for others which a wheel is linked against, and which nothing that we run calls.

The dynamic linker wants every library that a wheel names, with every symbol; a program for GPUs that runs on
a CPU only ever asks them whether there is a device. A stand-in has the name, the versions and the symbols,
all of which lead to one function that says there is none. It is made from what the wheel's libraries ask for,
so that it cannot have too little: PyTorch's wheel needs 2.2 GB of CUDA less that way.

Format: System V ABI, chapter 5 (dynamic linking, hash table), and the GNU extension for symbol versions
(https://refspecs.linuxfoundation.org/LSB_5.0.0/LSB-Core-generic/LSB-Core-generic/symversion.html).
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from .linked import Linked, is_library, read_linked

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_ENTRY = struct.Struct("<qQ")
_DEFINITION = struct.Struct("<HHHHIII")
_DEFINITION_NAME = struct.Struct("<II")
_PAGE = 0x1000
_SHARED_OBJECT, _LOAD, _DYNAMIC = 3, 1, 2
_END, _HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _SONAME = 0, 4, 5, 6, 10, 11, 14
_VERSYM, _VERDEF, _VERDEFNUM = 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD
_ELSEWHERE = ("Py", "_Py", "_Z", "__cxa")
"""What Python and the C++ library give: libraries ask for it without saying of whom."""

_DYNSYM, _DYNAMIC_SECTION, _VERSIONS_NEEDED, _VERSIONS = 11, 6, 0x6FFFFFFE, 0x6FFFFFFF
_X86_64 = 62
_X86_64, _AARCH64 = 62, 183
_ANSWER = {
    _X86_64: bytes.fromhex("b864000000 c3"),  # mov eax, 100; ret
    _AARCH64: bytes.fromhex("800c8052 c0035fd6"),  # mov w0, #100; ret
}
"""By machine, a function that answers 100: cudaErrorNoDevice."""

Symbols = dict[str, set[str]]
"""Version (empty: none) -> symbols."""


def write_stand_ins(root: Path, patterns: Sequence[str]) -> list[str]:
    """Make what libraries below `root` need and whose names fit a pattern, each beside one that needs it.

    Gives the names. What is there is left alone. The wheels must be as they came, with section headers.
    """
    paths = [path for path in sorted(root.rglob("*.so*")) if is_library(path)]
    linked = {path: read_linked(path.read_bytes()) for path in paths}
    there = {path.name for path in paths}
    places = {
        name: path.with_name(name)
        for path, library in reversed(linked.items())
        for name in library.needed
        if name not in there and any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    if not places:
        return []
    machine = next(iter(linked.values())).machine
    for name, symbols in _asked_of(sorted(places), list(linked.values())).items():
        places[name].write_bytes(make_library(name, symbols, machine))
    return sorted(places)


def _asked_of(names: Sequence[str], libraries: Sequence[Linked]) -> dict[str, Symbols]:
    """Give what each library of these names must have.

    Symbols without a version are looked for in every library, so that the first one has them all.
    """
    given = frozenset().union(*(library.given for library in libraries))
    asked: dict[str, Symbols] = {name: defaultdict(set) for name in names}
    for library in (one for one in libraries if asked.keys() & set(one.needed)):
        for owner, version, symbol in library.asked:
            if owner in asked:
                asked[owner][version].add(symbol)
            elif not owner and symbol not in given and not symbol.startswith(_ELSEWHERE):
                asked[names[0]][""].add(symbol)
    return asked


class _Strings:
    """A table of texts that end with a zero."""

    def __init__(self) -> None:
        self.content = b"\0"

    def add(self, text: str) -> int:
        position = len(self.content)
        self.content += text.encode() + b"\0"
        return position


def make_library(name: str, symbols: Mapping[str, Iterable[str]], machine: int) -> bytes:
    """Make a library of that name with these symbols, by version (empty: none); each answers 100."""
    strings = _Strings()
    versions = [version for version in sorted(symbols) if version]
    listed = [(symbol, version) for version in sorted(symbols) for symbol in sorted(symbols[version])]
    indexes = [versions.index(version) + 2 if version else 1 for _, version in listed]
    at = strings.add(name)
    names = [strings.add(symbol) for symbol, _ in listed]
    definitions = _definitions([(name, at), *((version, strings.add(version)) for version in versions)])
    table = _hash_table([symbol for symbol, _ in listed])
    versioned = struct.pack(f"<{len(indexes) + 1}H", 0, *indexes)
    parts = [_ANSWER[machine], table, strings.content, versioned, definitions]
    start = _HEADER.size + 3 * _SEGMENT.size
    answer_at, table_at, strings_at, versioned_at, definitions_at = _places(start, parts)
    # Type and binding: a global function. Section 1 does not exist, but only 0 means "not here".
    entries = [_SYMBOL.pack(position, 0x12, 0, 1, answer_at, len(parts[0])) for position in names]
    parts.append(bytes(_SYMBOL.size) + b"".join(entries))
    *_, symbols_at = _places(start, parts)
    dynamic = {
        _SONAME: at,
        _HASH: table_at,
        _STRTAB: strings_at,
        _SYMTAB: symbols_at,
        _STRSZ: len(strings.content),
        _SYMENT: _SYMBOL.size,
        _VERSYM: versioned_at,
        _VERDEF: definitions_at,
        _VERDEFNUM: len(versions) + 1,
        _END: 0,
    }
    content = _join(start, parts)
    return _with_head(content, b"".join(_ENTRY.pack(*entry) for entry in dynamic.items()), start, machine)


def _with_head(content: bytes, dynamic: bytes, start: int, machine: int) -> bytes:
    """Put the headers before the content, and the dynamic section on a page of its own, to be written."""
    at = (len(content) + _PAGE - 1) // _PAGE * _PAGE
    segments = (
        _SEGMENT.pack(_LOAD, 5, 0, 0, 0, len(content), len(content), _PAGE),
        _SEGMENT.pack(_LOAD, 6, at, at, at, len(dynamic), len(dynamic), _PAGE),
        _SEGMENT.pack(_DYNAMIC, 6, at, at, at, len(dynamic), len(dynamic), 8),
    )
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    sizes = (_HEADER.size, _SEGMENT.size, len(segments), 0, 0, 0)
    head = _HEADER.pack(identity, _SHARED_OBJECT, machine, 1, 0, _HEADER.size, 0, 0, *sizes)
    return (head + b"".join(segments) + content[start:]).ljust(at, b"\0") + dynamic


def _join(start: int, parts: Sequence[bytes]) -> bytes:
    content = bytearray()
    for place, part in zip(_places(start, parts), parts, strict=True):
        content = content.ljust(place, b"\0") + part
    return bytes(content)


def _places(start: int, parts: Sequence[bytes]) -> Iterator[int]:
    position = start
    for part in parts:
        position = _aligned(position)
        yield position
        position += len(part)


def _aligned(position: int) -> int:
    return (position + 7) // 8 * 8


def _definitions(texts: Sequence[tuple[str, int]]) -> bytes:
    """Write the versions that a library has, each with the place of its text; the first is the library."""
    content = b""
    for number, (text, place) in enumerate(texts, start=1):
        step = 0 if number == len(texts) else _DEFINITION.size + _DEFINITION_NAME.size
        content += _DEFINITION.pack(1, number == 1, number, 1, elf_hash(text), _DEFINITION.size, step)
        content += _DEFINITION_NAME.pack(place, 0)
    return content


def _hash_table(symbols: Sequence[str]) -> bytes:
    """Write the hash table of the symbols, which are numbered from 1."""
    count = max(1, len(symbols) // 2)
    buckets, chain = [0] * count, [0] * (len(symbols) + 1)
    for number, symbol in enumerate(symbols, start=1):
        bucket = elf_hash(symbol) % count
        chain[number], buckets[bucket] = buckets[bucket], number
    words = [count, len(chain), *buckets, *chain]
    return struct.pack(f"<{len(words)}I", *words)


def elf_hash(text: str) -> int:
    """Hash a name as the System V ABI does."""
    value = 0
    for byte in text.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    return value
