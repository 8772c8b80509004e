"""Tensors on the wire: JSON lists and the binary tensor extension, to and from numpy arrays.

Source: Open Inference Protocol v2, "Tensor Data", and its "Binary Tensor Data Extension" (``BYTES`` elements
are each preceded by their length as four little-endian bytes). All functions are pure; a tensor that is not
exactly what it claims to be is refused with status 400, never repaired.
"""

import struct
from itertools import chain
from math import prod

import numpy as np

from edgemodel_server.datatypes import BYTES, JSON_TYPES, NUMPY_DTYPE, Tensor
from edgemodel_server.errors import ApiError

_LENGTH = struct.Struct("<I")
_MAX_EMPTY = 1 << 26
"""The product of the other sizes where one is 0: no data bounds it, and a model may fill an output of it."""


def parse_shape(name: str, value: object) -> tuple[int, ...]:
    """Return the shape of a request tensor, or refuse it: a list of non-negative integers."""
    if not isinstance(value, list) or any(type(size) is not int or size < 0 for size in value):
        raise ApiError(400, f'tensor "{name}": shape must be a list of non-negative integers')
    if 0 in value and prod(size or 1 for size in value) > _MAX_EMPTY:
        raise ApiError(400, f'tensor "{name}": shape {value} is too large for a tensor without elements')
    return tuple(value)


def decode_json(name: str, datatype: str, shape: tuple[int, ...], values: object) -> Tensor:
    """Return the array of a JSON tensor's ``data``, given flat (row-major) or nested as its shape."""
    if not isinstance(values, list):
        raise ApiError(400, f'tensor "{name}": data must be a list')
    flat = _flatten(name, shape, values)
    if len(flat) != prod(shape):
        raise ApiError(
            400, f'tensor "{name}": shape {list(shape)} holds {prod(shape)} elements, data has {len(flat)}'
        )
    strangers = set(map(type, flat)) - JSON_TYPES[datatype]
    if strangers:
        found = ", ".join(sorted(_json_name(stranger) for stranger in strangers))
        raise ApiError(400, f'tensor "{name}": data of datatype {datatype} must not hold {found}')
    if datatype == BYTES:
        return make_bytes_array([str(text).encode() for text in flat]).reshape(shape)
    try:
        with np.errstate(over="ignore"):
            array: Tensor = np.array(flat, dtype=NUMPY_DTYPE[datatype])
    except OverflowError:
        raise ApiError(400, f'tensor "{name}": a value is outside the range of {datatype}') from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ApiError(400, f'tensor "{name}": a value is outside the range of {datatype}')
    return array.reshape(shape)


def _flatten(name: str, shape: tuple[int, ...], values: list[object]) -> list[object]:
    """Return the elements of a nested list in row-major order; nesting must follow ``shape`` exactly."""
    flat = values
    for depth, size in enumerate(shape):
        if not flat or type(flat[0]) is not list:
            break
        last = depth == len(shape) - 1
        inner = shape[depth + 1] if not last else -1
        if (depth == 0 and len(flat) != size) or any(
            type(row) is not list or len(row) != inner for row in flat
        ):
            raise ApiError(400, f'tensor "{name}": the nesting of data does not follow shape {list(shape)}')
        flat = list(chain.from_iterable(flat))  # type: ignore[arg-type]
    return flat


_JSON_NAMES = (
    (type(None), "null"),
    (bool, "true or false"),
    (int, "an integer"),
    (float, "a fraction or a huge number"),
    (str, "a string"),
    (list, "a nested list"),
    (dict, "an object"),
)


def _json_name(kind: type) -> str:
    return next(name for known, name in _JSON_NAMES if kind is known)


def decode_binary(name: str, datatype: str, shape: tuple[int, ...], raw: memoryview) -> Tensor:
    """Return the array of a binary tensor; numeric arrays share memory with ``raw`` where it is aligned."""
    if datatype == BYTES:
        return _decode_bytes(name, shape, raw)
    dtype = NUMPY_DTYPE[datatype]
    want = prod(shape) * dtype.itemsize
    if len(raw) != want:
        raise ApiError(
            400,
            f'tensor "{name}": {datatype} of shape {list(shape)} takes {want} bytes, not {len(raw)}',
        )
    if datatype == "BOOL":  # any byte but 0 is true; numpy would trust the byte to be 0 or 1
        truth: Tensor = np.frombuffer(raw, np.uint8) != 0
        return truth.reshape(shape)
    array: Tensor = np.frombuffer(raw, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def _decode_bytes(name: str, shape: tuple[int, ...], raw: memoryview) -> Tensor:
    elements: list[bytes] = []
    position, end, count = 0, len(raw), prod(shape)
    while position + _LENGTH.size <= end and len(elements) < count:
        (size,) = _LENGTH.unpack_from(raw, position)
        start = position + _LENGTH.size
        position = start + size
        if position > end:
            break
        elements.append(bytes(raw[start:position]))
    if position != end or len(elements) != count:
        raise ApiError(
            400, f'tensor "{name}": the binary data is not exactly {count} length-prefixed elements'
        )
    return make_bytes_array(elements).reshape(shape)


def make_bytes_array(elements: list[bytes]) -> Tensor:
    """Return a one-dimensional tensor of datatype BYTES."""
    array: Tensor = np.empty(len(elements), dtype=np.object_)
    array[:] = elements
    return array


def encode_json(name: str, datatype: str, array: Tensor) -> Tensor | list[str]:
    """Return ``data`` for a JSON answer, flat and row-major: ``orjson`` writes it exactly.

    Raises ApiError where JSON cannot carry the values (NaN, infinities, bytes that are no UTF-8): the client
    must ask for that output as binary.
    """
    flat: Tensor = array.reshape(-1)
    if datatype == BYTES:
        try:
            return [element.decode() for element in flat]
        except UnicodeDecodeError:
            raise ApiError(
                400, f'output "{name}" is not UTF-8 text: request it with binary_data: true'
            ) from None
    if flat.size == 0:
        return []
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        raise ApiError(
            400,
            f'output "{name}" holds NaN or infinity, unfit for JSON: request it with binary_data: true',
        )
    return np.ascontiguousarray(flat)


def encode_binary(datatype: str, array: Tensor) -> bytes:
    """Return the tensor in the layout of the binary extension."""
    if datatype == BYTES:
        return b"".join(chain.from_iterable((_LENGTH.pack(len(item)), item) for item in array.reshape(-1)))
    dtype = NUMPY_DTYPE[datatype]
    return (array if array.dtype == dtype else array.astype(dtype)).tobytes()
