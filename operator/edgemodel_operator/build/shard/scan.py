"""Finding the weights of an ONNX file: which initializer's bytes lie where, and who uses it first.

Weights in nodes and in subgraphs stay where they are; where one of them lies in another file, that file is
shipped as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.tensors import External, Tensor, as_message, read_tensor, tensors_below
from edgemodel_operator.build.shard.wire import Field, WireFile

MOST_WEIGHTS = 20_000
"""Models with more weights stay whole: what is kept of each in memory would add up."""

_MOST_EXTERNAL = 100_000


@dataclass(frozen=True, slots=True)
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
    """The initializers that can be moved, in the order of the file; none where they are too many."""
    fixed: tuple[External, ...]
    """What else lies in other files, and has to stay there."""


def scan_onnx(file: WireFile) -> OnnxScan:
    """Walk the model once; raises Objection when it is damaged, or hides something."""
    graph: Field | None = None
    fixed = _Fixed()
    for field in file.fields(0, file.size):
        if field.number == onnx_fields.MODEL_GRAPH:
            if graph is not None:
                raise Objection("It has two graphs, and programs do not agree about what that means.")
            graph = as_message(field)
        elif field.number == onnx_fields.MODEL_FUNCTION:
            for tensor in tensors_below(file, "function", as_message(field)):
                fixed.add(tensor)
    if graph is None:
        raise Objection("It is not an ONNX file, or its graph is empty.")
    movable = _find_movable(file, graph, fixed)
    uses = _find_uses(file, graph, {tensor.key for _, tensor in movable}, fixed)
    weights = (
        Weight(field, tensor.raw, tensor.external, uses.get(tensor.key, -1)) for field, tensor in movable
    )
    return OnnxScan(graph, tuple(weights), tuple(fixed.found))


class _Fixed:
    """Collects what has to stay in other files."""

    def __init__(self) -> None:
        self.found: dict[External, None] = {}

    def add(self, tensor: Tensor) -> None:
        if tensor.external is not None:
            self.found[tensor.external] = None
            if len(self.found) > _MOST_EXTERNAL:
                raise Objection(f"It has more than {_MOST_EXTERNAL} tensors in other files.")


def _find_movable(file: WireFile, graph: Field, fixed: _Fixed) -> list[tuple[Field, Tensor]]:
    """Give the initializers that can be moved; none where they are too many, so that all stay fixed."""
    movable: list[tuple[Field, Tensor]] = []
    too_many = False
    for field in file.fields(graph.start, graph.end):
        if field.number != onnx_fields.GRAPH_INITIALIZER:
            continue
        tensor = read_tensor(file, as_message(field))
        if too_many or not tensor.is_movable:
            fixed.add(tensor)
            continue
        movable.append((field, tensor))
        if len(movable) > MOST_WEIGHTS:
            too_many = True
            for _, one in movable:
                fixed.add(one)
            movable.clear()
    return movable


def _find_uses(file: WireFile, graph: Field, wanted: set[bytes], fixed: _Fixed) -> dict[bytes, int]:
    """Give the position of the first node that takes each of the wanted names, be it in a subgraph."""
    uses: dict[bytes, int] = {}
    position = 0

    def note(key: bytes) -> None:
        if key in wanted:
            uses.setdefault(key, position)

    for field in file.fields(graph.start, graph.end):
        if field.number == onnx_fields.GRAPH_NODE:
            for tensor in tensors_below(file, "node", as_message(field), note):
                fixed.add(tensor)
            position += 1
        elif field.number == onnx_fields.GRAPH_SPARSE_INITIALIZER:
            for tensor in tensors_below(file, "sparse tensor", as_message(field)):
                fixed.add(tensor)
    return uses
