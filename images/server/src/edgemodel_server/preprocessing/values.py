"""From pixels to the numbers that the model takes: one table per channel, computed once, exact.

A pixel has 256 values, so ``(pixel x scale - mean) / std``, the quantization and the datatype's rounding are
one look-up: computed in double precision, rounded once, and the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor
from edgemodel_server.preprocessing.schema import Color, Layout, Preprocessing

DATATYPES = ("FP32", "FP16", "UINT8", "INT8")
"""What an input may be made of."""


def make_tables(preprocessing: Preprocessing, datatype: str) -> Tensor:
    """Return shape [channels, 256]: what each value of a pixel becomes.

    Raises ValueError where the quantization does not go with the datatype, or a value does not fit into it.
    """
    pixels = np.arange(256, dtype=np.float64) * preprocessing.scale
    mean, std = np.array(preprocessing.mean)[:, np.newaxis], np.array(preprocessing.std)[:, np.newaxis]
    values: NDArray[np.float64] = (pixels - mean) / std
    quantization = preprocessing.quantization
    if datatype.startswith("FP"):
        if quantization is not None:
            raise ValueError(f"quantization is for inputs of INT8 and UINT8, the model takes {datatype}")
        return _round_to_float(values, datatype)
    if quantization is not None:
        values = values / quantization.scale + quantization.zero_point
    elif datatype == "INT8":
        raise ValueError("the model takes INT8: give the quantization of its input")
    limits = np.iinfo(NUMPY_DTYPE[datatype])
    return np.rint(values).clip(limits.min, limits.max).astype(NUMPY_DTYPE[datatype])


def _round_to_float(values: NDArray[np.float64], datatype: str) -> Tensor:
    with np.errstate(over="ignore"):
        table: Tensor = values.astype(NUMPY_DTYPE[datatype])
    if not np.isfinite(table).all():
        largest = f"{np.abs(values).max():g}"
        raise ValueError(f"scale, mean and std give values up to {largest}, too large for {datatype}")
    return table


def fill_input(image: Image.Image, tables: Tensor, color: Color, layout: Layout) -> Tensor:
    """Return the input's array for a picture in mode RGB, or L for GRAY."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    sizes = {"N": 1, "C": color.channels, "H": height, "W": width}
    array: Tensor = np.empty([sizes[dimension] for dimension in layout], dtype=tables.dtype)
    stored = pixels.reshape(height, width, color.channels)
    if color is Color.BGR:
        stored = stored[:, :, ::-1]
    for channel, plane in enumerate(_planes(array, layout)):
        np.take(tables[channel], stored[:, :, channel], out=plane, mode="clip")
    return array


def _planes(array: Tensor, layout: Layout) -> Tensor:
    """Return a view of shape [channels, height, width]."""
    if layout.startswith("N"):
        array = array[0]
    if "C" not in layout:
        return array[np.newaxis]
    return array.transpose(2, 0, 1) if layout.endswith("C") else array
