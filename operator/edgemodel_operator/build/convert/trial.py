"""Running a model before and after its conversion on the same made-up numbers.

Two outputs agree when no element differs by more than 1e-4 of the largest number in the original's (of 1,
where all are smaller); whole numbers, truth values and what is no number must be equal. Exporters fold
constants and runtimes add in other orders, which costs about 1e-6; a wrong operator costs far more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemodel_operator.build.convert.job import Input
from edgemodel_operator.build.inspect.objection import Objection

TOLERANCE = 1e-4

_DTYPES = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
}


class OutputsDiffer(Objection):
    """The converted model computes something else."""


def make_inputs(inputs: Sequence[Input], seed: int = 0) -> list[NDArray[Any]]:
    """Make up a tensor for each input: normal numbers, bytes up to 127, other whole numbers 0 and 1.

    Those may be positions in a table, and every table has two rows. Raises Objection for texts.
    """
    rng = np.random.default_rng(seed)
    return [_make(rng, one) for one in inputs]


def datatype_of(dtype: np.dtype[Any]) -> str:
    """Give the datatype of the Open Inference Protocol for a numpy one; raises Objection where none is."""
    for name, known in _DTYPES.items():
        if dtype == known:
            return name
    raise Objection(f"It takes {dtype}, which clients cannot send.")


def check_outputs(originals: Sequence[NDArray[Any]], converted: Sequence[NDArray[Any]]) -> None:
    """Compare all outputs, in order; raises OutputsDiffer."""
    if len(originals) != len(converted):
        raise OutputsDiffer(f"It has {len(converted)} outputs where the original has {len(originals)}.")
    for number, (before, after) in enumerate(zip(originals, converted, strict=True)):
        _check_output(number, before, after)


def _check_output(number: int, before: NDArray[Any], after: NDArray[Any]) -> None:
    if before.shape != after.shape:
        raise OutputsDiffer(f"Its output {number} has the shape {after.shape}, not {before.shape}.")
    if before.dtype.kind != "f":
        if not np.array_equal(before, after):
            raise OutputsDiffer(f"Its output {number} has other numbers than the original's.")
        return
    finite = np.isfinite(before)
    unlike = before[~finite], after[~finite]
    if not np.array_equal(*unlike, equal_nan=True):
        raise OutputsDiffer(f"Its output {number} has numbers where the original has none, or the reverse.")
    wanted, got = before[finite].astype(np.float64), after[finite].astype(np.float64)
    scale = max(1.0, float(np.max(np.abs(wanted), initial=0.0)))
    distance = float(np.max(np.abs(wanted - got), initial=0.0))
    if not distance <= TOLERANCE * scale:
        raise OutputsDiffer(
            f"Its output {number} differs from the original's by {distance:.3g}, more than {TOLERANCE:g} of "
            f"the largest number ({scale:.3g})."
        )


def _make(rng: np.random.Generator, one: Input) -> NDArray[Any]:
    dtype = _DTYPES.get(one.datatype)
    if dtype is None:
        raise Objection(f"Its input {one.name!r} is {one.datatype}: write one of {', '.join(_DTYPES)}.")
    kind = np.dtype(dtype).kind
    if kind == "f":
        return rng.standard_normal(one.tried_shape).astype(dtype)
    bound = 128 if np.dtype(dtype).itemsize == 1 and kind != "b" else 2
    return rng.integers(0, bound, one.tried_shape).astype(dtype)
