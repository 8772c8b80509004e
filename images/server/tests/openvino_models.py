"""Small OpenVINO models, written by OpenVINO itself."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemodel_server.runtimes.openvino_library import ov

KINDS = {
    "BOOL": "boolean",
    "UINT8": "u8",
    "UINT16": "u16",
    "UINT32": "u32",
    "UINT64": "u64",
    "INT8": "i8",
    "INT16": "i16",
    "INT32": "i32",
    "INT64": "i64",
    "FP16": "f16",
    "FP32": "f32",
    "FP64": "f64",
    "BYTES": "string",
}


def save_identities(path: Path) -> Path:
    """One input and one equal output per datatype: in_FP32 -> out_FP32, each of shape [n, 2]."""
    inputs, results = [], []
    for name, kind in KINDS.items():
        x = ov.opset13.parameter([-1, 2], getattr(ov.Type, kind), name=f"in_{name}")
        x.output(0).set_names({f"in_{name}"})
        y = ov.opset13.result(x)
        y.output(0).set_names({f"in_{name}", f"out_{name}"})
        inputs.append(x)
        results.append(y)
    return _save(path, results, inputs)


def save_dense(path: Path, scale: float = 1.0) -> Path:
    """x: FP32 [n, 4] -> y: FP32 [n, 3], tanh of a product."""
    ops = ov.opset13
    weights = (np.arange(12, dtype=np.float32).reshape(4, 3) / 7 - 0.5) * np.float32(scale)
    x = ops.parameter([-1, 4], ov.Type.f32, name="x")
    y = ops.tanh(ops.matmul(x, ops.constant(weights), False, False))
    y.output(0).set_names({"y"})
    return _save(path, [y], [x])


def save_products(path: Path, weights: NDArray[np.float32]) -> Path:
    """x: FP32 [n, width] -> y: FP32 [n, width], two products with square weights."""
    ops = ov.opset13
    x = ops.parameter([-1, len(weights)], ov.Type.f32, name="x")
    w = ops.constant(weights)
    y = ops.matmul(ops.matmul(x, w, False, False), w, False, False)
    y.output(0).set_names({"y"})
    return _save(path, [y], [x])


def _save(path: Path, results: list[object], inputs: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ov.save_model(ov.Model(results, inputs, "graph"), path, compress_to_fp16=False)
    return path
