"""The models of the demo: a real text-line orientation classifier, later versions of it, and a damaged one.

The classifier says whether a line of text stands upright or upside down. It is carried by a Python package
for text recognition (Apache-2.0), which is fetched with a pinned hash and only unpacked, never imported.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from demo.packaged import fetch_packaged

CLASSIFIER = Path("rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
CLASSIFIER_SHA256 = "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"


@dataclass(frozen=True)
class ModelFile:
    """One version of the model on disk."""

    version: str
    path: Path
    sha256: str


def fetch_classifier() -> Path:
    """Give the classifier, fetched on the first call."""
    return fetch_packaged("models.txt", CLASSIFIER, CLASSIFIER_SHA256)


def make_versions(folder: Path) -> dict[str, ModelFile]:
    """Write versions 1 to 4 into a folder: 1 is the original, 2 and 4 have a tuned head, 3 is damaged.

    The head of version 3 has its sign turned: the model loads, has the right shapes, and answers the
    opposite. That is what a golden sample is for.
    """
    original = fetch_classifier().read_bytes()
    files = {"1": original}
    for version, factor in (("2", 1.002), ("3", -1.0), ("4", 0.998)):
        files[version] = _with_scaled_head(original, factor)
    return {version: _write(folder, version, data) for version, data in files.items()}


def make_fresh_version(folder: Path, number: int) -> ModelFile:
    """Write a version that nobody has seen before: another head for each number."""
    data = _with_scaled_head(fetch_classifier().read_bytes(), 1.0 + number * 1e-4)
    return _write(folder, f"fresh-{number}", data)


def _write(folder: Path, version: str, data: bytes) -> ModelFile:
    path = folder / f"orientation-{version}.onnx"
    path.write_bytes(data)
    return ModelFile(version, path, hashlib.sha256(data).hexdigest())


def _with_scaled_head(data: bytes, factor: float) -> bytes:
    """Multiply the weights of the last matrix multiplication."""
    model = onnx.load_from_string(data)
    head = [node for node in model.graph.node if node.op_type == "MatMul"][-1]
    constant = next(
        node for node in model.graph.node if node.op_type == "Constant" and node.output[0] == head.input[1]
    )
    weights: NDArray[np.float32] = onnx.numpy_helper.to_array(constant.attribute[0].t)
    scaled = (weights * np.float32(factor)).astype(weights.dtype)
    constant.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(scaled, constant.attribute[0].t.name))
    return bytes(model.SerializeToString(deterministic=True))
