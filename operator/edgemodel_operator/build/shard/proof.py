"""Proving that taking the weights out of a model has changed nothing else.

A print of a model is the SHA-256 over all that it consists of, with the SHA-256 of each initializer's bytes
in the place where they, or the words that say where they lie, would stand. The model and what was made of it
are read by the same few lines, which know nothing of how it was made: equal prints mean that every
initializer has the same bytes at its place and that the rest of the file is the same, byte for byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.tensors import External, Tensor, read_tensor
from edgemodel_operator.build.shard.wire import Field, WireFile
from edgemodel_operator.oci.splice import Content, Slice, Spliced, read_chunks


class _Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...


def print_model(model: Path, find: Callable[[External], Content]) -> str:
    """Give the print of an ONNX file (hex); `find` gives the bytes that lie in other files.

    Raises Objection when the model is damaged.
    """
    digest = hashlib.sha256()
    with model.open("rb", buffering=0) as opened:
        file = WireFile(opened, model.stat().st_size)
        for field in file.fields(0, file.size):
            if field.number == onnx_fields.MODEL_GRAPH:
                digest.update(b"graph")
                _print_graph(file, model, field, find, digest)
                digest.update(b"end")
            else:
                _feed(digest, _raw(model, [field]))
    return digest.hexdigest()


def _print_graph(
    file: WireFile, model: Path, graph: Field, find: Callable[[External], Content], digest: _Hash
) -> None:
    done = graph.start
    for field in file.fields(graph.start, graph.end):
        if field.number == onnx_fields.GRAPH_INITIALIZER:
            _feed(digest, Slice(model, done, field.begin - done))
            _print_tensor(file, model, field, find, digest)
            done = field.end
    _feed(digest, Slice(model, done, graph.end - done))


def _print_tensor(
    file: WireFile, model: Path, field: Field, find: Callable[[External], Content], digest: _Hash
) -> None:
    tensor = read_tensor(file, field)
    parts = [
        part
        for part in file.fields(field.start, field.end)
        if not (tensor.is_plain and part.number in onnx_fields.CONTENT)
    ]
    digest.update(b"initializer")
    digest.update(_hash(_raw(model, parts)))
    if tensor.is_plain:
        digest.update(_hash(_content(model, tensor, find)))


def _content(model: Path, tensor: Tensor, find: Callable[[External], Content]) -> Content:
    if tensor.external is not None:
        return find(tensor.external)
    return Spliced((Slice(model, tensor.raw.start, tensor.raw.end - tensor.raw.start),) if tensor.raw else ())


def _raw(model: Path, fields: Iterable[Field]) -> Content:
    return Spliced(tuple(Slice(model, field.begin, field.end - field.begin) for field in fields))


def _hash(content: Content) -> bytes:
    digest = hashlib.sha256()
    _feed(digest, content)
    return digest.digest()


def _feed(digest: _Hash, content: Content) -> None:
    for chunk in read_chunks(content):
        digest.update(chunk)
