"""Running the conversion of a model in a limited process of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from edgemodel_operator.api.model import Conversion, Origin
from edgemodel_operator.build.asking import Asked, Program
from edgemodel_operator.build.environment import child_environment
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.sources.fetched import SourceFile

REVISION = "1"
"""To be raised when the result of a conversion changes for the same exporter."""

_PROGRAM = "edgemodel_operator.build.convert"
_TIMEOUT_SECONDS = 2400.0
_MAX_ANSWER_BYTES = 64 * 1024
_EXPORTERS = {
    Origin.PYTORCH_EXPORT: ("torch", "onnxscript", "onnx-ir"),
    Origin.TORCHSCRIPT: ("torch",),
    Origin.KERAS: ("tensorflow", "keras"),
    Origin.SAVED_MODEL: ("tensorflow",),
}
_ALIASES = {"tensorflow": ("tensorflow", "tensorflow-cpu")}


async def convert_model(
    conversion: Conversion, files: Sequence[SourceFile], work: Path, *, python: str = sys.executable
) -> tuple[SourceFile, ...]:
    """Convert a model and give the files of the result, the main one first; they lie in `work`.

    The result has answered like the original on made-up inputs. The same files give the same bytes with the
    same exporter (`converter_id`). `python` is the interpreter that the exporter is installed for. Raises
    BuildError: ConverterMissing, ConversionFailed, or OutputsDiffer.
    """
    target = work / "converted"
    home = work / "converter-home"
    for folder in (target, home):
        await asyncio.to_thread(folder.mkdir, exist_ok=True)
    request = {
        "origin": conversion.origin.value,
        "source": str(files[0].path),
        "target": str(target),
        "inputs": [one.to_raw() for one in conversion.inputs],
    }
    answer = await _ask(python, json.dumps(request).encode(), home, conversion.origin)
    if answer["ok"] is not True:
        raise _refusal(conversion.origin, answer)
    return tuple([await asyncio.to_thread(_describe, target, name) for name in answer["files"]])


def converter_id(origin: Origin) -> str:
    """Name what converts the origin here, with versions: it decides the bytes of the result.

    Raises BuildError(ConverterMissing) where it is not installed.
    """
    versions = [f"{name} {_version(name, origin)}" for name in _EXPORTERS[origin]]
    return "; ".join([*versions, f"revision {REVISION}"])


def _version(name: str, origin: Origin) -> str:
    for candidate in _ALIASES.get(name, (name,)):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(candidate)
    raise _missing(origin, f"{name} is not installed here.")


def _refusal(origin: Origin, answer: dict[str, Any]) -> BuildError:
    reason, message = Reason(answer["reason"]), answer["message"]
    if reason is Reason.CONVERTER_MISSING:
        return _missing(origin, message)
    if reason is Reason.OUTPUTS_DIFFER:
        return fail(reason, f"The converted {origin.value} model is not the one that was given. {message}")
    return fail(reason, f"The {origin.value} model cannot be converted. {message}")


def _missing(origin: Origin, why: str) -> BuildError:
    return fail(
        Reason.CONVERTER_MISSING,
        f"{origin.value} models cannot be converted by this image: {why} Name one that can in "
        f"`builds.converters.{origin.value}` of the operator's chart.",
    )


def _describe(folder: Path, name: str) -> SourceFile:
    path = folder / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return SourceFile(path, name, digest, path.stat().st_size)


async def _ask(python: str, request: bytes, home: Path, origin: Origin) -> dict[str, Any]:
    program = Program(_PROGRAM, _environment(home), _TIMEOUT_SECONDS, _MAX_ANSWER_BYTES, python)
    try:
        return _parse(await program.ask(request), origin)
    except TimeoutError as error:
        raise fail(
            Reason.CONVERSION_FAILED, f"The conversion took more than {_TIMEOUT_SECONDS:g} seconds."
        ) from error


def _parse(asked: Asked, origin: Origin) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(asked.output)
    except ValueError as error:
        raise fail(
            Reason.CONVERSION_FAILED,
            f"The {origin.value} model cannot be converted: its exporter {asked.ending}.",
        ) from error
    return answer


def _environment(home: Path) -> dict[str, str]:
    """Give what exporters go by: no devices, no caches elsewhere, no pickles, and no chance."""
    return child_environment(
        HOME=str(home),
        TMPDIR=str(home),
        CUDA_VISIBLE_DEVICES="",
        KERAS_BACKEND="tensorflow",
        ORT_DISABLE_TELEMETRY="1",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONHASHSEED="0",
        PYTHONWARNINGS="ignore",
        TF_CPP_MIN_LOG_LEVEL="3",
        TF_ENABLE_ONEDNN_OPTS="0",
        TORCH_FORCE_WEIGHTS_ONLY_LOAD="1",
        USER="converter",
    )
