"""A request body that is nothing but the bytes of the model's only input.

Source: Triton's binary tensor data extension, "raw binary request": ``Inference-Header-Content-Length: 0``.
There is no JSON to give a shape, so it follows from the model's and the number of elements.
"""

from collections.abc import Mapping
from math import prod
from struct import Struct

from edgemodel_server.datatypes import BYTES, NUMPY_DTYPE, Tensor, TensorSpec
from edgemodel_server.errors import ApiError
from edgemodel_server.tensors import decode_binary

_LENGTH = Struct("<I")


def decode_raw_body(body: bytes, specs: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """Return the only input, by name; raises ApiError(400) where model or body do not fit this form."""
    if len(specs) != 1:
        raise ApiError(
            400, f"a body without JSON is for models with one input: the model has {len(specs)} inputs"
        )
    ((name, spec),) = specs.items()
    return {name: decode_binary(name, spec.datatype, _find_shape(body, spec), memoryview(body))}


def _find_shape(body: bytes, spec: TensorSpec) -> tuple[int, ...]:
    free = spec.shape.count(-1)
    if free == 0:
        return spec.shape
    if free > 1:
        raise ApiError(
            400,
            f'input "{spec.name}" has more than one free dimension: send its shape, in JSON before the data',
        )
    fixed = prod(size for size in spec.shape if size != -1)
    if spec.datatype == BYTES:
        rows, rest = divmod(_count_elements(body), fixed) if fixed else (0, 0)
    else:
        row = fixed * NUMPY_DTYPE[spec.datatype].itemsize
        rows, rest = divmod(len(body), row) if row else (0, 0)
    if rest:
        raise ApiError(
            400,
            f'input "{spec.name}": {len(body)} bytes are no whole number of {list(spec.shape)} elements of '
            f"{spec.datatype}",
        )
    return tuple(rows if size == -1 else size for size in spec.shape)


def _count_elements(body: bytes) -> int:
    """Return how many length-prefixed elements begin in the body; whether they end there is not checked."""
    count = position = 0
    while position + _LENGTH.size <= len(body):
        position += _LENGTH.size + int(_LENGTH.unpack_from(body, position)[0])
        count += 1
    return count
