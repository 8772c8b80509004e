"""A reader of FlatBuffers that trusts nothing: offsets are held against the file, and steps are counted.

Format: https://flatbuffers.dev/internals/. A table begins with the (signed) distance back to its vtable,
which says where in the table each field lies; vectors and strings are found by an (unsigned) distance
forward.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from typing_extensions import Buffer

from edgemodel_operator.build.inspect.objection import Objection

_I8, _U16, _I32, _U32, _U64 = (struct.Struct(f"<{code}") for code in "bHiIQ")
_VTABLE_HEAD = 4
"""Bytes of a vtable before its first entry: its own size and that of the table."""


@dataclass
class FlatBuffer:
    """The bytes of one file, and how many reads they are still worth.

    Tables may be shared, so that a small file can describe a walk without end. An honest one has no more to
    read than it has bytes.
    """

    data: Buffer
    size: int
    """Bytes."""
    reads_left: int = field(init=False)

    def __post_init__(self) -> None:
        self.reads_left = self.size

    def root(self) -> Table:
        """Give the table that holds everything else."""
        return Table(self, self.follow(0))

    def unpack(self, layout: struct.Struct, position: int) -> int:
        """Read one number; raises Objection outside of the file."""
        self.reads_left -= 1
        if self.reads_left < 0:
            raise Objection("It refers to the same bytes over and over, which no model has to.")
        if not 0 <= position <= self.size - layout.size:
            raise Objection("It is cut off or damaged: it refers to bytes behind its end.")
        number: int = layout.unpack_from(self.data, position)[0]
        return number

    def follow(self, position: int) -> int:
        """Give the position that the distance at `position` leads to."""
        return position + self.unpack(_U32, position)


@dataclass(frozen=True)
class Vector:
    """A vector of numbers or of references."""

    buffer: FlatBuffer
    start: int
    """The position of the first item."""
    length: int

    def ints(self) -> Iterator[int]:
        """Give the items of a vector of 32-bit signed integers."""
        for number in range(self.length):
            yield self.buffer.unpack(_I32, self.start + 4 * number)

    def tables(self) -> Iterator[Table]:
        """Give the items of a vector of tables."""
        for number in range(self.length):
            yield Table(self.buffer, self.buffer.follow(self.start + 4 * number))


@dataclass(frozen=True)
class Table:
    """A table at its position; fields by their number in the schema, a default where one is not stored."""

    buffer: FlatBuffer
    position: int

    def has(self, number: int) -> bool:
        """Tell whether a field is stored."""
        return self._place(number) is not None

    def int8(self, number: int) -> int:
        """Give a signed byte; 0 where it is not stored."""
        return self._scalar(_I8, number)

    def uint32(self, number: int) -> int:
        """Give an unsigned 32-bit integer; 0 where it is not stored."""
        return self._scalar(_U32, number)

    def uint64(self, number: int) -> int:
        """Give an unsigned 64-bit integer; 0 where it is not stored."""
        return self._scalar(_U64, number)

    def vector(self, number: int, item_bytes: int = 4) -> Vector:
        """Give a vector, empty where it is not stored; its items, `item_bytes` each, lie within the file."""
        place = self._place(number)
        if place is None:
            return Vector(self.buffer, 0, 0)
        head = self.buffer.follow(place)
        length = self.buffer.unpack(_U32, head)
        if head + _U32.size + length * item_bytes > self.buffer.size:
            raise Objection("It is cut off or damaged: it refers to bytes behind its end.")
        return Vector(self.buffer, head + _U32.size, length)

    def text(self, number: int) -> str:
        """Give a string, the first 256 bytes of it; empty where it is not stored."""
        vector = self.vector(number, item_bytes=1)
        end = vector.start + min(vector.length, 256)
        return bytes(memoryview(self.buffer.data)[vector.start : end]).decode(errors="replace")

    def _scalar(self, layout: struct.Struct, number: int) -> int:
        place = self._place(number)
        return 0 if place is None else self.buffer.unpack(layout, place)

    def _place(self, number: int) -> int | None:
        """Give the position of a field; None where it is not stored."""
        vtable = self.position - self.buffer.unpack(_I32, self.position)
        entry = _VTABLE_HEAD + _U16.size * number
        if entry + _U16.size > self.buffer.unpack(_U16, vtable):
            return None
        distance = self.buffer.unpack(_U16, vtable + entry)
        return self.position + distance if distance else None
