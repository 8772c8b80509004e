"""The models that are served: made on the spot, with seeded random weights, the same ones in every run.

| name   | shape of                                   | input         | parameters |
|--------|--------------------------------------------|---------------|------------|
| `iris` | a logistic regression                      | 4 features    | 15         |
| `ad`   | MLPerf Tiny's auto-encoder for ToyADMOS    | 640 features  | 0.27 M     |
| `mbv2` | MobileNetV2 1.0, batch norms folded        | 3 x 224 x 224 | 3.49 M     |
| `slow` | matrix products in a loop                  | 1 number      | none       |

All batches are free (`n`), as exporters write them, but that of `slow`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]

INPUT = "x"
OUTPUT = "y"
SHAPES: dict[str, tuple[int, ...]] = {"iris": (1, 4), "ad": (1, 640), "mbv2": (1, 3, 224, 224)}
"""Shape of one request's tensor, by model."""

_MOBILENET_V2 = (
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
)  # fmt: skip
"""Expansion, channels, repeats and first stride of each stage: table 2 of arXiv 1801.04381."""


def make_models(folder: Path) -> dict[str, Path]:
    """Write every model that answers requests of load into a folder; returns the files by model name."""
    makers: dict[str, Callable[[_Graph], str]] = {"iris": _iris, "ad": _auto_encoder, "mbv2": _mobilenet_v2}
    files: dict[str, Path] = {}
    for name, make in makers.items():
        graph = _Graph(np.random.default_rng(20240214))
        make(graph)
        files[name] = folder / f"{name}.onnx"
        graph.save(files[name], ("n", *SHAPES[name][1:]))
    return files


def make_inputs(model: str, count: int) -> list[Floats]:
    """Return different inputs for one model: numbers in [0, 1) with six decimals: 8.9 bytes of JSON each."""
    random = np.random.default_rng(7)
    return [random.random(SHAPES[model]).round(6).astype(np.float32) for _ in range(count)]


def _iris(graph: _Graph) -> str:
    return graph.add("Softmax", graph.dense(INPUT, 4, 3), axis=1)


def _auto_encoder(graph: _Graph) -> str:
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    value = INPUT
    for fan_in, fan_out in pairwise(widths):
        value = graph.add("Relu", graph.dense(value, fan_in, fan_out))
    return graph.dense(value, widths[-1], 640)


def _mobilenet_v2(graph: _Graph) -> str:
    value = graph.relu6(graph.stem(INPUT, 32))
    channels = 32
    for expansion, width, repeats, first_stride in _MOBILENET_V2:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            value = _inverted_residual(graph, value, (channels, width), expansion, stride)
            channels = width
    value = graph.relu6(graph.pointwise(value, channels, 1280))
    pooled = graph.add("Flatten", graph.add("GlobalAveragePool", value))
    return graph.dense(pooled, 1280, 1000)


def _inverted_residual(
    graph: _Graph, value: str, channels: tuple[int, int], expansion: int, stride: int
) -> str:
    narrow, width = channels
    wide = narrow * expansion
    hidden = value if expansion == 1 else graph.relu6(graph.pointwise(value, narrow, wide))
    hidden = graph.relu6(graph.depthwise(hidden, wide, stride))
    hidden = graph.pointwise(hidden, wide, width)
    return graph.add("Add", value, hidden) if stride == 1 and narrow == width else hidden


def make_slow(path: Path, rounds: int) -> Path:
    """Write a model that multiplies 128 x 128 matrices `rounds` times and returns its input, float32 [1]."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "matrix"], ["after"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [128, 128]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [128, 128])],
    )
    constants: dict[str, NDArray[Any]] = {
        "rounds": np.array(rounds, np.int64),
        "matrix": np.zeros((128, 128), np.float32),
        "size": np.array([128, 128], np.int64),
    }
    nodes = [
        helper.make_node("Expand", [INPUT, "size"], ["start"]),
        helper.make_node("Loop", ["rounds", "", "start"], ["end"], body=body),
        helper.make_node("ReduceMax", ["end"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "most"], ["nothing"]),
        helper.make_node("Add", [INPUT, "nothing"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [value(INPUT, TensorProto.FLOAT, [1])],
        [value(OUTPUT, TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    _save(graph, path)
    return path


def slow_input() -> Floats:
    """Return the input of that model."""
    return np.array([0.5], np.float32)


class _Graph:
    """An ONNX graph that grows node by node; weights are scaled so that activations keep their size."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        self._nodes: list[Any] = []
        self._weights: list[Any] = []

    def add(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Add a node; returns the name of its value."""
        name = f"v{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def relu6(self, value: str) -> str:
        """Add the activation of the MobileNets."""
        return self.add("Clip", value, self._constant("zero", 0.0), self._constant("six", 6.0))

    def dense(self, value: str, fan_in: int, fan_out: int) -> str:
        """Add a dense layer: [n, fan_in] -> [n, fan_out]."""
        weight = self._weight((fan_in, fan_out), fan_in, gain=2.0)
        return self.add("Gemm", value, weight, self._weight((fan_out,), fan_out, gain=0.1))

    def pointwise(self, value: str, fan_in: int, fan_out: int) -> str:
        """Add a convolution of single pixels."""
        return self._conv(value, (fan_out, fan_in, 1, 1))

    def depthwise(self, value: str, channels: int, stride: int) -> str:
        """Add a convolution of 3 x 3 pixels of each channel for itself."""
        return self._conv(value, (channels, 1, 3, 3), stride, groups=channels)

    def stem(self, value: str, fan_out: int) -> str:
        """Add the convolution that reads the picture."""
        return self._conv(value, (fan_out, 3, 3, 3), stride=2)

    def _conv(self, value: str, shape: tuple[int, int, int, int], stride: int = 1, groups: int = 1) -> str:
        kernel = shape[2]
        weight = self._weight(shape, shape[1] * kernel * kernel, gain=2.0)  # He et al.: for rectifiers
        bias = self._weight((shape[0],), shape[0], gain=0.1)
        return self.add("Conv", value, weight, bias, group=groups, kernel_shape=[kernel, kernel],
                        strides=[stride, stride], pads=[kernel // 2] * 4)  # fmt: skip

    def save(self, path: Path, shape: tuple[int | str, ...]) -> None:
        """Write the graph as a model with one input and one output."""
        self._nodes[-1].output[0] = OUTPUT
        value = helper.make_tensor_value_info
        inputs = [value(INPUT, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self._nodes, path.stem, inputs, [value(OUTPUT, TensorProto.FLOAT, None)],
                                  self._weights)  # fmt: skip
        _save(graph, path)

    def _weight(self, shape: tuple[int, ...], fan_in: int, *, gain: float) -> str:
        name = f"w{len(self._weights)}"
        values = self._random.normal(0.0, np.sqrt(gain / fan_in), shape).astype(np.float32)
        self._weights.append(numpy_helper.from_array(values, name))
        return name

    def _constant(self, name: str, number: float) -> str:
        if all(weight.name != name for weight in self._weights):
            self._weights.append(numpy_helper.from_array(np.array(number, np.float32), name))
        return name


def _save(graph: Any, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = onnx.shape_inference.infer_shapes(model)
    onnx.checker.check_model(model)
    onnx.save(model, path)
