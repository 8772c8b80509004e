"""How to run a model: measured at its start, on this machine, never assumed.

Three questions. How long does one computation take? Are the rows of dimension 0 independent requests in
disguise, so that several may share a computation? And does that pay? Batching makes dense models several
times faster and many convolutional ones slower, and only a measurement tells which kind this is.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor
from edgemodel_server.inference import Signature
from edgemodel_server.runtimes import Model
from edgemodel_server.runtimes.slot import Geometry

PAYS_BELOW = 0.8
"""Batches are made where a row in a batch costs at most this part of a row alone."""

_NEAR_BEST = 1.1
"""Of the numbers of rows that are about equally good the smallest is taken: it needs less memory and time."""

_TELLING_ROWS = 4
_PROMISES_BELOW = 0.95
_BUDGET_SECONDS = 0.05
_MIN_RUNS = 3
_SLOW_SECONDS = 0.02
"""What takes longer alone is not measured further: a start must not take long, either."""

_SEED = 20


@dataclass(frozen=True, slots=True)
class Tuning:
    """What was measured.

    ``seconds`` is the fastest single computation, on inputs of ``input_bytes``; None: no inputs could be made
    up. ``geometry`` has the shapes of that computation where all of them are known, with ``rows`` above 1
    where requests may share one. ``batch_seconds`` are the measured times by number of rows.
    """

    seconds: float | None
    input_bytes: int
    geometry: Geometry | None = None
    batch_seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def max_rows(self) -> int:
        """How many rows a computation should have at most; 1 where batches do not pay."""
        return max(1, self.geometry.rows) if self.geometry else 1

    def shrink(self, seconds: float) -> Geometry | None:
        """Return the geometry with no more rows than are computed in ``seconds``."""
        if self.geometry is None or self.geometry.rows <= 1:
            return self.geometry
        fits = [rows for rows, taken in self.batch_seconds.items() if taken <= seconds]
        return replace(self.geometry, rows=max(1, min(self.geometry.rows, max(fits, default=1))))


def tune(model: Model, inputs: Mapping[str, Tensor], seconds: float, max_rows: int) -> Tuning:
    """Measure a warm model that takes ``inputs`` in ``seconds``; ``max_rows`` 1 forbids batches."""
    size = sum(array.nbytes for array in inputs.values())
    specs = (*model.signature.inputs.values(), *model.signature.outputs.values())
    plain = all(spec.datatype != BYTES and -1 not in spec.shape[1:] for spec in specs)
    if seconds >= _SLOW_SECONDS or not plain or not inputs:
        return Tuning(seconds, size)
    if all(-1 not in spec.shape for spec in specs):
        return Tuning(seconds, size, _make_geometry(model.signature, rows=0))
    if all(spec.shape[:1] == (-1,) for spec in specs):
        return _tune_rows(model, size, seconds, max_rows)
    return Tuning(seconds, size)


def _make_geometry(signature: Signature, rows: int) -> Geometry | None:
    """Return the shapes of all tensors, of one row where dimension 0 is free; None if one is empty."""
    inputs, outputs = (
        {name: (1, *spec.shape[1:]) if rows else spec.shape for name, spec in specs.items()}
        for specs in (signature.inputs, signature.outputs)
    )
    if any(0 in shape for shape in (*inputs.values(), *outputs.values())):
        return None
    return Geometry(inputs, outputs, rows)


def _tune_rows(model: Model, size: int, seconds: float, max_rows: int) -> Tuning:
    try:
        independent = _are_independent(model, _make_rows(model.signature, 2))
    except Exception:  # made-up values that the model refuses: nothing is known about its rows
        independent = False
    if not independent:
        return Tuning(seconds, size)
    measured = _measure_rows(model, max_rows)
    costs = {rows: taken / rows for rows, taken in measured.items()}
    lowest = min(costs.values())
    best = 1
    if lowest <= PAYS_BELOW * costs[1]:
        best = next(rows for rows, cost in costs.items() if cost <= _NEAR_BEST * lowest)
    return Tuning(seconds, size, _make_geometry(model.signature, best), measured)


def _measure_rows(model: Model, max_rows: int) -> dict[int, float]:
    """Return the fastest time by number of rows: 1, 2, 4, and so on."""
    names = list(model.signature.outputs)
    measured: dict[int, float] = {}
    rows = 1
    end = time.monotonic() + _BUDGET_SECONDS
    while rows <= max_rows and time.monotonic() < end:
        inputs = _make_rows(model.signature, rows)
        measured[rows] = fastest(partial(model.run, inputs, names), _BUDGET_SECONDS / 20)
        if rows >= _TELLING_ROWS and measured[rows] / rows > _PROMISES_BELOW * measured[1]:
            break  # larger ones would only cost memory
        rows *= 2
    return measured


def _are_independent(model: Model, inputs: Mapping[str, Tensor]) -> bool:
    """Say whether each row of a batch is what that row alone gives: else dimension 0 is no batch."""
    names = list(model.signature.outputs)
    together = model.run(inputs, names)
    rows = len(next(iter(inputs.values())))
    if any(array.shape[:1] != (rows,) for array in together):
        return False
    for row in range(rows):
        alone = model.run({name: array[row : row + 1] for name, array in inputs.items()}, names)
        if not all(_are_close(a[row : row + 1], b) for a, b in zip(together, alone, strict=True)):
            return False
    return True


def _are_close(left: Tensor, right: Tensor) -> bool:
    if left.shape != right.shape:
        return False
    if left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    scale = float(np.max(np.abs(right[np.isfinite(right)]), initial=0.0))
    epsilon = float(np.finfo(left.dtype).eps)
    return bool(np.allclose(left, right, rtol=0.0, atol=256 * epsilon * scale, equal_nan=True))


def _make_rows(signature: Signature, rows: int) -> dict[str, Tensor]:
    """Return inputs whose rows differ: equal ones would hide that a row can see the others."""
    random = np.random.default_rng(_SEED)
    made: dict[str, Tensor] = {}
    for spec in signature.inputs.values():
        shape = (rows, *spec.shape[1:])
        dtype = NUMPY_DTYPE[spec.datatype]
        values = random.standard_normal(shape) if dtype.kind == "f" else random.integers(0, 2, shape)
        made[spec.name] = values.astype(dtype)
    return made


def fastest(run: Callable[[], object], seconds: float) -> float:
    """Return the seconds of the fastest run; runs for about ``seconds``, and three times at least."""
    best = float("inf")
    end = time.perf_counter() + seconds
    runs = 0
    while runs < _MIN_RUNS or time.perf_counter() < end:
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
        runs += 1
    return best
