"""Running the inspection of a model's files in a limited process of its own."""

from __future__ import annotations

import json
import posixpath
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.asking import Asked, Program
from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import BuildError, Reason, fail

_PROGRAM = "edgemodel_operator.build.inspect"
_TIMEOUT_SECONDS = 120.0
_MAX_ANSWER_BYTES = 1024 * 1024


class NamedFile(Protocol):
    """A file of a model: one that was fetched, or a piece of one that was taken apart."""

    @property
    def name(self) -> str:
        """Its name, relative."""

    @property
    def size(self) -> int:
        """Its size (bytes)."""


async def inspect_model(model_format: ModelFormat, skeleton: Path, files: Sequence[NamedFile]) -> ModelReport:
    """Tell what is in a model: all of the report but `source_key` and `files`.

    `skeleton` is read; of `files`, the main one first, names and sizes count alone: an ONNX graph may name
    those that lie beside its main file, and an IR belongs to the `.bin` among them. Raises
    BuildError(InvalidModel) when it is no model of the format, or when reading it takes too long or crashes
    the reader; OutOfMemory beyond the memory of the reader, WorkerDied when the reader was killed.
    """
    if skeleton.is_symlink() or not skeleton.is_file():
        raise fail(
            Reason.INVALID_MODEL, f"The model's file is no plain file: {skeleton.name} is a link or a folder."
        )
    request = {"format": model_format.value, "skeleton": str(skeleton), "sizes": _sizes(files)}
    asked = await _run(json.dumps(request).encode())
    try:
        answer = json.loads(asked.output)
    except ValueError as error:
        if asked.code == -signal.SIGKILL:
            raise _killed() from error
        raise fail(
            Reason.INVALID_MODEL,
            f"The file is no {model_format} model that can be read: its reader {asked.ending}.",
        ) from error
    if answer.get("outOfMemory"):
        raise fail(Reason.OUT_OF_MEMORY, f"The {model_format} model cannot be read. {answer['message']}")
    if answer["ok"] is not True:
        raise fail(
            Reason.INVALID_MODEL,
            f"The file is no {model_format} model that can be served. {answer['message']}",
        )
    return ModelReport.model_validate(answer["report"] | {"sizeBytes": sum(file.size for file in files)})


def _killed() -> BuildError:
    # Not a word about the model: the reader's own limits end it in other ways.
    return fail(
        Reason.WORKER_DIED,
        "The process that reads the model was killed, as the kernel does where memory is short; the build "
        "starts again. If it happens again, raise `operator.resources.limits.memory` of the operator's chart "
        "(for a build in a Job `builds.resources.limits.memory`), or lower `operator.maxConcurrentBuilds`.",
    )


def _sizes(files: Sequence[NamedFile]) -> dict[str, int]:
    """Give the sizes by the names that the main file knows the others by: relative to its folder."""
    folder = posixpath.dirname(files[0].name)
    return {posixpath.relpath(file.name, folder or "."): file.size for file in files}


async def _run(request: bytes) -> Asked:
    environment = child_environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    try:
        return await Program(_PROGRAM, environment, _TIMEOUT_SECONDS, _MAX_ANSWER_BYTES).ask(request)
    except TimeoutError as error:
        raise fail(
            Reason.INVALID_MODEL, f"Reading the model took more than {_TIMEOUT_SECONDS:g} seconds."
        ) from error
