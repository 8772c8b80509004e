"""Protocol Buffers by offsets: which field of a message lies where. No message is ever held in memory.

Source: the encoding of Protocol Buffers (base 128 varints, tags of `number << 3 | type`). Groups, which no
ONNX file has, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from edgemodel_operator.build.inspect.objection import Objection

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

MAX_FIELDS = 3_000_000
"""Fields that are looked at in one file: far more than the largest models have, seconds of work."""

_BLOCK_BYTES = 32 * 1024
_MAX_READ_BYTES = 64 * 1024
_FIXED = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field of a message: `begin` is where its tag lies, `start` to `end` is its value (bytes)."""

    number: int
    kind: int
    begin: int
    start: int
    end: int


class WireFile:
    """An open file of `size` bytes that is read block by block; counts the fields that were looked at."""

    def __init__(self, file: BinaryIO, size: int, *, max_fields: int = MAX_FIELDS) -> None:
        self.size = size
        self._file = file
        self._fields_left = max_fields
        self._block, self._block_start = b"", 0

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """Walk the fields of the message that lies from `start` to `end`; raises Objection when damaged."""
        position = start
        while position < end:
            field = self._read_field(position, end)
            yield field
            position = field.end

    def read(self, start: int, end: int) -> bytes:
        """Give a short stretch, such as a name; raises Objection beyond 64 KiB or the end of the file."""
        if end - start > _MAX_READ_BYTES:
            raise Objection("It has a name of more than 64 KiB.")
        content = self._peek(start, end - start)
        if len(content) != end - start:
            raise Objection("It is cut off.")
        return content

    def integer(self, field: Field) -> int:
        """Give the value of a varint field."""
        if field.kind != VARINT:
            raise Objection("It has a field of the wrong type.")
        value, _ = self._read_varint(field.start, field.end)
        return value

    def _read_field(self, begin: int, end: int) -> Field:
        self._fields_left -= 1
        if self._fields_left < 0:
            raise Objection("It is made of more parts than any model has.")
        key, start = self._read_varint(begin, end)
        number, kind = key >> 3, key & 7
        if not 1 <= number < 1 << 29:
            raise Objection("Its bytes cannot be decoded as a model.")
        if kind == VARINT:
            _, stop = self._read_varint(start, end)
        elif kind == BYTES:
            length, start = self._read_varint(start, end)
            stop = start + length
        elif kind in _FIXED:
            stop = start + _FIXED[kind]
        else:
            raise Objection("Its bytes cannot be decoded as a model.")
        if stop > end:
            raise Objection("It is cut off, or its bytes cannot be decoded as a model.")
        return Field(number, kind, begin, start, stop)

    def _read_varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift, byte in zip(range(0, 70, 7), self._peek(position, min(10, end - position)), strict=False):
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position + shift // 7 + 1
        raise Objection("It is cut off, or its bytes cannot be decoded as a model.")

    def _peek(self, position: int, length: int) -> bytes:
        """Give up to `length` bytes from the position: fewer at the end of the file."""
        inside = position - self._block_start
        if not 0 <= inside <= len(self._block) - length:
            self._file.seek(position)
            self._block, self._block_start, inside = self._file.read(max(_BLOCK_BYTES, length)), position, 0
        return self._block[inside : inside + length]


def tag(number: int, kind: int) -> bytes:
    """Encode the tag of a field."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """Encode a number that is not negative."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def text_field(number: int, value: bytes) -> bytes:
    """Encode a field of bytes, text or a message."""
    return tag(number, BYTES) + varint(len(value)) + value
