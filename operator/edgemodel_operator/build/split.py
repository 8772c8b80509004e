"""From the files of a source to the files of an image, by format."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.parts import STEM, ModelParts, as_piece, whole_model
from edgemodel_operator.build.shard.split import split_onnx
from edgemodel_operator.build.sources.fetched import SourceFile


async def split_model(
    model_format: ModelFormat, files: Sequence[SourceFile], sharding: Sharding, work: Path
) -> ModelParts:
    """Lay out the files of a model, the main one first; temporary files are put into `work`.

    Files that the model does not refer to, such as others of an archive, stay out of the image.
    Raises BuildError(InvalidModel) when the files are damaged, or do not belong together.
    """
    try:
        return await asyncio.to_thread(_split, model_format, tuple(files), sharding, work)
    except Objection as error:
        raise fail(
            Reason.INVALID_MODEL, f"The file is no {model_format} model that can be served. {error}"
        ) from error


def _split(
    model_format: ModelFormat, files: tuple[SourceFile, ...], sharding: Sharding, work: Path
) -> ModelParts:
    match model_format:
        case ModelFormat.ONNX:
            return split_onnx(files, sharding, work)
        case ModelFormat.TFLITE:
            return whole_model(files[0], f"{STEM}.tflite", [])
        case ModelFormat.OPENVINO:
            return whole_model(files[0], f"{STEM}.xml", [as_piece(_weights_of(files), f"{STEM}.bin")])


def _weights_of(files: Sequence[SourceFile]) -> SourceFile:
    """Give the `.bin` of an OpenVINO IR: the only one, or the one with the name of the `.xml`."""
    found = [file for file in files[1:] if file.name.endswith(".bin")] or list(files[1:2])
    stem = PurePosixPath(files[0].name).stem
    same = [file for file in found if file.name == f"{stem}.bin"]
    if len(found) > 1 and not same:
        raise Objection(f"It needs {stem}.bin beside it, and there are others: {_names(found)}.")
    if not found:
        raise Objection(f"It needs {stem}.bin beside it: give it as `weights`, or an archive with both.")
    return (same or found)[0]


def _names(files: Iterable[SourceFile]) -> str:
    return ", ".join(sorted(file.name for file in files)[:5])
