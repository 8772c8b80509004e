"""Reading pictures with Pillow: JPEG, PNG and raw pixels, upright and in 8 bits, or refused with a sentence.

Only the two plugins are loaded, and a picture's own size is looked at before any memory is spent on it. What
the header says about colour management (gamma, ICC profiles) is not applied, and transparency is dropped: so
do the tools in which models are trained.
"""

import logging
import warnings
from io import BytesIO

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from edgemodel_server.errors import ApiError
from edgemodel_server.media import Encoding, PictureType, RawFormat, recognize
from edgemodel_server.preprocessing.geometry import Placement, Size, place
from edgemodel_server.preprocessing.schema import Color, Interpolation, Preprocessing

# Standard error is for the server's log: Pillow must not write about odd metadata there.
warnings.filterwarnings("ignore", module="PIL")
logging.getLogger("PIL").addHandler(logging.NullHandler())

_START_OF_SCAN = b"\xff\xda"
_MAX_SCANS = 100
"""Encoders write a dozen. Each scan of a progressive JPEG visits every pixel, however few bytes it has:
without a bound, a small file could keep a thread busy for minutes."""

_DRAFT_FACTOR = 2
"""A JPEG may be decoded at a half, a quarter or an eighth if that leaves this many times the wanted size."""

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the picture upright (Exif 2.32, 4.6.4)."""
_SWAPS_SIDES = frozenset({5, 6, 7, 8})

_FILTERS = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}


def read_frame(
    body: bytes, kind: PictureType, preprocessing: Preprocessing, max_pixels: int
) -> tuple[Image.Image, Placement]:
    """Return the picture in ``body`` as it fills the input's plane, mode RGB or L, and its placement there.

    Raises ApiError: 400 for a body that is no such picture, 413 for one of more than ``max_pixels``.
    """
    if kind.encoding is Encoding.RAW:
        _require_pixels(kind.size, max_pixels)
        image, orientation = _open_raw(body, kind), 1
    else:
        image = _open_encoded(body, kind.encoding)
        _require_pixels(image.size, max_pixels)
        if kind.encoding is Encoding.PNG:
            _decode(image, Encoding.PNG)  # first, for metadata may stand behind the pixels
        orientation = _find_orientation(image)
    turned = orientation in _SWAPS_SIDES
    placement = place(preprocessing, _turn(image.size) if turned else image.size)
    image = _scale(image, _turn(placement.scaled) if turned else placement.scaled, preprocessing)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    return _fill_frame(image, placement, preprocessing), placement


def _turn(size: Size) -> Size:
    return size[1], size[0]


def _require_pixels(size: Size, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        told = f"the picture has {size[0]}x{size[1]} pixels"
        raise ApiError(413, f"{told}, this server takes {max_pixels}: scale it down before it is sent")


def _open_raw(body: bytes, kind: PictureType) -> Image.Image:
    width, height = kind.size
    want = width * height * kind.raw_format.bytes_per_pixel
    if len(body) != want:
        told = f"{width}x{height} pixels of {kind.raw_format} take {want} bytes"
        raise ApiError(400, f"{told}, the body has {len(body)}")
    if kind.raw_format is RawFormat.GRAY8:
        return Image.frombytes("L", kind.size, body)
    return Image.frombytes("RGB", kind.size, body, "raw", kind.raw_format.value)


def _open_encoded(body: bytes, encoding: Encoding) -> Image.Image:
    """Read the header only."""
    found = recognize(body)
    if found is not encoding:
        told = f"it is a {found}: say so in Content-Type" if found else "the body must be the file itself"
        raise ApiError(400, f"the body is no {encoding}: {told}")
    try:
        if encoding is Encoding.PNG:
            PngImageFile(BytesIO(body)).verify()  # the checksums, which decoding does not look at
            return PngImageFile(BytesIO(body))
        image = JpegImageFile(BytesIO(body))
    except Exception as error:  # the plugins raise a dozen unrelated classes for a bad file
        raise _unreadable(encoding, error) from error
    if "progressive" in image.info and body.count(_START_OF_SCAN) > _MAX_SCANS:
        raise ApiError(400, f"the JPEG has more than {_MAX_SCANS} scans: encode it anew")
    return image


def _unreadable(encoding: Encoding, error: Exception) -> ApiError:
    told = " ".join(str(error).split())[:200]
    return ApiError(400, f"the {encoding} cannot be read" + (f": {told}" if told else ""))


def _find_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1, upright, where there is none that can be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged metadata: viewers show such a picture as it is stored, too
        return 1
    return orientation if isinstance(orientation, int) else 1


def _decode(image: Image.Image, encoding: Encoding) -> None:
    try:
        image.load()
    except Exception as error:  # as above
        raise _unreadable(encoding, error) from error


def _scale(image: Image.Image, size: Size, preprocessing: Preprocessing) -> Image.Image:
    """Scale to ``size`` as the picture is stored; only the colours are final."""
    resize = preprocessing.resize
    box = None
    if isinstance(image, JpegImageFile):
        if resize is not None and resize.interpolation is not Interpolation.NEAREST:
            box = _draft(image, size)
        _decode(image, Encoding.JPEG)
    image = _reduce_colors(image, preprocessing.color)
    if resize is None or image.size == size:
        return image
    return image.resize(size, _FILTERS[resize.interpolation], box)


def _draft(image: JpegImageFile, size: Size) -> tuple[float, float, float, float] | None:
    """Have no more pixels decoded than a picture of ``size`` asks for; returns the part that is the picture.

    The decoder then drops frequencies that scaling down would average away: much less work, and a result that
    differs by less than one level in the mean. Where the size of the whole is no multiple of eight, the last
    row and column are less than a pixel of the picture.
    """
    drafted = image.draft(None, (size[0] * _DRAFT_FACTOR, size[1] * _DRAFT_FACTOR))
    return None if drafted is None else drafted[1]


def _reduce_colors(image: Image.Image, color: Color) -> Image.Image:
    """Return the picture in mode RGB, or L for GRAY: 8 bits for each channel, without transparency."""
    if image.mode.startswith("I"):  # 16 bits; of coloured pictures Pillow reads the upper 8, too
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.clear()  # it could make a conversion look for a transparent colour
    if color is Color.GRAY:
        return image if image.mode == "L" else image.convert("RGB").convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def _fill_frame(image: Image.Image, placement: Placement, preprocessing: Preprocessing) -> Image.Image:
    (left, top), (width, height) = placement.offset, placement.frame
    if placement.frame == image.size:
        return image
    if left <= 0 and top <= 0 and width - left <= image.width and height - top <= image.height:
        return image.crop((-left, -top, width - left, height - top))
    frame = Image.new(image.mode, placement.frame, _pad_color(preprocessing))
    frame.paste(image, placement.offset)
    return frame


def _pad_color(preprocessing: Preprocessing) -> int | tuple[int, ...]:
    """Return the frame's colour in Pillow's order of channels."""
    pad_color = preprocessing.resize.pad_color if preprocessing.resize else (0,)
    if len(pad_color) == 1:
        return pad_color[0]
    return pad_color[::-1] if preprocessing.color is Color.BGR else pad_color
