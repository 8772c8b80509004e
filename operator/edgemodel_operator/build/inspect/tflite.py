"""Reading TFLite (LiteRT) files: structure, inputs and outputs.

Format: a FlatBuffer with the identifier `TFL3`. The numbers of the fields are those of the schema,
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import mmap
from enum import IntEnum
from pathlib import Path
from typing import Any

from edgemodel_operator.build.inspect.flatbuffer import FlatBuffer, Table, Vector
from edgemodel_operator.build.inspect.objection import Objection

IDENTIFIER = b"TFL3"
VERSION = 3
OPTIONAL = -1
"""The index of a tensor that an operator does without."""


class _Model(IntEnum):
    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    BUFFERS = 4


class _Subgraph(IntEnum):
    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3


class _Tensor(IntEnum):
    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    SHAPE_SIGNATURE = 7


class _Operator(IntEnum):
    CODE = 0
    INPUTS = 1
    OUTPUTS = 2


class _Buffer(IntEnum):
    DATA = 0
    OFFSET = 1
    SIZE = 2


def inspect_tflite(path: Path) -> dict[str, Any]:
    """Walk the whole structure and describe inputs and outputs of the main graph; raises Objection."""
    with path.open("rb") as file:
        if file.read(8)[4:] != IDENTIFIER:
            raise Objection("It is not a TFLite file: TFL3 does not stand at its byte 4.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _inspect(FlatBuffer(data, len(data)).root())


def _inspect(model: Table) -> dict[str, Any]:
    if model.uint32(_Model.VERSION) != VERSION:
        version = model.uint32(_Model.VERSION)
        raise Objection(f"Its schema has version {version}; version {VERSION} is known.")
    codes = model.vector(_Model.OPERATOR_CODES)
    buffers = model.vector(_Model.BUFFERS)
    for buffer in buffers.tables():
        _check_buffer(buffer)
    graphs = [_check_graph(graph, codes, buffers) for graph in model.vector(_Model.SUBGRAPHS).tables()]
    if not graphs:
        raise Objection("It holds no graph.")
    main = graphs[0]
    if not main["inputs"] or not main["outputs"]:
        raise Objection("Its graph has no inputs or no outputs.")
    return {"schemaVersion": VERSION, **main}


def _check_buffer(buffer: Table) -> None:
    """Hold the weights against the file: in the structure, or behind it in files of more than 2 GiB."""
    buffer.vector(_Buffer.DATA, item_bytes=1)
    if buffer.uint64(_Buffer.OFFSET) + buffer.uint64(_Buffer.SIZE) > buffer.buffer.size:
        raise Objection("It is cut off or damaged: it refers to weights behind its end.")


def _check_graph(graph: Table, codes: Vector, buffers: Vector) -> dict[str, Any]:
    tensors = list(graph.vector(_Subgraph.TENSORS).tables())
    for tensor in tensors:
        _check_index(tensor.uint32(_Tensor.BUFFER), buffers.length, "weights")
    operators = graph.vector(_Subgraph.OPERATORS)
    if not operators.length:
        raise Objection("It is not a TFLite file, or its graph is empty.")
    for operator in operators.tables():
        _check_index(operator.uint32(_Operator.CODE), codes.length, "operators")
        for field in (_Operator.INPUTS, _Operator.OUTPUTS):
            for index in operator.vector(field).ints():
                if index != OPTIONAL:
                    _check_index(index, len(tensors), "tensors")
    return {
        "inputs": _describe_all(graph.vector(_Subgraph.INPUTS), tensors),
        "outputs": _describe_all(graph.vector(_Subgraph.OUTPUTS), tensors),
    }


def _check_index(index: int, length: int, what: str) -> None:
    if not 0 <= index < length:
        raise Objection(f"It is damaged: it refers to number {index} of its {length} {what}.")


def _describe_all(indexes: Vector, tensors: list[Table]) -> list[dict[str, Any]]:
    described = []
    for index in indexes.ints():
        _check_index(index, len(tensors), "tensors")
        described.append(_describe(tensors[index]))
    return described


def _describe(tensor: Table) -> dict[str, Any]:
    signature = tensor.vector(_Tensor.SHAPE_SIGNATURE)  # has -1 for a dimension that is free
    shape = signature if signature.length else tensor.vector(_Tensor.SHAPE)
    sizes = [size if size >= 0 else None for size in shape.ints()]
    return {"name": tensor.text(_Tensor.NAME), "type": tensor.int8(_Tensor.TYPE), "shape": sizes}
