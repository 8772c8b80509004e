"""What one conversion is asked, in the words of the process that does it; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARYING_FIRST = 2
"""What a first dimension that may vary is tried with: a batch, and no other than one."""
VARYING_ELSE = 64
"""What any other dimension that may vary is tried with: enough for pictures and sequences."""


@dataclass(frozen=True)
class Input:
    """A tensor that goes into the model; -1 in its shape for a dimension that may vary."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def tried_shape(self) -> tuple[int, ...]:
        """The shape that the model is run with."""
        return tuple(
            size if size >= 0 else VARYING_ELSE if position else VARYING_FIRST
            for position, size in enumerate(self.shape)
        )

    @property
    def varying(self) -> dict[int, str]:
        """The dimensions that may vary, and a name for each."""
        return {
            position: f"{self.name}_{position}" if position else "batch"
            for position, size in enumerate(self.shape)
            if size < 0
        }


@dataclass(frozen=True)
class Job:
    """One conversion."""

    origin: str
    source: Path
    """The main file; the other files of the model lie beside it."""
    target: Path
    """The folder for what comes out."""
    inputs: Sequence[Input] = ()

    @classmethod
    def from_raw(cls, raw: Mapping[str, Any]) -> Job:
        """Read it from JSON."""
        inputs = tuple(
            Input(entry["name"] or f"input_{number}", entry["datatype"], tuple(entry["shape"]))
            for number, entry in enumerate(raw["inputs"])
        )
        return cls(raw["origin"], Path(raw["source"]), Path(raw["target"]), inputs)
