"""Where a picture comes to lie in the model's input: sizes and places only, no pixels.

The rounding is that of the tools in which models are trained, so that a picture is cut as it was there:
torchvision's for ShorterSide and crops, Ultralytics' for Letterbox.
"""

from dataclasses import dataclass

from edgemodel_server.errors import ApiError
from edgemodel_server.preprocessing.schema import MAX_SIDE, Anchor, Crop, Preprocessing, Resize, ResizeMode

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A picture of the size ``source`` is scaled to ``scaled`` and laid into ``frame``, the input's plane.

    ``offset`` is where its top left corner comes to lie: negative where a crop cuts it off, positive where it
    stands in a letterbox.
    """

    source: Size
    scaled: Size
    offset: tuple[int, int]
    frame: Size

    def describe(self) -> dict[str, int | float]:
        """Return the parameters by which a client maps places: input = picture x scale + offset."""
        return {
            "picture_width": self.source[0],
            "picture_height": self.source[1],
            "scale_x": self.scaled[0] / self.source[0],
            "scale_y": self.scaled[1] / self.source[1],
            "offset_x": self.offset[0],
            "offset_y": self.offset[1],
        }


def place(preprocessing: Preprocessing, source: Size) -> Placement:
    """Return the placement of a picture; raises ApiError(400) for a shape that cannot be laid out."""
    resize, crop = preprocessing.resize, preprocessing.crop
    scaled = source if resize is None else _scale(resize, source)
    if scaled[0] * scaled[1] > MAX_SIDE * MAX_SIDE:
        told = f"a picture of {_tell(source)} would be scaled to {_tell(scaled)}"
        raise ApiError(400, f"{told}: crop it to a less extreme shape")
    offset, frame = (0, 0), scaled
    if resize is not None and resize.mode is ResizeMode.LETTERBOX:
        offset, frame = _letterbox(resize, scaled)
    if crop is not None:
        cut = _cut(crop, frame, source)
        offset, frame = (offset[0] - cut[0], offset[1] - cut[1]), (crop.width, crop.height)
    return Placement(source, scaled, offset, frame)


def fixed_frame(preprocessing: Preprocessing) -> Size | None:
    """Return the size of the input's plane where it is the same for every picture, else None."""
    resize, crop = preprocessing.resize, preprocessing.crop
    if crop is not None:
        return crop.width, crop.height
    if resize is None or resize.mode is ResizeMode.SHORTER_SIDE:
        return None
    return resize.width, resize.height


def crops_too_much(preprocessing: Preprocessing) -> bool:
    """Say whether the crop is larger than what the resize leaves of any picture."""
    resize, crop = preprocessing.resize, preprocessing.crop
    if resize is None or crop is None:
        return False
    if resize.mode is ResizeMode.SHORTER_SIDE:
        return min(crop.width, crop.height) > resize.width
    return crop.width > resize.width or crop.height > resize.height


def _scale(resize: Resize, source: Size) -> Size:
    width, height = source
    match resize.mode:
        case ResizeMode.STRETCH:
            return resize.width, resize.height
        case ResizeMode.SHORTER_SIDE:
            shorter = min(source)
            return resize.width * width // shorter, resize.height * height // shorter
        case ResizeMode.LETTERBOX:
            factor = min(resize.width / width, resize.height / height)
            return max(1, round(width * factor)), max(1, round(height * factor))


def _letterbox(resize: Resize, scaled: Size) -> tuple[tuple[int, int], Size]:
    frame = (resize.width, resize.height)
    if resize.anchor is Anchor.TOP_LEFT:
        return (0, 0), frame
    return ((frame[0] - scaled[0]) // 2, (frame[1] - scaled[1]) // 2), frame


def _cut(crop: Crop, frame: Size, source: Size) -> tuple[int, int]:
    """Return the top left corner of the middle of ``frame``; halves are rounded to the even pixel."""
    spare = (frame[0] - crop.width, frame[1] - crop.height)
    if min(spare) < 0:
        wanted = _tell((crop.width, crop.height))
        shrunk = "" if frame == source else f", {_tell(frame)} after the resize"
        raise ApiError(400, f"a picture of {_tell(source)}{shrunk} is too small for the crop of {wanted}")
    return round(spare[0] / 2), round(spare[1] / 2)


def _tell(size: Size) -> str:
    return f"{size[0]}x{size[1]} pixels"
