"""What all measurements share, and how each of them starts its servers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bench.asking import free_port
from bench.contenders import ECHO, OURS, Place, Program
from bench.processes import Running, running
from cluster.progress import Progress

_HACK = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Pace:
    """How often and how long is measured."""

    windows: int
    seconds: float
    raw_seconds: float


@dataclass(frozen=True)
class Workplace:
    """What all measurements share."""

    folder: Path
    models: Mapping[str, Path]
    environments: Mapping[str, Path]
    source: Path
    """Where our server's package lies."""
    pace: Pace
    progress: Progress

    def python(self, name: str) -> str:
        """Return the interpreter of a program's environment."""
        return str(self.environments[OURS if name == ECHO else name] / "bin" / "python")

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of every server."""
        return {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONPATH": f"{self.source}:{_HACK}"}

    def with_model(self, name: str, file: Path) -> Workplace:
        """Return this with one more model."""
        return replace(self, models={**self.models, name: file})


@contextlib.contextmanager
def serving(work: Workplace, program: Program, place: Place, cores: frozenset[int]) -> Iterator[Running]:
    """Run a server while the block lasts."""
    command = program.command(work.python(program.name), place)
    with running(command, cores, place.folder / "log", work.variables) as server:
        yield server


def new_place(work: Workplace, program: Program, model: str, *, grpc: bool = False) -> Place:
    """Return free ports and an empty folder for a server; the port for gRPC is 0 unless it is wanted."""
    number = len(list(work.folder.iterdir()))
    folder = work.folder / f"{number}-{program.name}-{model}"
    folder.mkdir()
    grpc_port = free_port() if grpc else 0
    return Place(model, work.models[model], free_port(), grpc_port, folder)
