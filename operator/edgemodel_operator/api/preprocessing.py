"""How a picture becomes a model's input, as `images/CONTRACT.md` has it in a manifest ("Preprocessing").

The numbers are JSON numbers, as they stand in training code: the server computes with the same doubles.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from edgemodel_operator.api.base import Schema, rules

MAX_SIDE = 4096
"""The largest width or height that a picture is scaled to, in pixels."""
CHANNELS = {"RGB": 3, "BGR": 3, "GRAY": 1}

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Level = Annotated[int, Field(ge=0, le=255)]


LABEL_RULE = (
    r"self.matches('^( |[^\\p{C}\\p{Z}])*$')",
    "a label is one line of printable characters: write line breaks, tabs and the like as something else",
)
Label = Annotated[
    str,
    Field(max_length=256, pattern=r"^( |[^\p{C}\p{Z}])*$", json_schema_extra=rules(LABEL_RULE)),
]
"""What the server takes for a label: `images/CONTRACT.md`, `classification.labels`."""


def per_channel(name: str) -> dict[str, Any]:
    """Give the schema extension of a list with a value for all channels, or for each of them."""
    return rules(("size(self) == 1 || size(self) == 3", f"{name} has one number, or one for each channel"))


class ResizeMode(StrEnum):
    """How a picture of any shape becomes one of the wanted size."""

    STRETCH = "Stretch"
    SHORTER_SIDE = "ShorterSide"
    LETTERBOX = "Letterbox"


class Interpolation(StrEnum):
    """The filter of a resize."""

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


class Layout(StrEnum):
    """The dimensions of the model's input: one picture (N), channels, height, width."""

    NCHW = "NCHW"
    NHWC = "NHWC"
    CHW = "CHW"
    HWC = "HWC"
    NHW = "NHW"
    HW = "HW"


class Resize(Schema):
    """A resize of the picture."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                (
                    "self.mode == 'ShorterSide' ? has(self.size) && !has(self.width) && !has(self.height) "
                    ": !has(self.size) && has(self.width) && has(self.height)"
                ),
                "a resize of the mode ShorterSide has a `size`, the other modes have `width` and `height`",
            ),
            (
                "self.mode == 'Letterbox' || (!has(self.padColor) && !has(self.anchor))",
                "padColor and anchor belong to the mode Letterbox only: leave them out",
            ),
        )
    )

    mode: ResizeMode
    """Stretch: to width and height, whatever the shape. ShorterSide: until the shorter side has `size`.
    Letterbox: into width and height, the shape kept, the rest filled with `padColor`."""
    width: Side | None = None
    """Pixels."""
    height: Side | None = None
    """Pixels."""
    size: Side | None = None
    """Pixels of the shorter side."""
    interpolation: Interpolation = Interpolation.BILINEAR
    """The filter; all but Nearest with antialiasing."""
    pad_color: (
        Annotated[tuple[Level, ...], Field(max_length=3, json_schema_extra=per_channel("padColor"))] | None
    ) = None
    """The colour of the frame: one level for all channels or one for each, in the order of `color`. Not
    given: 114."""
    anchor: Anchor | None = None
    """Where the picture stands in its frame. Not given: Center."""

    @model_validator(mode="after")
    def _require_what_the_mode_needs(self) -> Self:
        given = (self.size is not None, self.width is not None, self.height is not None)
        if given != ((True, False, False) if self.mode is ResizeMode.SHORTER_SIDE else (False, True, True)):
            raise ValueError("the mode ShorterSide has a `size`, the others have `width` and `height`")
        framed = self.pad_color is not None or self.anchor is not None
        if framed and self.mode is not ResizeMode.LETTERBOX:
            raise ValueError("padColor and anchor belong to the mode Letterbox only")
        return self


class Crop(Schema):
    """The middle of the resized picture."""

    width: Side
    """Pixels."""
    height: Side
    """Pixels."""


class Quantization(Schema):
    """How an integer tensor stands for real numbers: real = (integer - zeroPoint) x scale."""

    scale: Positive
    """The step between two integers."""
    zero_point: Annotated[int, Field(ge=-128, le=255)] = 0
    """The integer that stands for 0."""


class Classification(Schema):
    """That an output holds one score per class: how many to tell, and what they are called."""

    output: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The name of the output. Not given: the model's only one."""
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=4096)] | None = None
    """The names of the classes, in the order of the scores."""
    softmax: bool = False
    """Turn the scores into probabilities."""
    top: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many classes an answer tells."""
    quantization: Quantization | None = None
    """How the scores are quantized, where the output holds integers."""


class Preprocessing(Schema):
    """The way from a picture to the model's input: resize, crop, then `(pixel x scale - mean) / std`."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.color == 'GRAY' || self.layout.contains('C')",
                "a layout without channels (NHW, HW) needs `color: GRAY`",
            ),
            (
                (
                    "self.color != 'GRAY' || (size(self.mean) == 1 && size(self.std) == 1 && "
                    "(!has(self.resize) || !has(self.resize.padColor) || size(self.resize.padColor) == 1))"
                ),
                "with `color: GRAY` there is one channel: give one number in mean, std and padColor",
            ),
        )
    )

    resize: Resize | None = None
    """The resize. Not given: pictures keep their size."""
    crop: Crop | None = None
    """What is cut out of the middle then. Not given: everything stays."""
    color: Color = Color.RGB
    """The channels of the input, in order; GRAY is the luma of ITU-R 601."""
    layout: Layout = Layout.NCHW
    """The dimensions of the input, in order."""
    scale: Positive = 1.0
    """What each pixel, from 0 to 255, is multiplied with."""
    mean: Annotated[tuple[Number, ...], Field(max_length=3, json_schema_extra=per_channel("mean"))] = (0.0,)
    """What is subtracted then: one number, or one for each channel in the order of `color`."""
    std: Annotated[tuple[Positive, ...], Field(max_length=3, json_schema_extra=per_channel("std"))] = (1.0,)
    """What the difference is divided by: one number, or one for each channel in the order of `color`."""
    quantization: Quantization | None = None
    """How the input is quantized, where it holds integers."""
    classification: Classification | None = None
    """That the answer names classes. Not given: it holds the tensors."""

    @model_validator(mode="after")
    def _require_matching_channels(self) -> Self:
        if self.color is not Color.GRAY and "C" not in self.layout:
            raise ValueError("a layout without channels (NHW, HW) needs `color: GRAY`")
        given = {"mean": self.mean, "std": self.std}
        if self.resize is not None and self.resize.pad_color is not None:
            given["padColor"] = self.resize.pad_color
        for name, values in given.items():
            if len(values) not in {1, CHANNELS[self.color]}:
                raise ValueError(f"{name} has one number, or one for each channel")
        return self
