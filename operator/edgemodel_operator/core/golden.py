"""Golden samples: requests with known answers, and the comparison of an answer with what is expected.

The document is `{"inputs": […], "outputs": […]}`, tensors as in the JSON form of the Open Inference Protocol
(https://github.com/kserve/open-inference-protocol).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 1024 * 1024


class InvalidGolden(ValueError):  # noqa: N818 - reads as the fact it states
    """The text is no golden sample; the message says what is missing."""


@dataclass(frozen=True)
class Sample:
    """One request and the tensors that must come back."""

    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]

    def request(self) -> dict[str, Any]:
        """Give the body of the inference request: it asks for the expected outputs only."""
        return {
            "inputs": list(self.inputs),
            "outputs": [{"name": output["name"]} for output in self.outputs],
        }


def parse_sample(text: str) -> Sample:
    """Read a golden sample; raises InvalidGolden."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidGolden(f"golden.json is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InvalidGolden('golden.json must be {"inputs": […], "outputs": […]}')
    return Sample(_tensors(document, "inputs"), _tensors(document, "outputs"))


def _tensors(document: Mapping[str, Any], name: str) -> tuple[Mapping[str, Any], ...]:
    tensors = document.get(name)
    if not isinstance(tensors, list) or not tensors:
        raise InvalidGolden(f"golden.json must hold a list `{name}` with at least one tensor")
    for tensor in tensors:
        if not isinstance(tensor, dict) or not {"name", "shape", "datatype", "data"} <= tensor.keys():
            raise InvalidGolden(f"each tensor in `{name}` needs name, shape, datatype and data")
    return tuple(tensors)


def difference(sample: Sample, outputs: Sequence[Mapping[str, Any]], tolerance: float) -> str:
    """Say how an answer differs from what is expected by more than the tolerance; empty if it does not."""
    got = {str(output.get("name")): output for output in outputs}
    for expected in sample.outputs:
        name = str(expected["name"])
        answer = got.get(name)
        if answer is None:
            return f"output {name} is missing"
        if list(answer.get("shape") or ()) != list(expected["shape"]):
            return f"output {name} has shape {answer.get('shape')}, expected {expected['shape']}"
        problem = _values_differ(
            name, list(_flat(expected["data"])), list(_flat(answer.get("data"))), tolerance
        )
        if problem:
            return problem
    return ""


def _values_differ(name: str, expected: list[Any], got: list[Any], tolerance: float) -> str:
    if len(expected) != len(got):
        return f"output {name} has {len(got)} values, expected {len(expected)}"
    for position, (want, have) in enumerate(zip(expected, got, strict=True)):
        if not _close(want, have, tolerance):
            return f"output {name}[{position}] is {have}, expected {want} within {tolerance}"
    return ""


def _close(want: Any, have: Any, tolerance: float) -> bool:
    if isinstance(want, str) or isinstance(have, str):
        return bool(want == have)
    try:
        distance = abs(float(want) - float(have))
    except (TypeError, ValueError):
        return False
    # Not a number is never close, also not to itself.
    return not math.isnan(distance) and distance <= tolerance


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for item in value:
            yield from _flat(item)
    elif value is not None:
        yield value
