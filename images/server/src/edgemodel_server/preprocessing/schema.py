"""What a manifest may declare about pictures: the way to the model's input, and the labels of its answer.

Format: ``images/CONTRACT.md``, "Preprocessing". Data only; shapes and datatypes are held against the
model when it is loaded.
"""

from dataclasses import dataclass
from enum import StrEnum

from edgemodel_server.preprocessing.fields import Fields

MAX_SIDE = 4096
"""Largest width or height that a picture is scaled to, in pixels."""

MAX_TOP = 1000
DEFAULT_TOP = 5
MAX_LABEL_CHARACTERS = 256


class ResizeMode(StrEnum):
    """How a picture of any shape becomes one of the wanted size."""

    STRETCH = "Stretch"  # to width x height, whatever its shape
    SHORTER_SIDE = "ShorterSide"  # until the shorter side has ``size``; keeps the shape
    LETTERBOX = "Letterbox"  # into width x height, keeps the shape, and fills the rest with a colour


class Interpolation(StrEnum):
    """The filter of a resize; all but Nearest take every source pixel into account when they shrink."""

    NEAREST = "Nearest"
    BILINEAR = "Bilinear"
    BICUBIC = "Bicubic"
    LANCZOS = "Lanczos"


class Anchor(StrEnum):
    """Where a letterboxed picture stands in its frame."""

    CENTER = "Center"
    TOP_LEFT = "TopLeft"


class Color(StrEnum):
    """The channels of the model's input, in their order."""

    RGB = "RGB"
    BGR = "BGR"
    GRAY = "GRAY"

    @property
    def channels(self) -> int:
        """How many there are."""
        return 1 if self is Color.GRAY else 3


class Layout(StrEnum):
    """The dimensions of the model's input, in their order: one picture (N), channels, height, width."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    CHW = "CHW"
    HWC = "HWC"
    NHW = "NHW"
    HW = "HW"


@dataclass(frozen=True, slots=True)
class Quantization:
    """How an integer tensor stands for real numbers: real = (integer - zero_point) x scale."""

    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True)
class Resize:
    """A resize. ``width`` and ``height`` in pixels; both hold ``size`` in the mode ShorterSide.

    ``pad_color`` has a value from 0 to 255 for each channel of the model's input, in their order.
    """

    mode: ResizeMode
    width: int
    height: int
    interpolation: Interpolation
    pad_color: tuple[int, ...]
    anchor: Anchor


@dataclass(frozen=True, slots=True)
class Crop:
    """The middle of the picture, in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Classification:
    """That an output holds one score per class: how many to tell, and what they are called.

    ``output`` is None for the model's only one; the labels are given here, or one per line in a file of the
    model folder, or not at all.
    """

    output: str | None
    labels: tuple[str, ...] | None
    labels_file: str | None
    softmax: bool
    top: int
    quantization: Quantization | None


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The way from a picture to the model's input: resize, crop, then ``(pixel x scale - mean) / std``.

    ``mean`` and ``std`` have a value for each channel. ``quantization`` is that of the model's input.
    """

    resize: Resize | None
    crop: Crop | None
    color: Color
    layout: Layout
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantization: Quantization | None
    classification: Classification | None


def parse_preprocessing(document: object) -> Preprocessing:
    """Return the checked ``preprocessing`` of a manifest; raises ValueError with a sentence."""
    keys = ("resize", "crop", "color", "layout", "scale", "mean", "std", "quantization", "classification")
    fields = Fields(document, "preprocessing", keys)
    color = fields.choice("color", Color, Color.RGB)
    layout = fields.choice("layout", Layout, Layout.NCHW)
    if "C" not in layout and color is not Color.GRAY:
        raise fields.fault("layout", f"{layout} has no channels, which only the color GRAY can do without")
    std = fields.numbers("std", color.channels, 1.0)
    if min(std) <= 0:
        raise fields.fault("std", "must be above 0")
    return Preprocessing(
        resize=_parse_resize(fields.get("resize"), color) if "resize" in fields else None,
        crop=_parse_crop(fields.get("crop")) if "crop" in fields else None,
        color=color,
        layout=layout,
        scale=fields.positive("scale", 1.0),
        mean=fields.numbers("mean", color.channels, 0.0),
        std=std,
        quantization=_parse_quantization(fields, "preprocessing"),
        classification=_parse_classification(fields.get("classification"))
        if "classification" in fields
        else None,
    )


def _parse_resize(document: object, color: Color) -> Resize:
    keys = ("mode", "width", "height", "size", "interpolation", "padColor", "anchor")
    fields = Fields(document, "preprocessing.resize", keys)
    mode = fields.choice("mode", ResizeMode)
    if mode is ResizeMode.SHORTER_SIDE:
        fields.refuse(("width", "height"), "does not belong to the mode ShorterSide: write size")
        width = height = fields.integer("size", 1, MAX_SIDE)
    else:
        fields.refuse(("size",), f"does not belong to the mode {mode}: write width and height")
        width, height = fields.integer("width", 1, MAX_SIDE), fields.integer("height", 1, MAX_SIDE)
    if mode is not ResizeMode.LETTERBOX:
        fields.refuse(("padColor", "anchor"), "belongs to the mode Letterbox only")
    pad_color = fields.numbers("padColor", color.channels, 114)
    if not all(value in range(256) for value in pad_color):
        raise fields.fault("padColor", "must hold whole numbers from 0 to 255")
    return Resize(
        mode=mode,
        width=width,
        height=height,
        interpolation=fields.choice("interpolation", Interpolation, Interpolation.BILINEAR),
        pad_color=tuple(int(value) for value in pad_color),
        anchor=fields.choice("anchor", Anchor, Anchor.CENTER),
    )


def _parse_crop(document: object) -> Crop:
    fields = Fields(document, "preprocessing.crop", ("width", "height"))
    return Crop(fields.integer("width", 1, MAX_SIDE), fields.integer("height", 1, MAX_SIDE))


def _parse_quantization(outer: Fields, where: str) -> Quantization | None:
    if "quantization" not in outer:
        return None
    fields = Fields(outer.get("quantization"), f"{where}.quantization", ("scale", "zeroPoint"))
    return Quantization(fields.positive("scale"), fields.integer("zeroPoint", -128, 255, 0))


def _parse_classification(document: object) -> Classification:
    where = "preprocessing.classification"
    fields = Fields(document, where, ("output", "labels", "labelsFile", "softmax", "top", "quantization"))
    if "labels" in fields:
        fields.refuse(("labelsFile",), "and labels exclude each other: give one of them")
    labels = fields.get("labels")
    if "labels" in fields:
        if not isinstance(labels, list) or not labels:
            raise fields.fault("labels", "must be a list that is not empty")
        labels = check_labels(labels, f"{where}.labels")
    return Classification(
        output=fields.text("output"),
        labels=labels,
        labels_file=fields.text("labelsFile"),
        softmax=fields.flag("softmax"),
        top=fields.integer("top", 1, MAX_TOP, DEFAULT_TOP),
        quantization=_parse_quantization(fields, where),
    )


def check_labels(labels: list[object], where: str) -> tuple[str, ...]:
    """Return the labels; raises ValueError unless each is one line of text."""
    checked: list[str] = []
    for index, label in enumerate(labels):
        if not isinstance(label, str) or not label.isprintable() or len(label) > MAX_LABEL_CHARACTERS:
            limit = f"one line of at most {MAX_LABEL_CHARACTERS} printable characters"
            raise ValueError(f"{where}: label {index} must be {limit}")
        checked.append(label)
    return tuple(checked)
