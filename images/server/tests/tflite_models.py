"""Small TFLite models written on the spot, one operator at a time, by the schema that LiteRT itself ships."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray

KINDS = {
    "BOOL": schema.TensorType.BOOL,
    "UINT8": schema.TensorType.UINT8,
    "UINT16": schema.TensorType.UINT16,
    "UINT32": schema.TensorType.UINT32,
    "UINT64": schema.TensorType.UINT64,
    "INT8": schema.TensorType.INT8,
    "INT16": schema.TensorType.INT16,
    "INT32": schema.TensorType.INT32,
    "INT64": schema.TensorType.INT64,
    "FP16": schema.TensorType.FLOAT16,
    "FP32": schema.TensorType.FLOAT32,
    "FP64": schema.TensorType.FLOAT64,
    "BYTES": schema.TensorType.STRING,
}


@dataclass
class Graph:
    """One subgraph under construction; tensors are numbers in the order in which they were added."""

    model: "TfliteMaker"
    part: Any = field(default_factory=schema.SubGraphT)

    def __post_init__(self) -> None:
        self.part.tensors, self.part.operators, self.part.inputs, self.part.outputs = [], [], [], []

    def tensor(self, name: str, kind: int, shape: Sequence[int], data: NDArray[Any] | None = None) -> int:
        """Add a tensor; -1 in ``shape`` makes a dimension dynamic, ``data`` makes it a constant."""
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.hasRank = name, kind, True
        tensor.shape = [1 if size == -1 else size for size in shape]
        tensor.shapeSignature = list(shape) if -1 in shape else None
        tensor.buffer = 0 if data is None else self.model.add_buffer(data)
        self.part.tensors.append(tensor)
        return len(self.part.tensors) - 1

    def quantize(self, tensor: int, scale: float, zero_point: int) -> None:
        """Give a tensor the parameters by which its integers stand for numbers."""
        parameters = schema.QuantizationParametersT()
        parameters.scale, parameters.zeroPoint = [scale], [zero_point]
        self.part.tensors[tensor].quantization = parameters

    def operate(
        self,
        code: int,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Any = None,
        custom: str | None = None,
    ) -> None:
        """Add an operator; ``options`` is the schema's table for it, ``custom`` the name of one without."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.model.use_operator(code, custom)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            table = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = options
        self.part.operators.append(operator)


