"""A tensor of every datatype, and what to compare of the answers."""

import struct
from typing import Any

import numpy as np

ARRAYS = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], "u1"),
    "UINT16": np.array([[1, 65535]], "<u2"),
    "UINT32": np.array([[1, 2**32 - 1]], "<u4"),
    "UINT64": np.array([[1, 2**64 - 1]], "<u8"),
    "INT8": np.array([[-128, 127]], "i1"),
    "INT16": np.array([[-(2**15), 1]], "<i2"),
    "INT32": np.array([[-(2**31), 1]], "<i4"),
    "INT64": np.array([[-(2**63), 1]], "<i8"),
    "FP16": np.array([[0.1, -6e-8]], "<f2"),
    "FP32": np.array([[0.1, -1e-45]], "<f4"),
    "FP64": np.array([[0.1, 5e-324]], "<f8"),
    "BYTES": np.array([[b"", "ä\n".encode()]], np.object_),
}


def to_hex(array: Any) -> str:
    """Return the elements of a tensor as the protocol's raw bytes."""
    if array.dtype == np.object_ or array.dtype.kind == "S":
        elements = [item.encode() if isinstance(item, str) else bytes(item) for item in array.reshape(-1)]
        return b"".join(struct.pack("<I", len(item)) + item for item in elements).hex()
    return array.tobytes().hex()
