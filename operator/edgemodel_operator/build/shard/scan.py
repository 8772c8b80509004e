"""Finding the weights of an ONNX file: which initializer's bytes lie where, and who uses it first.

Source: onnx.proto of ONNX 1.21 (field numbers). Weights in nodes and in subgraphs stay where they are; where
one of them lies in another file, that file is shipped as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.wire import BYTES, Field, WireFile

SMALLEST_WEIGHT_BYTES = 1024
"""Smaller initializers stay in the graph: runtimes want shapes and axes there, and they weigh nothing."""

MOST_WEIGHTS = 20_000
"""Models with more weights of that size stay whole: what is kept of each in memory would add up."""

_TYPED_DATA = frozenset({3, 4, 5, 6, 7, 10, 11})
"""`segment`, and the fields of numbers that are not raw: such tensors stay in the graph."""

_CHILDREN: Mapping[str, Mapping[int, str]] = {
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


@dataclass(frozen=True)
class External:
    """Bytes in another file: `location` relative to the model, offset and length in bytes.

    `length` is None where the model says nothing: to the end of the file.
    """

    location: str
    offset: int = 0
    length: int | None = None


@dataclass(frozen=True)
class Weight:
    """An initializer that can be moved: its field in the graph, and where its bytes lie."""

    field: Field
    raw: Field | None
    """Its bytes in the file itself; else they are `external`."""
    external: External | None
    first_use: int
    """The position of the first node that uses it, -1 where none does."""


@dataclass(frozen=True)
class OnnxScan:
    """What there is to know of an ONNX file in order to take it apart."""

    graph: Field
    weights: tuple[Weight, ...]
    """The initializers that can be moved, in the order of the file."""
    fixed: tuple[External, ...]
    """What else lies in other files, and has to stay there."""


def scan_onnx(file: WireFile) -> OnnxScan:
    """Walk the model once; raises Objection when it is damaged, or hides something."""
    graphs, fixed = [], []
    for field in file.fields(0, file.size):
        if field.number == onnx_fields.MODEL_GRAPH:
            graphs.append(_message(field))
        elif field.number == onnx_fields.MODEL_FUNCTION:
            fixed += [tensor.external for tensor in _tensors_below(file, "function", _message(field), {})]
    if len(graphs) != 1:
        raise Objection("It is not an ONNX file, or its graph is empty." if not graphs else _TWICE)
    (graph,) = graphs
    named = [
        (field, read_tensor(file, _message(field)))
        for field in file.fields(graph.start, graph.end)
        if field.number == onnx_fields.GRAPH_INITIALIZER
    ]
    uses = {tensor.name: -1 for _, tensor in named}
    fixed += _walk_nodes(file, graph, uses)
    weights = [
        Weight(field, tensor.raw, tensor.external, uses[tensor.name])
        for field, tensor in named
        if tensor.is_movable
    ]
    fixed += [tensor.external for _, tensor in named if not tensor.is_movable]
    return OnnxScan(graph, tuple(weights), tuple(one for one in fixed if one is not None))


_TWICE = "It has two graphs, and programs do not agree about what that means."


@dataclass(frozen=True)
class Tensor:
    """What is read of a tensor: its name, and where its bytes are."""

    name: bytes
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


def _walk_nodes(file: WireFile, graph: Field, uses: dict[bytes, int]) -> list[External | None]:
    """Note the first use of each name, also by subgraphs; give what the nodes keep in other files."""
    found: list[External | None] = []
    position = 0
    for field in file.fields(graph.start, graph.end):
        if field.number == onnx_fields.GRAPH_NODE:
            seen: dict[bytes, int] = {}
            found += [tensor.external for tensor in _tensors_below(file, "node", _message(field), seen)]
            for name in seen.keys() & uses.keys():
                uses[name] = position if uses[name] < 0 else uses[name]
            position += 1
        elif field.number == onnx_fields.GRAPH_SPARSE_INITIALIZER:
            below = _tensors_below(file, "sparse tensor", _message(field), {})
            found += [tensor.external for tensor in below]
    return found


def _tensors_below(file: WireFile, kind: str, message: Field, names: dict[bytes, int]) -> Iterator[Tensor]:
    """Give every tensor in the message; puts the inputs of its nodes into `names`."""
    pending = [(kind, message)]
    while pending:
        kind, message = pending.pop()
        if kind == "tensor":
            yield read_tensor(file, message)
            continue
        for field in file.fields(message.start, message.end):
            if (child := _CHILDREN[kind].get(field.number)) is not None:
                pending.append((child, _message(field)))
            elif kind == "node" and field.number == onnx_fields.NODE_INPUT:
                names[file.read(field.start, field.end)] = 1


def read_tensor(file: WireFile, message: Field) -> Tensor:
    """Read a TensorProto, but for its bytes; raises Objection when it is damaged."""
    known: dict[int, list[Field]] = {number: [] for number in _TENSOR_FIELDS}
    plain = True
    for field in file.fields(message.start, message.end):
        known.get(field.number, []).append(field)
        plain = plain and field.number not in _TYPED_DATA
    names, types, raw, entries, locations = known.values()
    name = file.read(names[-1].start, names[-1].end) if names else b""
    plain = plain and all(file.integer(field) != onnx_fields.TYPE_STRING for field in types)
    if locations and file.integer(locations[-1]) == onnx_fields.LOCATION_EXTERNAL:
        pairs = [_read_entry(file, _message(field)) for field in entries]
        plain = plain and not raw and {key for key, _ in pairs} <= _KNOWN_KEYS
        return Tensor(name, None, _external(pairs), plain)
    plain = plain and not entries and len(raw) == 1
    return Tensor(name, _message(raw[0]) if plain else None, None, plain)


_TENSOR_FIELDS = (
    onnx_fields.TENSOR_NAME,
    onnx_fields.TENSOR_DATA_TYPE,
    onnx_fields.TENSOR_RAW_DATA,
    onnx_fields.TENSOR_EXTERNAL_DATA,
    onnx_fields.TENSOR_DATA_LOCATION,
)
_KNOWN_KEYS = frozenset({"location", "offset", "length", "checksum"})


def _read_entry(file: WireFile, message: Field) -> tuple[str, str]:
    parts = {
        field.number: file.read(field.start, field.end) for field in file.fields(message.start, message.end)
    }
    try:
        return (
            parts.get(onnx_fields.ENTRY_KEY, b"").decode(),
            parts.get(onnx_fields.ENTRY_VALUE, b"").decode(),
        )
    except UnicodeDecodeError as error:
        raise Objection("The name of the file of its weights is not UTF-8.") from error


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


def _message(field: Field) -> Field:
    if field.kind != BYTES:
        raise Objection("Its bytes cannot be decoded as a model.")
    return field
