"""Which kind of picture a body is, by its Content-Type.

``image/jpeg`` and ``image/png`` carry their size. Raw pixels do not: ``image/x-raw; width=640; height=480;
format=RGB`` says it in the parameters of the type, in the words of GStreamer's ``video/x-raw``. What comes as
``application/octet-stream`` are the protocol's binary tensors.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from edgemodel_server.errors import ApiError

_PREFIX = b"image/"
_PARAMETER = re.compile(r'\s*([a-z]+)\s*=\s*"?([A-Za-z0-9]+)"?\s*')
_SUPPORTED = "send image/jpeg, image/png, or raw pixels as image/x-raw; width=W; height=H"


class Encoding(StrEnum):
    """How the pixels of a body are encoded, as a person says it."""

    JPEG = "JPEG"
    PNG = "PNG"
    RAW = "raw picture"


_MAGIC = {Encoding.JPEG: b"\xff\xd8\xff", Encoding.PNG: b"\x89PNG\r\n\x1a\n"}
_ENCODINGS = {"jpeg": Encoding.JPEG, "jpg": Encoding.JPEG, "png": Encoding.PNG, "x-raw": Encoding.RAW}


class RawFormat(StrEnum):
    """The bytes of a raw pixel, in their order; rows from the top, without padding."""

    RGB = "RGB"
    BGR = "BGR"
    GRAY8 = "GRAY8"

    @property
    def bytes_per_pixel(self) -> int:
        """How many there are."""
        return 1 if self is RawFormat.GRAY8 else 3


@dataclass(frozen=True, slots=True)
class PictureType:
    """What a Content-Type says. ``size`` (width, height) and ``raw_format`` are those of raw pixels only."""

    encoding: Encoding
    size: tuple[int, int] = (0, 0)
    raw_format: RawFormat = RawFormat.RGB


def recognize(body: bytes | memoryview) -> Encoding | None:
    """Return which kind of file a body is by its first bytes, if it is one of a picture."""
    return next((kind for kind, magic in _MAGIC.items() if body[: len(magic)] == magic), None)


def is_picture(content_type: bytes) -> bool:
    """Say whether a Content-Type is that of a picture, supported or not."""
    return content_type[: len(_PREFIX)].lower() == _PREFIX


def parse_picture_type(content_type: bytes) -> PictureType:
    """Return what the Content-Type of a picture says; raises ApiError, 415 or 400."""
    name, *parameters = content_type.decode("latin-1").split(";")
    encoding = _ENCODINGS.get(name.strip().lower().removeprefix("image/"))
    if encoding is None:
        raise ApiError(415, f"a body of {name.strip()!r} is not supported: {_SUPPORTED}")
    if encoding is not Encoding.RAW:
        return PictureType(encoding)
    values: dict[str, str] = {}
    for text in parameters:
        match = _PARAMETER.fullmatch(text)
        if match is None or match[1] not in ("width", "height", "format") or match[1] in values:
            raise ApiError(
                400, f"Content-Type image/x-raw takes width, height and format, not {text.strip()!r}"
            )
        values[match[1]] = match[2]
    raw_format = values.get("format", RawFormat.RGB)
    if raw_format not in set(RawFormat):
        raise ApiError(400, f"the format of image/x-raw must be one of {', '.join(RawFormat)}")
    return PictureType(
        encoding, (_parse_side(values, "width"), _parse_side(values, "height")), RawFormat(raw_format)
    )


def _parse_side(values: dict[str, str], key: str) -> int:
    text = values.get(key, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise ApiError(
            400, f"Content-Type image/x-raw needs {key}, in pixels: image/x-raw; width=640; height=480"
        )
    return int(text)
