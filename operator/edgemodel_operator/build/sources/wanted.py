"""Which files of a source make up a model: by its format, or by that which it is converted from. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from edgemodel_operator.api.model import ModelFormat, ModelSpec, Origin

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")


@dataclass(frozen=True)
class Want:
    """How the names of the wanted files end, in lower case; an ending without a dot is a whole name."""

    main: tuple[str, ...]
    """The file that is opened first: by the runtime, or by what converts it."""
    weights: tuple[str, ...] = ()
    """The file of the weights, where they are in one of their own."""
    same_stem: bool = False
    """Whether the weights are called like the main file."""
    beside: bool = False
    """Whether every file beside the main one, or in folders below, may belong to the model."""

    def as_archive(self) -> Want:
        """Give what is fetched where the model is inside an archive."""
        return replace(self, main=ARCHIVE_SUFFIXES, weights=(), beside=False)


_ONNX_WEIGHTS = (".data", ".onnx_data", ".weights", ".bin")
_FORMATS = {
    ModelFormat.ONNX: Want((".onnx",), _ONNX_WEIGHTS, beside=True),
    ModelFormat.TFLITE: Want((".tflite",)),
    ModelFormat.OPENVINO: Want((".xml",), (".bin",), same_stem=True),
}
_ORIGINS = {
    Origin.PYTORCH_EXPORT: Want((".pt2",)),
    Origin.TORCHSCRIPT: Want((".pt", ".ts", ".pth", ".torchscript")),
    Origin.KERAS: Want((".keras",)),
    Origin.SAVED_MODEL: Want(("saved_model.pb",), beside=True),
}


def wanted_files(model: ModelSpec) -> Want:
    """Tell what a source of the model must hold."""
    return _ORIGINS[model.convert.origin] if model.convert else _FORMATS[model.format]


def fits(name: str, endings: tuple[str, ...]) -> bool:
    """Tell whether the last part of a path ends as one of the endings says, in any case."""
    last = PurePosixPath(name).name.lower()
    return any(last.endswith(end) if end.startswith(".") else last == end for end in endings)
