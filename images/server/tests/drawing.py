"""Pictures made on the spot, their files, and what a model should be given for them, computed another way.

``expect_input`` is written from the sentences of ``images/CONTRACT.md`` with Pillow's own functions and plain
arithmetic, and shares no code with the server.
"""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FILTERS = {
    "Nearest": Image.Resampling.NEAREST,
    "Bilinear": Image.Resampling.BILINEAR,
    "Bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
Document = Mapping[str, Any]


def draw(width: int, height: int, seed: int = 0) -> Image.Image:
    """Give a picture with soft shapes, edges and some noise: no two rows, columns or channels are alike."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (height // 24 + 2, width // 24 + 2, 3), dtype=np.uint8)
    soft = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(soft).astype(np.float64) + random.normal(0, 4, (height, width, 3))
    pixels[height // 4 : height // 2, width // 3 : width // 2] *= (0.3, 0.9, 0.6)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """Give the bytes of a picture's file."""
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def decode(data: bytes) -> Image.Image:
    """Give the picture in a file, upright."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return ImageOps.exif_transpose(image)


def expect_input(image: Image.Image, document: Document, dtype: Any = np.float32) -> NDArray[Any]:
    """Give the input that ``preprocessing`` should make of a picture."""
    color = document.get("color", "RGB")
    image = image.convert("L" if color == "GRAY" else "RGB")
    resize = document.get("resize")
    if resize is not None:
        image = _resize(image, resize, color)
    crop = document.get("crop")
    if crop is not None:
        left = round((image.width - crop["width"]) / 2)
        top = round((image.height - crop["height"]) / 2)
        image = image.crop((left, top, left + crop["width"], top + crop["height"]))
    pixels = np.asarray(image, dtype=np.float64)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if color == "BGR":
        pixels = pixels[:, :, [2, 1, 0]]
    values = pixels * document.get("scale", 1)
    values = (values - document.get("mean", [0])) / document.get("std", [1])
    return _lay_out(_quantize(values, document.get("quantization"), dtype), document.get("layout", "NCHW"))


def _resize(image: Image.Image, resize: Document, color: str) -> Image.Image:
    pixel_filter = FILTERS[resize.get("interpolation", "Bilinear")]
    if resize["mode"] == "Stretch":
        return image.resize((resize["width"], resize["height"]), pixel_filter)
    if resize["mode"] == "ShorterSide":
        size, shorter = resize["size"], min(image.size)
        return image.resize(
            (int(size * image.width / shorter), int(size * image.height / shorter)), pixel_filter
        )
    ratio = min(resize["width"] / image.width, resize["height"] / image.height)
    small = image.resize((round(image.width * ratio), round(image.height * ratio)), pixel_filter)
    pad = resize.get("padColor", [114])
    pad = pad * len(small.getbands()) if len(pad) == 1 else pad
    frame = Image.new(
        small.mode, (resize["width"], resize["height"]), tuple(pad[::-1] if color == "BGR" else pad)
    )
    middle = ((frame.width - small.width) // 2, (frame.height - small.height) // 2)
    frame.paste(small, (0, 0) if resize.get("anchor") == "TopLeft" else middle)
    return frame


def _quantize(values: NDArray[np.float64], quantization: Document | None, dtype: Any) -> NDArray[Any]:
    if np.dtype(dtype).kind == "f":
        return values.astype(dtype)
    if quantization is not None:
        values = values / quantization["scale"] + quantization.get("zeroPoint", 0)
    limits = np.iinfo(dtype)
    return np.minimum(np.maximum(np.round(values), limits.min), limits.max).astype(dtype)


def _lay_out(values: NDArray[Any], layout: str) -> NDArray[Any]:
    """Bring [height, width, channels] into the layout."""
    if "C" not in layout:
        values = values[:, :, 0]
        return values[None] if layout == "NHW" else values
    if layout.endswith("CHW"):
        values = np.moveaxis(values, 2, 0)
    return values[None] if layout.startswith("N") else values