class TfliteMaker:
    """A model under construction; the first graph is the one that runs."""

    def __init__(self) -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._model.subgraphs = []
        self._model.signatureDefs = []

    def graph(self) -> Graph:
        graph = Graph(self)
        self._model.subgraphs.append(graph.part)
        return graph

    def add_buffer(self, data: NDArray[Any]) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(data.tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1

    def use_operator(self, code: int, custom: str | None) -> int:
        entry = schema.OperatorCodeT()
        entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
        entry.customCode = custom
        self._model.operatorCodes.append(entry)
        return len(self._model.operatorCodes) - 1

    def add_external(self, name: str, length: int) -> int:
        """Add a buffer whose bytes are those of a file of its own."""
        group, buffer = schema.ExternalBufferGroupT(), schema.ExternalBufferT()
        group.name = name
        buffer.id, buffer.group, buffer.offset, buffer.length = 1, 0, 0, length
        self._model.externalBufferGroups, self._model.externalBuffers = [group], [buffer]
        return 1

    def sign(self, inputs: dict[str, int], outputs: dict[str, int]) -> None:
        """Name the tensors of the first graph for users."""
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = "serving_default", 0
        signature.inputs = [_map_tensor(name, index) for name, index in inputs.items()]
        signature.outputs = [_map_tensor(name, index) for name, index in outputs.items()]
        self._model.signatureDefs.append(signature)

    def save(self, path: Path, *, graphs: bool = True) -> Path:
        if not graphs:
            self._model.subgraphs = None
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(builder.Output())
        return path


def _map_tensor(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry


def save_identities(path: Path) -> Path:
    """One input and one equal output per datatype: in_FP32 -> out_FP32, each of shape [n, 2]."""
    maker = TfliteMaker()
    graph = maker.graph()
    rows = graph.tensor("rows", KINDS["INT32"], [2], np.array([-1, 2], np.int32))
    names: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for name, kind in KINDS.items():
        x = graph.tensor(f"{name}/in:0", kind, [-1, 2])
        y = graph.tensor(f"{name}/out:0", kind, [-1, 2])
        options = schema.ReshapeOptionsT()
        options.newShape = [-1, 2]
        graph.operate(schema.BuiltinOperator.RESHAPE, [x, rows], [y], options)
        graph.part.inputs.append(x)
        graph.part.outputs.append(y)
        names[0][f"in_{name}"], names[1][f"out_{name}"] = x, y
    maker.sign(*names)
    return maker.save(path)


def save_dense(path: Path, *, signed: bool = True, rows: int = -1, scale: float = 1.0) -> Path:
    """x: FP32 [n, 4] -> y: FP32 [n, 3], tanh of a product; XNNPACK takes all of it."""
    maker = TfliteMaker()
    graph = maker.graph()
    weights = (np.arange(12, dtype=np.float32).reshape(3, 4) / 7 - 0.5) * np.float32(scale)
    x = graph.tensor("x:0", KINDS["FP32"], [rows, 4])
    w = graph.tensor("w", KINDS["FP32"], [3, 4], weights)
    h = graph.tensor("h", KINDS["FP32"], [rows, 3])
    y = graph.tensor("y:0", KINDS["FP32"], [rows, 3])
    options = schema.FullyConnectedOptionsT()
    graph.operate(schema.BuiltinOperator.FULLY_CONNECTED, [x, w, -1], [h], options)
    graph.operate(schema.BuiltinOperator.TANH, [h], [y])
    graph.part.inputs, graph.part.outputs = [x], [y]
    if signed:
        maker.sign({"x": x}, {"y": y})
    return maker.save(path)


def save_products(path: Path, weights: NDArray[np.float32]) -> Path:
    """x: FP32 [n, width] -> y: FP32 [n, width], two products with square weights."""
    maker = TfliteMaker()
    graph = maker.graph()
    x, h, y = (graph.tensor(name, KINDS["FP32"], [-1, len(weights)]) for name in ("x", "h", "y"))
    w = graph.tensor("w", KINDS["FP32"], weights.shape, weights)
    for source, target in ((x, h), (h, y)):
        options = schema.FullyConnectedOptionsT()
        graph.operate(schema.BuiltinOperator.FULLY_CONNECTED, [source, w, -1], [target], options)
    graph.part.inputs, graph.part.outputs = [x], [y]
    return maker.save(path)


def save_reshape(path: Path, *, and_tanh: bool = False) -> Path:
    """x: FP32 [n, 2] -> y: FP32 [n, 2], equal, or its tanh."""
    maker = TfliteMaker()
    graph = maker.graph()
    x = graph.tensor("x", KINDS["FP32"], [-1, 2])
    rows = graph.tensor("rows", KINDS["INT32"], [2], np.array([-1, 2], np.int32))
    h = graph.tensor("h" if and_tanh else "y", KINDS["FP32"], [-1, 2])
    options = schema.ReshapeOptionsT()
    options.newShape = [-1, 2]
    graph.operate(schema.BuiltinOperator.RESHAPE, [x, rows], [h], options)
    graph.part.inputs, graph.part.outputs = [x], [h]
    if and_tanh:
        y = graph.tensor("y", KINDS["FP32"], [-1, 2])
        graph.operate(schema.BuiltinOperator.TANH, [h], [y])
        graph.part.outputs = [y]
    return maker.save(path)


def save_dequantize(path: Path) -> Path:
    """x: INT8 [n, 4] with scale 0.5 and zero point -3 -> y: FP32 [n, 4]."""
    maker = TfliteMaker()
    graph = maker.graph()
    x = graph.tensor("x", KINDS["INT8"], [-1, 4])
    graph.quantize(x, 0.5, -3)
    y = graph.tensor("y", KINDS["FP32"], [-1, 4])
    graph.operate(schema.BuiltinOperator.DEQUANTIZE, [x], [y])
    graph.part.inputs, graph.part.outputs = [x], [y]
    return maker.save(path)


def save_external(path: Path, weights: str) -> Path:
    """x: FP32 [1, 4] -> y: FP32 [1, 4], whose weights are in a file of their own."""
    maker = TfliteMaker()
    graph = maker.graph()
    x, y = graph.tensor("x", KINDS["FP32"], [1, 4]), graph.tensor("y", KINDS["FP32"], [1, 4])
    w = graph.tensor("w", KINDS["FP32"], [4, 4])
    graph.part.tensors[w].externalBuffer = maker.add_external(weights, 64)
    graph.operate(schema.BuiltinOperator.FULLY_CONNECTED, [x, w, -1], [y], schema.FullyConnectedOptionsT())
    graph.part.inputs, graph.part.outputs = [x], [y]
    return maker.save(path)


def save_nothing(path: Path) -> Path:
    """A sound FlatBuffer without a graph, which LiteRT does not look for before it reads it."""
    maker = TfliteMaker()
    return maker.save(path, graphs=False)


def save_custom(path: Path, operation: str) -> Path:
    """x: FP32 [2] -> y: FP32 [2], by an operation that only a delegate could know."""
    maker = TfliteMaker()
    graph = maker.graph()
    x, y = graph.tensor("x", KINDS["FP32"], [2]), graph.tensor("y", KINDS["FP32"], [2])
    graph.operate(schema.BuiltinOperator.CUSTOM, [x], [y], custom=operation)
    graph.part.inputs, graph.part.outputs = [x], [y]
    return maker.save(path)


def save_sum(path: Path) -> Path:
    """x: FP32 [2] -> y: FP32 [2], the sum of all x that this interpreter has seen: a model with state."""
    maker = TfliteMaker()
    graph, start = maker.graph(), maker.graph()
    resource, floats = schema.TensorType.RESOURCE, KINDS["FP32"]

    def use_variable(target: Graph) -> int:
        handle = target.tensor("variable", resource, [])
        options = schema.VarHandleOptionsT()
        options.container, options.sharedName = "", "sum"
        target.operate(schema.BuiltinOperator.VAR_HANDLE, [], [handle], options)
        return handle

    once = schema.CallOnceOptionsT()
    once.initSubgraphIndex = 1
    graph.operate(schema.BuiltinOperator.CALL_ONCE, [], [], once)
    handle = use_variable(graph)
    x = graph.tensor("x", floats, [2])
    before = graph.tensor("before", floats, [2])
    y = graph.tensor("y", floats, [2])
    graph.operate(schema.BuiltinOperator.READ_VARIABLE, [handle], [before], schema.ReadVariableOptionsT())
    graph.operate(schema.BuiltinOperator.ADD, [before, x], [y], schema.AddOptionsT())
    graph.operate(schema.BuiltinOperator.ASSIGN_VARIABLE, [handle, y], [], schema.AssignVariableOptionsT())
    graph.part.inputs, graph.part.outputs = [x], [y]
    handle = use_variable(start)
    zeros = start.tensor("zeros", floats, [2], np.zeros(2, np.float32))
    start.operate(
        schema.BuiltinOperator.ASSIGN_VARIABLE, [handle, zeros], [], schema.AssignVariableOptionsT()
    )
    return maker.save(path)
