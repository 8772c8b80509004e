"""Requests whose tensors are JSON, read by simdjson: several times faster than lists of Python numbers.

It accepts only what the strict reader in ``inference`` would accept, with the same result, and says nothing
about the rest: None sends the request there, where every refusal has its sentence.
"""

from math import prod
from typing import Any, Literal

import numpy as np
import simdjson

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor

_ELEMENT_TYPES: dict[str, tuple[Literal["d", "i", "u"], np.dtype[Any]]] = {
    "f": ("d", np.dtype("<f8")),
    "i": ("i", np.dtype("<i8")),
    "u": ("u", np.dtype("<u8")),
}
"""numpy kind -> simdjson's element type, and what it writes."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_FEW_BRACKETS = 16
_REQUEST_KEYS = frozenset({"inputs", "outputs", "parameters"})
_TENSOR_KEYS = frozenset({"name", "datatype", "shape", "data", "parameters"})

_parser = simdjson.Parser()


def split_request(body: bytes) -> tuple[dict[str, Any], list[simdjson.Array]] | None:
    """Return a request's JSON object without the ``data`` of its inputs, and these; None: read it strictly.

    ``data`` is None in the object. Drop the arrays before the next call: the parser uses their memory again.
    """
    root = _parse(body)
    if not isinstance(root, simdjson.Object):
        return None
    try:
        return _split_object(root)
    except KeyError:  # a key with a NUL in it is listed, but not found
        return None


def _split_object(root: simdjson.Object) -> tuple[dict[str, Any], list[simdjson.Array]] | None:
    arrays: list[simdjson.Array] = []
    document: dict[str, Any] = {}
    keys = _unique_keys(root)
    if keys is None:
        return None
    for key in keys:
        value = root[key]
        if key == "inputs":
            entries = _split_inputs(value, arrays)
            if entries is None:
                return None
            document[key] = entries
        else:
            document[key] = _to_python(value)
    return document, arrays


def _split_inputs(value: object, arrays: list[simdjson.Array]) -> list[dict[str, Any]] | None:
    if not isinstance(value, simdjson.Array):
        return None
    entries: list[dict[str, Any]] = []
    for item in value:
        if not isinstance(item, simdjson.Object):
            return None
        keys = _unique_keys(item)
        if keys is None:
            return None
        entry: dict[str, Any] = {}
        for key in keys:
            part = item[key]
            if key == "data":
                if not isinstance(part, simdjson.Array):
                    return None
                arrays.append(part)
                entry[key] = None
            else:
                entry[key] = _to_python(part)
        entries.append(entry)
    return entries


def _to_python(value: object) -> object:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def decode_data(
    body: bytes, document: dict[str, Any], tensors: list[tuple[str, tuple[int, ...], simdjson.Array]]
) -> list[Tensor] | None:
    """Return the arrays of all ``data``, given with datatype and shape; None where one is not just that."""
    brackets = _count_lists(document)
    decoded: list[Tensor] = []
    for datatype, shape, array in tensors:
        nested = _count_arrays(array, shape)
        tensor = _decode(datatype, shape, array)
        if nested is None or tensor is None:
            return None
        brackets += nested
        decoded.append(tensor)
    # simdjson flattens whatever is nested. What was counted is all there is: so nothing else is.
    return decoded if _has_brackets(body, brackets) else None


def _decode(datatype: str, shape: tuple[int, ...], array: simdjson.Array) -> Tensor | None:
    dtype = NUMPY_DTYPE[datatype]
    if dtype.kind not in _ELEMENT_TYPES:
        return None
    element, wide = _ELEMENT_TYPES[dtype.kind]
    try:
        values: Tensor = np.frombuffer(array.as_buffer(of_type=element), wide)
    except (TypeError, ValueError):
        return None
    if len(values) != prod(shape):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(dtype)
        return values.reshape(shape) if np.isfinite(values).all() else None
    narrow = values.astype(dtype)
    return narrow.reshape(shape) if np.array_equal(narrow, values) else None


def _count_arrays(array: simdjson.Array, shape: tuple[int, ...]) -> int | None:
    """Return how many arrays there are in flat data, or in data nested as ``shape``; None: it is neither."""
    size = len(array)
    first = array[0] if size else None
    if not isinstance(first, simdjson.Array):
        return 1 if size == prod(shape) else None
    return _count_nested(array, shape)


def _count_nested(array: simdjson.Array, shape: tuple[int, ...]) -> int | None:
    if not shape or len(array) != shape[0]:
        return None
    count = 1
    if len(shape) == 1:
        return count
    for row in array:
        inner = _count_nested(row, shape[1:]) if isinstance(row, simdjson.Array) else None
        if inner is None:
            return None
        count += inner
    return count


def _count_lists(value: object) -> int:
    if isinstance(value, list):
        return 1 + sum(map(_count_lists, value))
    return sum(map(_count_lists, value.values())) if isinstance(value, dict) else 0


def _has_brackets(body: bytes, count: int) -> bool:
    """Say whether exactly ``count`` opening brackets are in the text; one inside a string is one too many."""
    if count > _FEW_BRACKETS:
        return body.count(b"[") == count
    place = -1
    for _ in range(count):
        place = body.find(b"[", place + 1)
        if place < 0:
            return False
    return body.find(b"[", place + 1) < 0


def decode_flat(text: bytes, datatype: str, shape: tuple[int, ...]) -> Tensor | None:
    """Return the array of a JSON array of numbers, nothing nested; None where it is not just that."""
    if text.find(b"[", 1) >= 0:
        return None
    array = _parse(text)
    if not isinstance(array, simdjson.Array) or len(array) != prod(shape):
        return None
    return _decode(datatype, shape, array)


def has_empty_data(body: bytes) -> bool:
    """Say whether a request holds only what the protocol defines, each key once, and empty ``data``."""
    root = _parse(body)
    if not isinstance(root, simdjson.Object) or not _are_among(root, _REQUEST_KEYS):
        return False
    inputs = root.get("inputs", None)
    return isinstance(inputs, simdjson.Array) and all(_is_empty(entry) for entry in inputs)


def _is_empty(entry: object) -> bool:
    if not isinstance(entry, simdjson.Object) or not _are_among(entry, _TENSOR_KEYS) or "data" not in entry:
        return False
    data = entry["data"]
    return isinstance(data, simdjson.Array) and len(data) == 0


def _are_among(value: simdjson.Object, known: frozenset[str]) -> bool:
    keys = _unique_keys(value)
    return keys is not None and known.issuperset(keys)


def _unique_keys(value: simdjson.Object) -> list[str] | None:
    """Return the keys of an object; None where one is given twice: readers differ in which they take."""
    keys = list(value.keys())
    return keys if len(set(keys)) == len(keys) else None


def _parse(text: bytes) -> object:
    """Return simdjson's view of a text; None where it is not valid."""
    global _parser  # noqa: PLW0603 - one parser, whose memory is used again
    if text.startswith(_BYTE_ORDER_MARK):  # which simdjson skips, and JSON does not have
        return None
    try:
        return _parser.parse(text)
    except ValueError:
        return None
    except RuntimeError:  # something of the last text is still referred to
        _parser = simdjson.Parser()
        return None
