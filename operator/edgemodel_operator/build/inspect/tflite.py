"""Reading TFLite (LiteRT) files: structure, inputs and outputs, operators and the size of the weights.

Format: a FlatBuffer with the identifier `TFL3`. The numbers of the fields are those of the schema,
https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from edgemodel_operator.build.inspect.flatbuffer import FlatBuffer, Table, Vector
from edgemodel_operator.build.inspect.found import FREE, Found, Tensor
from edgemodel_operator.build.inspect.memory import Step, count_bytes, count_elements, peak_bytes
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.tflite_operators import BUILTIN, CUSTOM

IDENTIFIER = b"TFL3"
VERSION = 3
OPTIONAL = -1
"""The index of a tensor that an operator does without."""


DATATYPES: Mapping[int, str] = {
    0: "FP32",
    1: "FP16",
    2: "INT32",
    3: "UINT8",
    4: "INT64",
    5: "BYTES",
    6: "BOOL",
    7: "INT16",
    9: "INT8",
    10: "FP64",
    12: "UINT64",
    15: "UINT32",
    16: "UINT16",
}
"""Those of the Open Inference Protocol that a server can answer with, by `TensorType` of the schema."""

BITS: Mapping[int, int] = {
    0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64, 15: 32, 16: 16,
    17: 4, 18: 16, 19: 2, 20: 4, 21: 8, 22: 8,
}  # fmt: skip
"""Bits of an element, by `TensorType`; texts and resources have no size of their own."""


class _Model(IntEnum):
    VERSION = 0
    OPERATOR_CODES = 1
    SUBGRAPHS = 2
    BUFFERS = 4
    SIGNATURES = 7


class _Signature(IntEnum):
    INPUTS = 0
    OUTPUTS = 1
    SUBGRAPH = 4


class _SignatureTensor(IntEnum):
    NAME = 0
    TENSOR = 1


class _Subgraph(IntEnum):
    TENSORS = 0
    INPUTS = 1
    OUTPUTS = 2
    OPERATORS = 3


class _Code(IntEnum):
    SHORT = 0
    """Up to number 127; the larger of both counts."""
    CUSTOM = 1
    VERSION = 2
    NUMBER = 3


class _Tensor(IntEnum):
    SHAPE = 0
    TYPE = 1
    BUFFER = 2
    NAME = 3
    SPARSITY = 6
    SHAPE_SIGNATURE = 7


class _Operator(IntEnum):
    CODE = 0
    INPUTS = 1
    OUTPUTS = 2


class _Buffer(IntEnum):
    DATA = 0
    OFFSET = 1
    SIZE = 2


def inspect_tflite(path: Path) -> Found:
    """Walk the whole structure and describe the model; raises Objection."""
    with path.open("rb") as file:
        if file.read(8)[4:] != IDENTIFIER:
            raise Objection("It is not a TFLite file: TFL3 does not stand at its byte 4.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _inspect(FlatBuffer(data, len(data)).root())


def _inspect(model: Table) -> Found:
    if model.uint32(_Model.VERSION) != VERSION:
        version = model.uint32(_Model.VERSION)
        raise Objection(f"Its schema has version {version}; version {VERSION} is known.")
    codes = model.vector(_Model.OPERATOR_CODES)
    stored = [_stored_bytes(buffer) for buffer in model.vector(_Model.BUFFERS).tables()]
    graphs = [_Graph.read(graph, codes, stored) for graph in model.vector(_Model.SUBGRAPHS).tables()]
    if not graphs:
        raise Objection("It holds no graph.")
    main = graphs[0]
    weights = {number: elements for graph in graphs for number, elements in graph.weights.items()}
    names = _signed_names(model, main)
    return Found(
        inputs=[_describe(main.tensors[index], names.get(index), "input") for index in main.inputs],
        outputs=[_describe(main.tensors[index], names.get(index), "output") for index in main.outputs],
        operator_sets={},
        operators=frozenset(_operator_name(code) for code in codes.tables()),
        parameters=sum(weights.values()),
        memory_bytes=sum(stored) + main.peak(),
    )


def _stored_bytes(buffer: Table) -> int:
    """Hold a buffer against the file: in the structure, or behind it in files of more than 2 GiB."""
    inside = buffer.vector(_Buffer.DATA, item_bytes=1).length
    size = buffer.uint64(_Buffer.SIZE)
    if buffer.uint64(_Buffer.OFFSET) + size > buffer.buffer.size:
        raise Objection("It is cut off or damaged: it refers to weights behind its end.")
    return inside or size


@dataclass(frozen=True)
class _Graph:
    """One graph, every index in it checked."""

    tensors: Sequence[Table]
    inputs: Sequence[int]
    outputs: Sequence[int]
    steps: Sequence[Step[int]]
    weights: Mapping[int, int]
    """Elements of the stored tensors, by number of the buffer."""
    free: Mapping[int, int]
    """Bytes of the tensors that are computed, by number."""

    @classmethod
    def read(cls, graph: Table, codes: Vector, stored: Sequence[int]) -> _Graph:
        tensors = list(graph.vector(_Subgraph.TENSORS).tables())
        weights, free = {}, {}
        for number, tensor in enumerate(tensors):
            buffer = tensor.uint32(_Tensor.BUFFER)
            _check_index(buffer, len(stored), "weights")
            elements, size = _size(tensor)
            if stored[buffer]:
                _check_weights(tensor, size, stored[buffer])
                weights[buffer] = elements
            else:
                free[number] = size
        steps = [_step(operator, codes, tensors) for operator in graph.vector(_Subgraph.OPERATORS).tables()]
        if not steps:
            raise Objection("It is not a TFLite file, or its graph is empty.")
        inputs, outputs = (
            _indexes(graph.vector(field), tensors) for field in (_Subgraph.INPUTS, _Subgraph.OUTPUTS)
        )
        return cls(tensors, inputs, outputs, steps, weights, free)

    def peak(self) -> int:
        """Give the most bytes between its operators."""
        return peak_bytes(self.steps, self.free, self.inputs, self.outputs)


def _step(operator: Table, codes: Vector, tensors: Sequence[Table]) -> Step[int]:
    _check_index(operator.uint32(_Operator.CODE), codes.length, "operators")
    takes, makes = (
        [index for index in operator.vector(field).ints() if index != OPTIONAL]
        for field in (_Operator.INPUTS, _Operator.OUTPUTS)
    )
    for index in (*takes, *makes):
        _check_index(index, len(tensors), "tensors")
    return Step(takes, makes)


def _indexes(vector: Vector, tensors: Sequence[Table]) -> list[int]:
    indexes = list(vector.ints())
    for index in indexes:
        _check_index(index, len(tensors), "tensors")
    return indexes


def _check_index(index: int, length: int, what: str) -> None:
    if not 0 <= index < length:
        raise Objection(f"It is damaged: it refers to number {index} of its {length} {what}.")


def _size(tensor: Table) -> tuple[int, int]:
    """Give elements and bytes of a tensor at a batch of one, which is what its shape says."""
    elements = count_elements(size if size >= 0 else None for size in tensor.vector(_Tensor.SHAPE).ints())
    return elements, count_bytes(elements, BITS.get(tensor.int8(_Tensor.TYPE), 0))


def _check_weights(tensor: Table, size: int, stored: int) -> None:
    if size > stored and not tensor.has(_Tensor.SPARSITY):
        name = tensor.text(_Tensor.NAME)[:100]
        raise Objection(f"Its tensor {name!r} needs {size} bytes and has {stored}.")


def _operator_name(code: Table) -> str:
    number = max(code.int8(_Code.SHORT), code.uint32(_Code.NUMBER))
    _check_index(number, len(BUILTIN), "known operators")
    name = f"custom:{code.text(_Code.CUSTOM)}" if number == CUSTOM else BUILTIN[number]
    return f"{name}@{code.uint32(_Code.VERSION) or 1}"


def _signed_names(model: Table, main: _Graph) -> dict[int, str]:
    """Give the names that a signature of the main graph gives its tensors: servers go by them."""
    for signature in model.vector(_Model.SIGNATURES).tables():
        inputs, outputs = (
            {one.uint32(_SignatureTensor.TENSOR): one.text(_SignatureTensor.NAME) for one in pairs.tables()}
            for pairs in (signature.vector(_Signature.INPUTS), signature.vector(_Signature.OUTPUTS))
        )
        whole = inputs.keys() == set(main.inputs) and outputs.keys() <= set(main.outputs)
        if whole and signature.uint32(_Signature.SUBGRAPH) == 0:
            return inputs | outputs
    return {}


def _describe(tensor: Table, signed: str | None, what: str) -> Tensor:
    name = signed or tensor.text(_Tensor.NAME)
    datatype = DATATYPES.get(tensor.int8(_Tensor.TYPE))
    if datatype is None:
        raise Objection(
            f"Its {what} {name[:100]!r} is of a type that clients cannot send or receive (number "
            f"{tensor.int8(_Tensor.TYPE)} of the schema); convert the model with FP32 or INT8 there."
        )
    signature = tensor.vector(_Tensor.SHAPE_SIGNATURE)  # has -1 for a dimension that is free
    shape = signature if signature.length else tensor.vector(_Tensor.SHAPE)
    return Tensor(name, datatype, tuple(str(size) if size >= 0 else FREE for size in shape.ints()))
