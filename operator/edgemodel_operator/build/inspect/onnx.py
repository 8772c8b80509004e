"""Reading ONNX graphs with the onnx package; their weights are never read, wherever they lie.

Format: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto. Only the inspecting process may import this
module: it imports onnx, a native parser.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from edgemodel_operator.build.inspect.found import FREE, Found, Tensor
from edgemodel_operator.build.inspect.memory import Step, count_bytes, count_elements, peak_bytes
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.onnx_outline import Outline
from edgemodel_operator.build.inspect.onnx_tensors import BITS, DATATYPES, StoredTensors

MIN_IR_VERSION = 3
"""The first version with a stable meaning of operator sets (ONNX 1.0)."""
STANDARD = "ai.onnx"

_COPIES = 6
"""How often a graph is in memory while its shapes are inferred: as bytes and decoded, here and in onnx."""
_STANDARD_DOMAINS = frozenset({"", STANDARD})


def inspect_onnx(path: Path, sizes: Mapping[str, int]) -> Found:
    """Describe a graph; `sizes` (bytes) are of the files that its tensors may name.

    Raises Objection, or MemoryError where the graph without its weights is larger than this process may hold.
    """
    outline = _outline(path)
    model = _load(outline)
    _check_versions(model, newest_ir=onnx.IR_VERSION, newest_opset=onnx.defs.onnx_opset_version())
    initial = {tensor.name for tensor in model.graph.initializer}
    initial |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = [value for value in model.graph.input if value.name not in initial]
    stored = StoredTensors(sizes, outline)
    for tensor in _tensors(model):
        stored.add(tensor)
    return Found(
        inputs=[_describe(value, "input") for value in inputs],
        outputs=[_describe(value, "output") for value in model.graph.output],
        operator_sets=_operator_sets(model),
        operators=_operators(model),
        parameters=stored.elements,
        memory_bytes=stored.bytes + _peak(model, [value.name for value in inputs]),
    )


def _outline(path: Path) -> Outline:
    try:
        return Outline(path)
    except Objection as error:
        raise Objection(f"It is not an ONNX file: {error}") from error


def _load(outline: Outline) -> Any:
    most, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if most != resource.RLIM_INFINITY and _COPIES * len(outline.content) > most:
        raise MemoryError  # asked beforehand: the parser calls a lack of memory a damaged file
    try:
        model = onnx.load_model_from_string(outline.content)
    except (DecodeError, ValueError, RecursionError) as error:
        raise Objection("It is not an ONNX file: its bytes cannot be decoded as a model.") from error
    if not model.HasField("graph") or not model.graph.node:
        raise Objection("It is not an ONNX file, or its graph is empty.")
    return model


def _check_versions(model: Any, *, newest_ir: int, newest_opset: int) -> None:
    if not MIN_IR_VERSION <= model.ir_version <= newest_ir:
        raise Objection(
            f"Its IR version is {model.ir_version}; versions {MIN_IR_VERSION} to {newest_ir} are known."
        )
    if not model.opset_import:
        raise Objection("It names no operator set.")
    for version in (entry.version for entry in _imports(model) if entry.domain in _STANDARD_DOMAINS):
        if not 1 <= version <= newest_opset:
            raise Objection(f"Its operator set is {version}; sets 1 to {newest_opset} are known.")


def _imports(model: Any) -> Iterator[Any]:
    yield from model.opset_import
    for function in model.functions:
        yield from function.opset_import


def _operator_sets(model: Any) -> dict[str, int]:
    """Give the version of each domain, the newest where functions of the model ask for others."""
    own = {function.domain for function in model.functions}
    sets: dict[str, int] = {}
    for entry in _imports(model):
        domain = entry.domain or STANDARD
        if domain not in own:
            sets[domain] = max(entry.version, sets.get(domain, 0))
    return sets


def _operators(model: Any) -> frozenset[str]:
    own = {(function.domain, function.name) for function in model.functions}
    return frozenset(
        node.op_type if node.domain in _STANDARD_DOMAINS else f"{node.domain}:{node.op_type}"
        for nodes in _bodies(model)
        for node in nodes
        if (node.domain, node.op_type) not in own
    )


def _graphs(model: Any) -> Iterator[Any]:
    """Walk every graph: the main one, those for training, and the branches and bodies within all of them."""
    waiting = [model.graph]
    waiting += [graph for info in model.training_info for graph in (info.initialization, info.algorithm)]
    for function in model.functions:
        waiting += _inner_graphs(function.node)
    while waiting:
        graph = waiting.pop()
        waiting += _inner_graphs(graph.node)
        yield graph


def _inner_graphs(nodes: Any) -> list[Any]:
    attributes = [attribute for node in nodes for attribute in node.attribute]
    single = [attribute.g for attribute in attributes if attribute.HasField("g")]
    return single + [graph for attribute in attributes for graph in attribute.graphs]


def _bodies(model: Any) -> Iterator[Any]:
    """Walk every list of nodes."""
    yield from (function.node for function in model.functions)
    yield from (graph.node for graph in _graphs(model))


def _tensors(model: Any) -> Iterator[Any]:
    """Walk every stored tensor: initializers and attributes, wherever they are."""
    for graph in _graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for function in model.functions:
        for attribute in function.attribute_proto:
            yield from _attribute_tensors(attribute)
    for nodes in _bodies(model):
        for node in nodes:
            for attribute in node.attribute:
                yield from _attribute_tensors(attribute)


def _attribute_tensors(attribute: Any) -> Iterator[Any]:
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
    for tensor in (*sparse, *attribute.sparse_tensors):
        yield from (tensor.values, tensor.indices)


def _describe(value: Any, what: str) -> Tensor:
    if value.type.WhichOneof("value") != "tensor_type":
        raise Objection(
            f"Its {what} {value.name[:100]!r} is no tensor; clients can send and receive tensors alone. "
            "A classifier of scikit-learn gives tensors when it is converted with `zipmap=False`."
        )
    tensor = value.type.tensor_type
    datatype = DATATYPES.get(tensor.elem_type)
    if datatype is None:
        raise Objection(
            f"Its {what} {value.name[:100]!r} is of a type that clients cannot send or receive "
            f"({onnx.TensorProto.DataType.Name(tensor.elem_type) if tensor.elem_type in BITS else 'unknown'})"
            "; export the model with FP32 or FP16 there."
        )
    shape = tuple(
        dimension.dim_param or FREE if size is None else str(size)
        for dimension, size in zip(tensor.shape.dim, _shape(tensor), strict=True)
    )
    return Tensor(value.name, datatype, shape)


def _shape(tensor: Any) -> list[int | None]:
    """Give the sizes of a tensor's type; None for those that may vary, which some exporters write as -1."""
    sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim]
    return [size if size >= 0 else None for size in sizes]


def _peak(model: Any, inputs: list[str]) -> int:
    """Give the most bytes between the operators of the main graph, as far as their shapes can be inferred."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except (onnx.shape_inference.InferenceError, DecodeError, ValueError):
        graph = model.graph  # the shapes that the file itself tells
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        tensor = value.type.tensor_type
        if tensor.elem_type in BITS and tensor.HasField("shape"):
            sizes[value.name] = count_bytes(count_elements(_shape(tensor)), BITS[tensor.elem_type])
    for tensor in graph.initializer:
        sizes.pop(tensor.name, None)  # counted as stored
    sizes.pop("", None)  # the name of what an operator does without
    steps = [Step(tuple(node.input), tuple(node.output)) for node in graph.node]
    return peak_bytes(steps, sizes, inputs, [value.name for value in graph.output])
