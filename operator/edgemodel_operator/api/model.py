"""The model in an EdgeModel: its format, where its files come from, and what it makes of pictures."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, rules
from edgemodel_operator.api.preprocessing import Preprocessing
from edgemodel_operator.api.source import KINDS, Source


class ModelFormat(StrEnum):
    """The file formats that a runtime can load."""

    ONNX = "ONNX"
    TFLITE = "TFLite"
    OPENVINO = "OpenVINO"

    @property
    def fewest_files(self) -> int:
        """How many files a model of the format has at least."""
        return 2 if self is ModelFormat.OPENVINO else 1

    @property
    def most_files(self) -> int:
        """How many files a source may give outside an archive."""
        return 1 if self is ModelFormat.TFLITE else 2

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of its files end: the one that the runtime is given, then its weights."""
        return {
            ModelFormat.ONNX: (".onnx",),
            ModelFormat.TFLITE: (".tflite",),
            ModelFormat.OPENVINO: (".xml", ".bin"),
        }[self]


class Origin(StrEnum):
    """The formats that no runtime loads and a build converts."""

    PYTORCH_EXPORT = "PyTorchExport"
    """A program of `torch.export` (`.pt2`)."""
    TORCHSCRIPT = "TorchScript"
    """A module of `torch.jit.save` (`.pt`, `.ts`)."""
    KERAS = "Keras"
    """A model of `keras.Model.save` (`.keras`)."""
    SAVED_MODEL = "SavedModel"
    """A folder of TensorFlow's SavedModel: its source is an archive."""


class Datatype(StrEnum):
    """The types of the Open Inference Protocol that a converted model may take."""

    BOOL = "BOOL"
    UINT8 = "UINT8"
    INT8 = "INT8"
    INT16 = "INT16"
    INT32 = "INT32"
    INT64 = "INT64"
    FP16 = "FP16"
    FP32 = "FP32"
    FP64 = "FP64"


class TensorSpec(Schema):
    """A tensor that goes into a model."""

    name: Annotated[str, Field(max_length=256)] = ""
    """Its name; empty: `input_0` and so on, by position."""
    datatype: Datatype
    """Its type, as in the Open Inference Protocol."""
    shape: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], Field(max_length=16)]
    """Its dimensions; -1 for one that may vary."""


class Conversion(Schema):
    """How the model gets its format in the build."""

    origin: Origin
    """What the source holds."""
    inputs: Annotated[tuple[TensorSpec, ...], Field(max_length=64)] = ()
    """The inputs, where the source does not say them itself: TorchScript needs them."""


_CONVERTED = {
    Origin.PYTORCH_EXPORT: ModelFormat.ONNX,
    Origin.TORCHSCRIPT: ModelFormat.ONNX,
    Origin.KERAS: ModelFormat.TFLITE,
    Origin.SAVED_MODEL: ModelFormat.TFLITE,
}
_WEIGHTS = " || ".join(f"(has(self.source.{kind}) && has(self.source.{kind}.weights))" for kind in KINDS)
_PLAIN = "has(self.convert) || has(self.source.archive)"
_WEIGHTS_SENTENCE = (
    "an OpenVINO IR is two files, so give its .bin as `weights` of the source, or an `archive` with both; a "
    "TFLite model is one file, so leave `weights` out"
)


class ModelSpec(Schema):
    """The model itself."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"({_PLAIN}) || self.format != 'OpenVINO' || {_WEIGHTS}", _WEIGHTS_SENTENCE),
            (f"({_PLAIN}) || self.format != 'TFLite' || !({_WEIGHTS})", _WEIGHTS_SENTENCE),
            (
                (
                    "!has(self.convert) || self.format == (self.convert.origin in ['PyTorchExport', "
                    "'TorchScript'] ? 'ONNX' : 'TFLite')"
                ),
                (
                    "PyTorchExport and TorchScript are converted to `format: ONNX`, Keras and SavedModel to "
                    "`format: TFLite`"
                ),
            ),
            (
                (
                    "!has(self.convert) || self.convert.origin != 'TorchScript' || "
                    "(has(self.convert.inputs) && size(self.convert.inputs) > 0)"
                ),
                "a TorchScript module does not say what it takes: give `inputs` with datatype and shape",
            ),
            (
                "!has(self.convert) || self.convert.origin != 'SavedModel' || has(self.source.archive)",
                "a SavedModel is a folder: give an archive of it, and add `archive: {path: FOLDER}`",
            ),
        )
    )

    format: ModelFormat
    """The file format. TFLite files are also called LiteRT models; OpenVINO means its IR, a `.xml` with a
    `.bin`."""
    source: Source
    """Where the files come from."""
    version: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$",
        ),
    ]
    """The user's own name for this version; clients see it in the model's metadata."""
    preprocessing: Preprocessing | None = None
    """How a picture becomes the model's input. With it, clients may send JPEG and PNG files as requests."""
    convert: Conversion | None = None
    """Given where the source holds another format than the one that is served."""

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        if self.convert is not None:
            return self._check_conversion(self.convert)
        given = len(self.source.digests)
        if self.source.archive is None and not self.format.fewest_files <= given <= self.format.most_files:
            raise ValueError(_WEIGHTS_SENTENCE)
        return self

    def _check_conversion(self, conversion: Conversion) -> Self:
        if self.format is not _CONVERTED[conversion.origin]:
            raise ValueError(f"{conversion.origin} is converted to `format: {_CONVERTED[conversion.origin]}`")
        if conversion.origin is Origin.TORCHSCRIPT and not conversion.inputs:
            raise ValueError("a TorchScript module does not say what it takes: give `inputs`")
        if conversion.origin is Origin.SAVED_MODEL and self.source.archive is None:
            raise ValueError("a SavedModel is a folder: give an archive of it")
        return self
