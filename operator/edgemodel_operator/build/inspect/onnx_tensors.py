"""The stored tensors of an ONNX graph: how large they are, and whether what they name is there.

A tensor holds its elements itself, or names a range of a file beside the model ("external data",
https://onnx.ai/onnx/repo-docs/ExternalData.html). Only ranges of the model's own files are taken, and only
the keys that the format has: readers have been attacked through others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from edgemodel_operator.build.inspect.memory import count_bytes, count_elements
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.inspect.onnx_outline import Content, Outline

_P = onnx.TensorProto

DATATYPES: Mapping[int, str] = {
    _P.BOOL: "BOOL",
    _P.UINT8: "UINT8",
    _P.UINT16: "UINT16",
    _P.UINT32: "UINT32",
    _P.UINT64: "UINT64",
    _P.INT8: "INT8",
    _P.INT16: "INT16",
    _P.INT32: "INT32",
    _P.INT64: "INT64",
    _P.FLOAT16: "FP16",
    _P.FLOAT: "FP32",
    _P.DOUBLE: "FP64",
    _P.STRING: "BYTES",
}
"""Those of the Open Inference Protocol that a server can answer with."""

_BITS_BY_NAME = {
    "BOOL": 8, "UINT8": 8, "INT8": 8, "UINT16": 16, "INT16": 16, "FLOAT16": 16, "BFLOAT16": 16,
    "UINT32": 32, "INT32": 32, "FLOAT": 32, "UINT64": 64, "INT64": 64, "DOUBLE": 64,
    "COMPLEX64": 64, "COMPLEX128": 128, "STRING": 128,
    "FLOAT8E4M3FN": 8, "FLOAT8E4M3FNUZ": 8, "FLOAT8E5M2": 8, "FLOAT8E5M2FNUZ": 8, "FLOAT8E8M0": 8,
    "UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2,
}  # fmt: skip
_NAMED = frozenset(_P.DataType.keys())
BITS: Mapping[int, int] = {
    _P.DataType.Value(name): bits for name, bits in _BITS_BY_NAME.items() if name in _NAMED
}
"""Bits of an element in a file, by type; a text counts as two pointers."""

_KEYS = frozenset({"location", "offset", "length", "checksum"})
_LISTS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")
_MOST_PER_ENTRY = 4
"""How many elements an entry of those lists stands for at most: four of two bits."""


@dataclass
class StoredTensors:
    """Adds up the tensors of an outline; `sizes` (bytes) are those of the files that they may name."""

    sizes: Mapping[str, int]
    outline: Outline
    elements: int = 0
    bytes: int = 0

    def add(self, tensor: Any) -> None:
        """Count a tensor; raises Objection when it is not whole, or names what is not part of the model."""
        bits = BITS.get(tensor.data_type)
        if bits is None:
            raise Objection(f"{_the(tensor)} has a type of number {tensor.data_type}, which is not known.")
        if tensor.HasField("segment"):
            raise Objection(f"{_the(tensor)} is stored in segments, which no runtime reads.")
        elements = count_elements(tensor.dims)
        size = count_bytes(elements, bits)
        left_out = self.outline.left_out(tensor)
        if left_out is None and (tensor.data_location == _P.EXTERNAL or tensor.external_data):
            self._check_external(tensor, size)
        else:
            _check_content(tensor, left_out or _content(tensor), elements, size)
        self.elements += elements
        self.bytes += size

    def _check_external(self, tensor: Any, size: int) -> None:
        if tensor.data_location != _P.EXTERNAL or any(
            (tensor.HasField("raw_data"), *(len(getattr(tensor, name)) for name in _LISTS))
        ):
            raise Objection(f"{_the(tensor)} is stored both in the model and in another file.")
        said = {str(entry.key): str(entry.value) for entry in tensor.external_data}
        if len(said) < len(tensor.external_data):
            raise Objection(f"{_the(tensor)} says twice where it lies.")
        if unknown := sorted(said.keys() - _KEYS):
            raise Objection(
                f"{_the(tensor)} says {unknown[0][:40]!r} of where it lies; ONNX knows no such key."
            )
        location = said.get("location", "")
        whole = self.sizes.get(location)
        if whole is None:
            raise Objection(_no_such_file(tensor, location, self.sizes))
        offset = _number(tensor, said.get("offset", "0"))
        length = _number(tensor, said["length"]) if "length" in said else whole - offset
        if offset + length > whole:
            raise Objection(
                f"{_the(tensor)} ends at byte {offset + length} of {location}, which has {whole}: they do "
                "not belong together."
            )
        if length < size or ("length" in said and length != size):
            raise Objection(f"{_the(tensor)} needs {size} bytes and has {length}.")


def _content(tensor: Any) -> Content:
    raw_bytes = len(tensor.raw_data) if tensor.HasField("raw_data") else None
    return Content(raw_bytes, sum(len(getattr(tensor, name)) for name in _LISTS))


def _check_content(tensor: Any, content: Content, elements: int, size: int) -> None:
    if content.raw_bytes is not None:
        if content.raw_bytes != size:
            raise Objection(f"{_the(tensor)} needs {size} bytes and has {content.raw_bytes}.")
    elif elements > _MOST_PER_ENTRY * content.entries:
        raise Objection(f"{_the(tensor)} has fewer elements than its shape says.")


def _no_such_file(tensor: Any, location: str, sizes: Mapping[str, int]) -> str:
    parts = location.split("/")
    if "\\" in location or any(part in {"", ".", ".."} for part in parts):
        return (
            f"{_the(tensor)} lies in {location[:100]!r}, which is no plain name of a file beside the model: "
            "save the model with its weights in one file beside it."
        )
    given = ", ".join(sorted(sizes)[:8]) or "none"
    return (
        f"{_the(tensor)} lies in another file, {location[:100]!r}, which is not there (there is: {given}): "
        "give it as `weights` of the source under that name, or give an archive of all files."
    )


def _number(tensor: Any, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise Objection(f"{_the(tensor)} has {text[:32]!r} where a number of bytes belongs.")
    return int(text)


def _the(tensor: Any) -> str:
    return f"Its tensor {tensor.name[:100]!r}"
