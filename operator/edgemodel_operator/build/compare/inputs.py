"""Made-up inputs for a model: the same for the same signature, in every process."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]

FREE_SIZES = (1, 8, 64, 224)
"""What a free dimension is tried with, one after the other; a free batch is always one."""

_SEED = 20240214
_MOST_ELEMENTS = 1 << 24
_DTYPES: Mapping[str, str] = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Signature:
    """An input: its name, its type in ONNX Runtime's words, its dimensions (no number: free)."""

    name: str
    datatype: str
    shape: Sequence[int | str | None]


def make_inputs(signatures: Sequence[Signature], free: int) -> Tensors | None:
    """Give seeded random inputs, free dimensions of the size `free`; None where the types are beyond us.

    Numbers are between zero and one, whole numbers zero or one: as tokens, indices and shapes they are valid
    more often than others.
    """
    random = Random(_SEED)  # noqa: S311 - no secrets; and images hold no numpy.random
    made: dict[str, NDArray[Any]] = {}
    for signature in signatures:
        shape = [_size(dimension, axis, free) for axis, dimension in enumerate(signature.shape)]
        if signature.datatype not in _DTYPES or np.prod(shape, dtype=float) > _MOST_ELEMENTS:
            return None
        dtype = np.dtype(_DTYPES[signature.datatype])
        words = np.frombuffer(random.randbytes(4 * math.prod(shape)), "<u4").reshape(shape)
        values = words / 2**32 if dtype.kind == "f" else words & 1
        made[signature.name] = np.asarray(values).astype(dtype)
    return made


def _size(dimension: int | str | None, axis: int, free: int) -> int:
    if isinstance(dimension, int) and dimension >= 0:
        return dimension
    return 1 if axis == 0 else free
