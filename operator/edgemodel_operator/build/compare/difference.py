"""How far two sets of outputs are apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def difference(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """Give the largest difference of two numbers, in relation to the largest expected one of its tensor.

    Infinite where shapes, types, texts, whole numbers or the places of NaN differ. What is no tensor (maps,
    sequences) is equal or infinitely far apart.
    """
    if len(expected) != len(found):
        return float("inf")
    return max((_distance(one, other) for one, other in zip(expected, found, strict=True)), default=0.0)


def _distance(expected: Any, found: Any) -> float:
    if not (isinstance(expected, np.ndarray) and isinstance(found, np.ndarray)):
        return 0.0 if repr(expected) == repr(found) else float("inf")
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return float("inf")
    if expected.dtype.kind not in "fc":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    return _distance_of_floats(expected, found)


def _distance_of_floats(expected: NDArray[Any], found: NDArray[Any]) -> float:
    same = (expected == found) | (np.isnan(expected) & np.isnan(found))
    if same.all():
        return 0.0
    apart = np.abs(expected[~same].astype(np.float64) - found[~same].astype(np.float64))
    if not np.isfinite(apart).all():
        return float("inf")
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    return float(apart.max()) / scale
