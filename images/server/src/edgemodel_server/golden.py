"""The golden sample: inputs with the outputs that a healthy model gives for them.

Format: ``{"inputs": [...], "outputs": [...]}``, lists of JSON tensors of the Open Inference Protocol. A model
passes when every expected output is within the tolerance, element by element.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from edgemodel_server.datatypes import Tensor
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.inference import Signature, parse_tensors

MAX_GOLDEN_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden sample that fits a model: all of its inputs, and at least one of its outputs."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


def read_golden(path: Path, signature: Signature) -> Golden:
    """Read the golden sample for a model; raises StartError(GoldenMismatch) if it does not fit."""
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_GOLDEN_BYTES + 1)
    except OSError as error:
        raise StartError(
            Reason.GOLDEN_MISMATCH, f"golden file {path} cannot be read: {error.strerror}"
        ) from error
    if len(text) > MAX_GOLDEN_BYTES:
        raise StartError(
            Reason.GOLDEN_MISMATCH, f"golden file {path} is larger than {MAX_GOLDEN_BYTES} bytes"
        )
    try:
        return _parse_golden(orjson.loads(text), signature)
    except (ValueError, ApiError) as error:
        raise StartError(
            Reason.GOLDEN_MISMATCH, f"golden file {path} does not fit the model: {error}"
        ) from error


def _parse_golden(document: object, signature: Signature) -> Golden:
    if not isinstance(document, dict):
        raise ApiError(400, "it must be a JSON object")
    expected = document.get("outputs")
    if not isinstance(expected, list) or not expected:
        raise ApiError(400, "outputs must be a list that is not empty")
    named = [entry.get("name") for entry in expected if isinstance(entry, dict)]
    wanted = {name: spec for name, spec in signature.outputs.items() if name in named}
    return Golden(
        inputs=parse_tensors(document.get("inputs"), signature.inputs),
        outputs=parse_tensors(expected, wanted or signature.outputs),
    )


def compare_golden(golden: Golden, got: Mapping[str, Tensor], tolerance: float) -> None:
    """Raise StartError(GoldenMismatch) unless every expected output is close enough; NaN never is."""
    for name, want in golden.outputs.items():
        difference = _find_difference(want, got[name], tolerance)
        if difference:
            raise StartError(Reason.GOLDEN_MISMATCH, f'output "{name}" of the golden sample {difference}')


def _find_difference(want: Tensor, got: Tensor, tolerance: float) -> str:
    """Return what is wrong as the end of a sentence, or an empty string."""
    if want.shape != got.shape:
        return f"has shape {list(got.shape)}, expected {list(want.shape)}"
    same = want == got
    if want.dtype.kind not in "biufc":
        within, distance = same, np.where(same, 0.0, np.inf)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.where(same, 0.0, np.abs(want.astype(np.float64) - got.astype(np.float64)))
        within = same | (distance <= tolerance)  # a comparison with NaN is false: NaN never passes
    if within.all():
        return ""
    worst = int(np.argmax(np.where(np.isnan(distance), np.inf, distance)))
    place = [int(index) for index in np.unravel_index(worst, want.shape)]
    wrong = np.size(within) - np.count_nonzero(within)
    return (
        f"is off at {wrong} of {np.size(within)} elements, worst at {place}: "
        f"got {got.reshape(-1)[worst]}, expected {want.reshape(-1)[worst]} within {tolerance:g}"
    )
