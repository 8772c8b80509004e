"""The outline of an ONNX file: all of it but the content of its larger tensors, and what no reader looks at.

Who decodes a whole model holds it several times over; its outline has some hundred kilobytes, wherever the
weights lie: in initializers, in nodes, in functions, as raw bytes or as lists of numbers. A tensor whose
content is left out says how much there was, in the form of external data, under a key that is drawn by
lot for each outline: no model can say that of its own tensors.

Field numbers: onnx.proto of ONNX 1.21.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.tensors import CHILDREN, SMALLEST_WEIGHT_BYTES, as_message
from edgemodel_operator.build.shard.wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Field,
    WireFile,
    tag,
    text_field,
    varint,
)

_LONG_BYTES = 64 * 1024
"""What nobody reads is left out from here on; below it an operator may have it as a parameter."""
_DEEPEST = 100
_READ_BYTES = 1024 * 1024
_SEGMENT = 3
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    **CHILDREN,
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
}
_UNREAD: Mapping[str, frozenset[int]] = {
    "model": frozenset({6, 14}),
    "graph": frozenset({10, 14, 16}),
    "function": frozenset({8, 14}),
    "node": frozenset({6, 9}),
    "attribute": frozenset({4, 7, 8, 9, 13}),
    "tensor": frozenset({12, 16}),
}
"""Message -> fields that may be long: texts for people, metadata, and parameters of operators."""
_NUMBERS = {4: (FIXED32, 4), 5: (VARINT, 0), 7: (VARINT, 0), 10: (FIXED64, 8), 11: (VARINT, 0)}
"""The lists of numbers in a tensor: how one number is stored alone, and its bytes in a packed list."""
_STRINGS = 6
_CONTENT = frozenset({*_NUMBERS, _STRINGS, *onnx_fields.CONTENT})
_LAST_OF_VARINT = bytes(range(0x80))


@dataclass(frozen=True)
class Content:
    """How much content was left out of a tensor: raw bytes, or else entries of its lists."""

    raw_bytes: int | None
    entries: int


class Outline:
    """The outline of one file."""

    def __init__(self, path: Path) -> None:
        """Make it; raises Objection when the file is damaged."""
        self._mark = secrets.token_hex(16)
        with path.open("rb", buffering=0) as walked, path.open("rb") as copied:
            size = path.stat().st_size
            shortening = _Shortening(WireFile(walked, size), copied, self._mark)
            self.content = shortening.shorten("model", 0, size) or shortening.read(0, size)

    def left_out(self, tensor: Any) -> Content | None:
        """Tell how much was left out of a TensorProto of the outline; None where nothing was."""
        if len(tensor.external_data) != 1 or tensor.external_data[0].key != self._mark:
            return None
        kind, _, count = tensor.external_data[0].value.partition(" ")
        return Content(int(count), 0) if kind == "raw" else Content(None, int(count))


class _Shortening:
    """Writes messages anew, without what is long."""

    def __init__(self, file: WireFile, copied: BinaryIO, mark: str) -> None:
        self._file, self._copied, self._mark = file, copied, mark

    def read(self, start: int, end: int) -> bytes:
        """Give bytes of the file."""
        self._copied.seek(start)
        return self._copied.read(end - start)

    def shorten(self, kind: str, start: int, end: int, depth: int = 0) -> bytes | None:
        """Give the content of a message without what is long; None where nothing is."""
        if depth > _DEEPEST:
            raise Objection("Its graphs are nested deeper than any program reads.")
        parts: list[bytes] = []
        done = start
        for field in self._file.fields(start, end):
            short = self._shorten_field(kind, field, depth)
            if short is not None:
                parts += [self.read(done, field.begin), short]
                done = field.end
        return b"".join([*parts, self.read(done, end)]) if parts else None

    def _shorten_field(self, kind: str, field: Field, depth: int) -> bytes | None:
        """Give what stands for the field; None where it stays."""
        if self._is_unread(kind, field):
            return b""
        child = _MESSAGES[kind].get(field.number)
        if child is None:
            return None
        start, end = as_message(field)[-2:]
        if end - start < SMALLEST_WEIGHT_BYTES:
            return None
        short = (
            self._shorten_tensor(field) if child == "tensor" else self.shorten(child, start, end, depth + 1)
        )
        return None if short is None else tag(field.number, BYTES) + varint(len(short)) + short

    def _is_unread(self, kind: str, field: Field) -> bool:
        long = field.kind == BYTES and field.end - field.start >= _LONG_BYTES
        return long and field.number in _UNREAD.get(kind, ())

    def _shorten_tensor(self, message: Field) -> bytes | None:
        kept: list[bytes] = []
        raw: int | None = None
        entries = 0
        for field in self._file.fields(message.start, message.end):
            if field.number == onnx_fields.TENSOR_RAW_DATA:
                raw = as_message(field).end - field.start
            elif field.number in _NUMBERS:
                entries += self._count(field)
            elif field.number == _STRINGS:
                entries += 1
            elif self._is_elsewhere(field):
                return None
            elif field.number not in _CONTENT and not self._is_unread("tensor", field):
                kept.append(self.read(field.begin, field.end))
        said = f"raw {raw}" if raw is not None else f"list {entries}"
        return b"".join(kept) + self._in_place(said)

    def _is_elsewhere(self, field: Field) -> bool:
        """Tell whether the tensor does not hold its elements itself: then it is small, or refused."""
        if field.number == onnx_fields.TENSOR_DATA_LOCATION:
            return self._file.integer(field) != 0
        return field.number in {onnx_fields.TENSOR_EXTERNAL_DATA, _SEGMENT}

    def _in_place(self, said: str) -> bytes:
        key = text_field(onnx_fields.ENTRY_KEY, self._mark.encode())
        entry = text_field(
            onnx_fields.TENSOR_EXTERNAL_DATA, key + text_field(onnx_fields.ENTRY_VALUE, said.encode())
        )
        location = tag(onnx_fields.TENSOR_DATA_LOCATION, VARINT) + varint(onnx_fields.LOCATION_EXTERNAL)
        return entry + location

    def _count(self, field: Field) -> int:
        """Count the numbers in one field of a list, which holds a single one or a packed run of them."""
        alone, size = _NUMBERS[field.number]
        if field.kind == alone:
            return 1
        start, end = as_message(field)[-2:]
        return (end - start) // size if size else self._count_varints(start, end)

    def _count_varints(self, start: int, end: int) -> int:
        """Count the bytes that end a varint; for gigabytes of them, without a loop over bytes."""
        found = 0
        for begin in range(start, end, _READ_BYTES):
            block = self.read(begin, min(end, begin + _READ_BYTES))
            found += len(block) - len(block.translate(None, _LAST_OF_VARINT))
        return found
