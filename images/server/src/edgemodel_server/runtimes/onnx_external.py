"""ONNX models keep large weights in files beside them: proves that these are files of the model's own folder.

ONNX Runtime refuses paths that are absolute or hold ``..``, but follows links out of the folder, and OpenVINO
has checks of its own. Here both are held to one rule before they see the file. Only what may name such a file
is read; the weights themselves are skipped.

Source: onnx.proto of ONNX 1.21 (field numbers) and the encoding of Protocol Buffers.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from edgemodel_server.errors import Reason, StartError

_LOCATION = b"location"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_CHILDREN: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse tensor",
        23: "sparse tensor",
    },
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external data"},
}
"""Message -> field number -> message, down to the entries of ``TensorProto.external_data``."""


def check_external_data(path: Path) -> None:
    """Raise StartError(LoadFailed) if the model names a file outside of its folder, or is no ONNX file."""
    with path.open("rb") as stream:
        if not path.stat().st_size:
            raise StartError(Reason.LOAD_FAILED, f"{path} is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data.find(_LOCATION) < 0:
                return  # most models: every entry that names a file holds this word
            try:
                locations = set(_find_locations(data))
            except (ValueError, IndexError):
                raise StartError(Reason.LOAD_FAILED, f"{path} is damaged, or no ONNX model") from None
    for location in sorted(locations):
        _check_location(path, location)


def _check_location(path: Path, location: str) -> None:
    folder = path.parent
    inside = location and "\0" not in location and not PurePosixPath(location).is_absolute()
    target = folder / location if inside else folder
    if not inside or not target.resolve().is_relative_to(folder.resolve()):
        sentence = (
            f'{path} takes weights from "{location}", which is not in its folder: put the file beside it'
        )
        raise StartError(Reason.LOAD_FAILED, sentence)
    if not target.is_file():
        raise StartError(Reason.LOAD_FAILED, f'{path} takes weights from "{location}", which does not exist')


def _find_locations(data: mmap.mmap) -> Iterator[str]:
    """Yield the locations of all external tensors; raises ValueError or IndexError for damaged messages."""
    pending = [("model", 0, len(data))]
    while pending:
        kind, start, end = pending.pop()
        if kind == "external data":
            entry = {field: data[begin:stop] for field, begin, stop in _walk(data, start, end)}
            if entry.get(1) == _LOCATION:
                yield entry.get(2, b"").decode()
            continue
        children = _CHILDREN[kind]
        for field, begin, stop in _walk(data, start, end):
            if field in children:
                pending.append((children[field], begin, stop))


def _walk(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (field number, start, end) of each length-delimited field of a message."""
    while position < end:
        key, position = _read_varint(data, position, end)
        kind = key & 7
        if kind == _BYTES:
            length, position = _read_varint(data, position, end)
            if length > end - position:
                raise ValueError("a field is longer than its message")
            yield key >> 3, position, position + length
            position += length
        elif kind == _VARINT:
            _, position = _read_varint(data, position, end)
        elif kind in (_FIXED32, _FIXED64):
            position += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind}")
    if position != end:
        raise ValueError("a message ends inside a field")


def _read_varint(data: mmap.mmap, position: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ValueError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has no end")
