"""Tensors in an ONNX file: what each one is called, where its bytes lie, and where tensors can hide.

Source: onnx.proto of ONNX 1.21 (field numbers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.wire import BYTES, Field, WireFile

SMALLEST_WEIGHT_BYTES = 1024
"""Smaller initializers stay in the graph: runtimes want shapes and axes there, and they weigh nothing."""

_DEEPEST = 100
"""Messages within messages: libraries of Protocol Buffers read no deeper."""

_MOST_ENTRIES = 16
_TYPED_DATA = frozenset({3, 4, 5, 6, 7, 10, 11})
"""`segment`, and the fields of numbers that are not raw: such tensors stay in the graph."""

CHILDREN: Mapping[str, Mapping[int, str]] = {
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
}
"""Message -> field number -> message, down to every tensor of a model."""

_READ = (
    onnx_fields.TENSOR_NAME,
    onnx_fields.TENSOR_DATA_TYPE,
    onnx_fields.TENSOR_RAW_DATA,
    onnx_fields.TENSOR_EXTERNAL_DATA,
    onnx_fields.TENSOR_DATA_LOCATION,
)
_KNOWN_KEYS = frozenset({"location", "offset", "length", "checksum"})


@dataclass(frozen=True, slots=True)
class External:
    """Bytes in another file: `location` relative to the model, offset and length in bytes.

    `length` is None where the model says nothing: to the end of the file.
    """

    location: str
    offset: int = 0
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is read of a tensor: which one it is, and where its bytes are."""

    key: bytes
    """A hash of its name."""
    raw: Field | None
    """Its bytes, where they are in the file itself and may be moved."""
    external: External | None
    """Its bytes, where they are in another file."""
    is_plain: bool
    """Whether its bytes are all in one place, and may be moved."""

    @property
    def is_movable(self) -> bool:
        """Whether it is worth a place in a file of its own."""
        size = self.raw.end - self.raw.start if self.raw else 0
        return self.is_plain and (self.external is not None or size >= SMALLEST_WEIGHT_BYTES)


def tensors_below(
    file: WireFile, kind: str, message: Field, on_input: Callable[[bytes], None] = lambda key: None
) -> Iterator[Tensor]:
    """Give every tensor in the message, a `graph`, `function`, `node` or `sparse tensor`.

    Tells the key of each name that a node takes. Raises Objection when something is damaged.
    """
    open_messages = [(kind, file.fields(message.start, message.end))]
    while open_messages:
        kind, fields = open_messages[-1]
        field = next(fields, None)
        if field is None:
            open_messages.pop()
            continue
        child = CHILDREN[kind].get(field.number)
        if child == "tensor":
            yield read_tensor(file, as_message(field))
        elif child is not None:
            open_messages.append((child, file.fields(*as_message(field)[-2:])))
            if len(open_messages) > _DEEPEST:
                raise Objection("Its graphs are nested deeper than any program reads.")
        elif kind == "node" and field.number == onnx_fields.NODE_INPUT:
            on_input(_key(file, field))


def read_tensor(file: WireFile, message: Field) -> Tensor:
    """Read a TensorProto, but for its bytes; raises Objection when it is damaged."""
    found: dict[int, list[Field]] = {number: [] for number in _READ}
    plain = True
    for field in file.fields(message.start, message.end):
        plain = plain and field.number not in _TYPED_DATA
        if field.number in found:
            found[field.number].append(field)
            if len(found[field.number]) > _MOST_ENTRIES:
                raise Objection("It has a tensor that says the same over and over.")
    names, types, raw, entries, locations = found.values()
    key = _key(file, names[-1]) if names else b""
    plain = plain and all(file.integer(field) != onnx_fields.TYPE_STRING for field in types)
    if locations and file.integer(locations[-1]) == onnx_fields.LOCATION_EXTERNAL:
        pairs = [_read_entry(file, as_message(field)) for field in entries]
        plain = plain and not raw and {name for name, _ in pairs} <= _KNOWN_KEYS
        return Tensor(key, None, _external(pairs), plain)
    plain = plain and not entries and len(raw) == 1
    return Tensor(key, as_message(raw[0]) if plain else None, None, plain)


def as_message(field: Field) -> Field:
    """Give the field if it holds bytes; raises Objection else."""
    if field.kind != BYTES:
        raise Objection("Its bytes cannot be decoded as a model.")
    return field


def _key(file: WireFile, field: Field) -> bytes:
    return hashlib.blake2b(file.read(field.start, field.end), digest_size=16).digest()


def _read_entry(file: WireFile, message: Field) -> tuple[str, str]:
    parts = {onnx_fields.ENTRY_KEY: b"", onnx_fields.ENTRY_VALUE: b""}
    for field in file.fields(message.start, message.end):
        if field.number in parts:
            parts[field.number] = file.read(field.start, field.end)
    try:
        key, value = (part.decode() for part in parts.values())
    except UnicodeDecodeError as error:
        raise Objection("The name of the file of its weights is not UTF-8.") from error
    return key, value


def _external(entries: list[tuple[str, str]]) -> External:
    given = dict(entries)
    if len(given) != len(entries) or not given.get("location"):
        raise Objection("It has a tensor in another file, and does not say clearly in which.")
    return External(
        given["location"],
        _number(given.get("offset", "0")),
        _number(given["length"]) if "length" in given else None,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Objection("It has a tensor in another file at a place that is no number.")
    return int(text)
