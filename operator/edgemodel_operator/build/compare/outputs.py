"""Proving by its outputs that a model which a build has rewritten is still the same model."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.asking import Program
from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.build.split import split_model
from edgemodel_operator.oci.splice import write_content

MAX_MODEL_BYTES = 64 * 1024 * 1024
"""Models with more bytes are not run: a run takes up to three times as much memory beside the operator."""

SAME_STEPS = 1e-5
"""How far outputs may be apart when the same steps were taken on the same numbers."""

_PROGRAM = "edgemodel_operator.build.compare"
_TIMEOUT_SECONDS = 180.0
_MAX_ANSWER_BYTES = 64 * 1024
_log = logging.getLogger("edgemodel.build")


class Verdict(StrEnum):
    """What a comparison showed."""

    EQUAL = "Equal"
    """Both models gave the same outputs for the same made-up inputs."""
    DIFFERENT = "Different"
    """They did not."""
    UNKNOWN = "Unknown"
    """The original gives no answer to compare with."""


@dataclass(frozen=True)
class Comparison:
    """The verdict, and a sentence where it is not that all is equal."""

    verdict: Verdict
    why: str = ""


async def prove_outputs(files: Sequence[SourceFile], parts: ModelParts, work: Path) -> Comparison:
    """Compare the outputs of an ONNX model with those of its parts, where it was taken apart.

    `files` are those of the source, the main one first; `work` takes a copy of the parts meanwhile. Raises
    BuildError(OutputsDiffer).
    """
    if not parts.rewritten:
        return Comparison(Verdict.EQUAL)
    comparison = await _compare_parts(files, parts, work)
    if comparison.verdict is Verdict.UNKNOWN:
        _log.info("The outputs of the model were not compared. %s", comparison.why)
    return comparison


async def _compare_parts(files: Sequence[SourceFile], parts: ModelParts, work: Path) -> Comparison:
    size = sum(piece.size for piece in parts.pieces)
    if size > MAX_MODEL_BYTES:
        return Comparison(Verdict.UNKNOWN, f"Models of more than {MAX_MODEL_BYTES} bytes are not run.")
    whole = await split_model(ModelFormat.ONNX, files, Sharding.DISABLED, work)
    async with (
        _laid_out(whole, work / "original") as original,
        _laid_out(parts, work / "rewritten") as rewritten,
    ):
        return await compare_outputs(original, rewritten, size=size)


async def compare_outputs(
    original: Path, rewritten: Path, *, size: int, tolerance: float = SAME_STEPS
) -> Comparison:
    """Run both models on the same seeded inputs, in limited processes; `size` is that of the larger (bytes).

    `tolerance` is in relation to the largest number of a tensor. Raises BuildError(OutputsDiffer).
    """
    request = {
        "original": str(original),
        "rewritten": str(rewritten),
        "bytes": size,
        "tolerance": tolerance,
    }
    comparison = await _ask(json.dumps(request).encode())
    if comparison.verdict is Verdict.DIFFERENT:
        raise fail(
            Reason.OUTPUTS_DIFFER,
            f"The model that would be served is not the one that was given. {comparison.why}",
        )
    return comparison


@asynccontextmanager
async def _laid_out(parts: ModelParts, folder: Path) -> AsyncIterator[Path]:
    """Put the files of a model into a folder, as they will lie in its image; gives the main one."""
    try:
        await asyncio.to_thread(_write, parts, folder)
        yield folder / parts.main.name
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _write(parts: ModelParts, folder: Path) -> None:
    for piece in parts.pieces:
        path = folder / piece.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(piece.content, Path):
            path.hardlink_to(piece.content)
        else:
            write_content(piece.content, path)


async def _ask(request: bytes) -> Comparison:
    environment = child_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", ORT_DISABLE_TELEMETRY="1")
    program = Program(_PROGRAM, environment, _TIMEOUT_SECONDS, _MAX_ANSWER_BYTES)
    try:
        asked = await program.ask(request)
    except TimeoutError:
        return Comparison(Verdict.UNKNOWN, f"Running it took more than {_TIMEOUT_SECONDS:g} seconds.")
    try:
        answer = json.loads(asked.output)
        return Comparison(Verdict(answer["verdict"]), answer["why"])
    except (ValueError, KeyError):
        return Comparison(Verdict.UNKNOWN, f"The process that ran it ended with status {asked.code}.")
