"""Running the inspection of a model's files in a limited process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.sources.download import FetchedFile

_PROGRAM = "edgemodel_operator.build.inspect"
_TIMEOUT_SECONDS = 120.0
_MAX_ANSWER_BYTES = 1024 * 1024


async def inspect_model(files: Sequence[FetchedFile], model_format: ModelFormat) -> dict[str, Any]:
    """Tell what is in the model: `inputs`, `outputs`, and what the format says of itself.

    The files are in the order of the format's suffixes. Raises BuildError(InvalidModel) when it is no model
    of the format, or when reading it goes beyond the limits or crashes the reader.
    """
    code, output = await _run(model_format, [file.path for file in files])
    try:
        report = json.loads(output)
    except ValueError as error:
        why = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        raise fail(
            Reason.INVALID_MODEL, f"The file is no {model_format} model that can be read: its reader {why}."
        ) from error
    if report.get("ok") is not True:
        raise fail(
            Reason.INVALID_MODEL,
            f"The file is no {model_format} model that can be served. {report['message']}",
        )
    return {name: value for name, value in report.items() if name != "ok"}


async def _run(model_format: ModelFormat, files: Sequence[Path]) -> tuple[int, bytes]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        _PROGRAM,
        model_format.value,
        str(os.getpid()),
        *map(str, files),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=child_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
    )
    if process.stdout is None:
        raise ValueError("the process was started with a pipe")
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            output = await process.stdout.read(_MAX_ANSWER_BYTES)
            return await process.wait(), output
    except TimeoutError as error:
        raise fail(
            Reason.INVALID_MODEL, f"Reading the model took more than {_TIMEOUT_SECONDS:g} seconds."
        ) from error
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
