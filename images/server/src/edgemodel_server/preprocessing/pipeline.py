"""The preprocessing of a loaded model: what its manifest declares, held against what it takes and gives."""

from dataclasses import dataclass
from pathlib import Path

from edgemodel_server.datatypes import Tensor, TensorSpec
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.inference import Signature
from edgemodel_server.media import PictureType
from edgemodel_server.preprocessing.classes import Classes
from edgemodel_server.preprocessing.geometry import Placement, Size, crops_too_much, fixed_frame
from edgemodel_server.preprocessing.pictures import read_frame
from edgemodel_server.preprocessing.schema import Classification, Color, Layout, Preprocessing, check_labels
from edgemodel_server.preprocessing.values import DATATYPES, fill_input, make_tables

_MAX_LABELS_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The way from a body to the model's only input, ``spec``, and from its scores to ``classes``, if any."""

    spec: TensorSpec
    preprocessing: Preprocessing
    tables: Tensor
    classes: Classes | None

    def make_input(self, body: bytes, kind: PictureType, max_pixels: int) -> tuple[Tensor, Placement]:
        """Return the input's array for the picture in ``body``, and how the picture was placed in it.

        Raises ApiError: 400 for what is no such picture or none for this model, 413 for too large a one.
        """
        preprocessing = self.preprocessing
        image, placement = read_frame(body, kind, preprocessing, max_pixels)
        shape = _shape_of(preprocessing.layout, preprocessing.color, placement.frame)
        if not self.spec.accepts(shape):
            told = (
                f"the picture gives an input of shape {list(shape)}, the model takes {list(self.spec.shape)}"
            )
            raise ApiError(400, f"{told}: send another size, or declare a resize in the manifest")
        return fill_input(image, self.tables, preprocessing.color, preprocessing.layout), placement


def build_pipeline(preprocessing: Preprocessing, signature: Signature, folder: Path) -> Pipeline:
    """Return the pipeline of a model whose files, in ``folder``, are verified; see ``load_pipeline``."""
    try:
        spec = _find_input(signature)
        _check_shape(preprocessing, spec)
        tables = make_tables(preprocessing, spec.datatype)
        declared = preprocessing.classification
        classes = None if declared is None else _make_classes(declared, signature, folder)
    except ValueError as error:
        raise StartError(Reason.LOAD_FAILED, f"preprocessing does not fit the model: {error}") from error
    return Pipeline(spec, preprocessing, tables, classes)


def _find_input(signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        raise ValueError(f"the model has {len(signature.inputs)} inputs, a picture can fill only one")
    (spec,) = signature.inputs.values()
    if spec.datatype not in DATATYPES:
        raise ValueError(f'input "{spec.name}" is {spec.datatype}, a picture can be {", ".join(DATATYPES)}')
    return spec


def _check_shape(preprocessing: Preprocessing, spec: TensorSpec) -> None:
    """Raise ValueError where no picture, whatever its size, gives the input's shape."""
    if crops_too_much(preprocessing):
        raise ValueError("the crop is larger than what the resize leaves")
    layout = preprocessing.layout
    frame = fixed_frame(preprocessing)
    shape = _shape_of(layout, preprocessing.color, frame or (-1, -1))
    fits = len(shape) == len(spec.shape) and all(
        -1 in (got, want) or got == want for got, want in zip(shape, spec.shape, strict=True)
    )
    if not fits:
        told = f"{layout} of {preprocessing.color} gives shape {list(shape)}"
        raise ValueError(f'{told}, input "{spec.name}" has {list(spec.shape)}')


def _shape_of(layout: Layout, color: Color, frame: Size) -> tuple[int, ...]:
    sizes = {"N": 1, "C": color.channels, "W": frame[0], "H": frame[1]}
    return tuple(sizes[dimension] for dimension in layout)


def _make_classes(declared: Classification, signature: Signature, folder: Path) -> Classes:
    outputs = signature.outputs
    known = ", ".join(f'"{name}"' for name in outputs)
    if declared.output is None and len(outputs) != 1:
        raise ValueError(f"classification.output must say which output holds the scores: one of {known}")
    name = next(iter(outputs)) if declared.output is None else declared.output
    if name not in outputs:
        raise ValueError(f'classification.output is "{name}", the model has {known}')
    labels = declared.labels
    if declared.labels_file is not None:
        labels = _read_labels(folder / declared.labels_file)
    return Classes(outputs[name], labels, declared.softmax, declared.top, declared.quantization)


def _read_labels(path: Path) -> tuple[str, ...]:
    """Read one label per line; the line end of the last one may be missing."""
    with path.open("rb") as stream:
        text = stream.read(_MAX_LABELS_BYTES + 1)
    if len(text) > _MAX_LABELS_BYTES:
        raise ValueError(f"{path} is larger than {_MAX_LABELS_BYTES} bytes")
    try:
        lines = text.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    return check_labels([line.removesuffix("\r") for line in lines], str(path))
