"""The datatypes of the Open Inference Protocol v2 and how numpy holds them.

Source: Open Inference Protocol v2, section "Tensor Data Types". ``BYTES`` elements are Python ``bytes`` in an
object array; everything else is little-endian, as the binary tensor extension demands.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Tensor: TypeAlias = NDArray[Any]

BYTES = "BYTES"

NUMPY_DTYPE: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype("<u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    BYTES: np.dtype(np.object_),
}

JSON_TYPES: Mapping[str, frozenset[type]] = {
    name: frozenset(
        {str}
        if name == BYTES
        else {bool}
        if name == "BOOL"
        else {int, float}
        if name.startswith("FP")
        else {int}
    )
    for name in NUMPY_DTYPE
}
"""Which Python types ``orjson`` may give for an element. Numpy alone would take 1.7 as the INT32 1, ``"3"``
as a number and ``null`` as NaN: wrong answers without a word."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model: name, protocol datatype, and shape with -1 for a dynamic dimension.

    ``quantization`` is (scale, zero point) where integers stand for ``scale * (integer - zero_point)``.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    quantization: tuple[float, int] | None = None

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Say whether a tensor of ``shape`` fits: same rank, and equal where the model fixes it."""
        if shape == self.shape:
            return True
        return len(shape) == len(self.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, shape, strict=True)
        )

    def describe(self) -> dict[str, object]:
        """Return the tensor's entry in the model metadata answer."""
        entry: dict[str, object] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.quantization is not None:
            entry["parameters"] = dict(zip(("scale", "zero_point"), self.quantization, strict=True))
        return entry
