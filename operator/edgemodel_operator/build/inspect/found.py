"""What a reader found in a model: the one answer of all formats, and the bounds of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.build.inspect.objection import Objection

FREE = "-1"
"""A dimension that may vary and has no name."""
MAX_NAME_LENGTH = 250
MAX_DIMENSIONS = 16
MAX_OPERATORS = 256
MAX_OPERATOR_SETS = 32
SHOWN_TENSORS = 64
"""How many inputs, and how many outputs, a report shows."""
MAX_COUNT = 2**53
"""Beyond it numbers of JSON are no longer exact; no real model has so many weights or bytes."""


@dataclass(frozen=True)
class Tensor:
    """An input or output: its datatype as in the Open Inference Protocol; sizes, names, or `-1`."""

    name: str
    datatype: str
    shape: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What is in a model."""

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    operator_sets: Mapping[str, int]
    """The version of each set of operators, by domain."""
    operators: frozenset[str]
    """Those outside the standard domain as `domain:Name`."""
    parameters: int
    """Elements of all stored tensors."""
    memory_bytes: int
    """Stored tensors, and the most that is alive at once between the operators (bytes)."""

    def to_raw(self) -> dict[str, Any]:
        """Give it as the JSON of `ModelReport`; raises Objection where it is beyond all bounds."""
        self._check()
        return {
            "inputs": [vars(tensor) for tensor in self.inputs[:SHOWN_TENSORS]],
            "outputs": [vars(tensor) for tensor in self.outputs[:SHOWN_TENSORS]],
            "operatorSets": [
                {"domain": domain, "version": version}
                for domain, version in sorted(self.operator_sets.items())
            ],
            "operators": sorted(self.operators),
            "parameters": self.parameters,
            "estimatedMemoryBytes": self.memory_bytes,
        }

    def _check(self) -> None:
        if not self.inputs or not self.outputs:
            raise Objection("Its graph has no inputs or no outputs.")
        names = [tensor.name for tensor in (*self.inputs, *self.outputs)]
        names += [size for tensor in (*self.inputs, *self.outputs) for size in tensor.shape]
        names += [*self.operators, *self.operator_sets]
        if not all(isinstance(name, str) for name in names):  # protobuf gives bytes for what is no UTF-8
            raise Objection("It has a name that is no text in UTF-8.")
        if any(len(name) > MAX_NAME_LENGTH for name in names):
            raise Objection(f"It has a name of more than {MAX_NAME_LENGTH} characters.")
        if any(len(tensor.shape) > MAX_DIMENSIONS for tensor in (*self.inputs, *self.outputs)):
            raise Objection(f"It takes or gives a tensor of more than {MAX_DIMENSIONS} dimensions.")
        if len(self.operators) > MAX_OPERATORS or len(self.operator_sets) > MAX_OPERATOR_SETS:
            raise Objection(
                f"It uses {len(self.operators)} operators of {len(self.operator_sets)} sets; "
                f"{MAX_OPERATORS} of {MAX_OPERATOR_SETS} are the most."
            )
        if max(self.parameters, self.memory_bytes) > MAX_COUNT:
            raise Objection("Its tensors have sizes that no machine can hold.")
