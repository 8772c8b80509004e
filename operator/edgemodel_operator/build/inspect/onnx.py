"""Reading ONNX files with the onnx package: `irVersion`, `opsets`, inputs and outputs.

Only the inspecting process may import this module: it imports onnx, a native parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from edgemodel_operator.build.inspect.objection import Objection

MIN_IR_VERSION = 3
"""The first version with a stable meaning of operator sets (ONNX 1.0)."""

_STANDARD_DOMAINS = frozenset({"", "ai.onnx"})


def inspect_onnx(path: Path) -> dict[str, Any]:
    """Read the graph without its external data and describe it; raises Objection."""
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, RecursionError) as error:
        raise Objection("It is not an ONNX file: its bytes cannot be decoded as a model.") from error
    if not model.HasField("graph") or not model.graph.node:
        raise Objection("It is not an ONNX file, or its graph is empty.")
    _check_versions(model, newest_ir=onnx.IR_VERSION, newest_opset=onnx.defs.onnx_opset_version())
    initial = {tensor.name for tensor in model.graph.initializer}
    inputs = [_describe(value) for value in model.graph.input if value.name not in initial]
    outputs = [_describe(value) for value in model.graph.output]
    if not inputs or not outputs:
        raise Objection("Its graph has no inputs or no outputs.")
    _check_tensors(model)
    return {
        "irVersion": model.ir_version,
        "opsets": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
        "inputs": inputs,
        "outputs": outputs,
    }


def _check_versions(model: Any, *, newest_ir: int, newest_opset: int) -> None:
    if not MIN_IR_VERSION <= model.ir_version <= newest_ir:
        raise Objection(
            f"Its IR version is {model.ir_version}; versions {MIN_IR_VERSION} to {newest_ir} are known."
        )
    standard = [entry.version for entry in model.opset_import if entry.domain in _STANDARD_DOMAINS]
    if not model.opset_import:
        raise Objection("It names no operator set.")
    for version in standard:
        if not 1 <= version <= newest_opset:
            raise Objection(f"Its operator set is {version}; sets 1 to {newest_opset} are known.")


def _check_tensors(model: Any) -> None:
    external = onnx.TensorProto.EXTERNAL
    for tensor in _tensors(model):
        if tensor.data_location == external or tensor.external_data:
            raise Objection(
                f"Its tensor {tensor.name[:100]!r} lies in another file; save the model as a single file."
            )


def _tensors(model: Any) -> Iterator[Any]:
    """Walk every tensor: initializers, attributes, subgraphs and functions."""
    graphs = [model.graph]
    for function in model.functions:
        yield from _node_tensors(function.node, graphs)
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _node_tensors(graph.node, graphs)


def _node_tensors(nodes: Any, graphs: list[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
            for sparse in attribute.sparse_tensors:
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            graphs.extend(attribute.graphs)


def _describe(value: Any) -> dict[str, Any]:
    tensor = value.type.tensor_type
    shape = [
        dimension.dim_value if dimension.HasField("dim_value") else (dimension.dim_param or None)
        for dimension in tensor.shape.dim
    ]
    return {"name": value.name, "type": tensor.elem_type, "shape": shape}
