"""Writing the layers of a model to files: the one step of an assembly that touches every byte."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.together import for_each
from edgemodel_operator.oci.compression import Compressor
from edgemodel_operator.oci.layer import Entry, Layer, write_layer

_AT_ONCE = 2
"""Hashing and compressing release the interpreter; more than two at once would starve the builds beside."""


@dataclass(frozen=True)
class WrittenLayer:
    """A layer, and the file in which its blob lies."""

    layer: Layer
    blob: Path


async def write_layers(
    layers: Sequence[Sequence[Entry]], compressor: Compressor, work: Path
) -> tuple[WrittenLayer, ...]:
    """Write each layer to a file in `work`, in order. Raises OSError."""

    async def write(numbered: tuple[int, Sequence[Entry]]) -> WrittenLayer:
        number, entries = numbered
        return await asyncio.to_thread(_write, entries, compressor, work / f"layer-{number}")

    return await for_each(write, enumerate(layers), at_once=_AT_ONCE)


def _write(entries: Sequence[Entry], compressor: Compressor, destination: Path) -> WrittenLayer:
    with destination.open("wb") as out:
        return WrittenLayer(write_layer(entries, out, compressor=compressor), destination)
