"""The graph of an ONNX file with its weights in shards beside it; all else stays byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from edgemodel_operator.build.shard import onnx_fields
from edgemodel_operator.build.shard.plan import Place
from edgemodel_operator.build.shard.scan import OnnxScan, Weight
from edgemodel_operator.build.shard.tensors import External
from edgemodel_operator.build.shard.wire import BYTES, VARINT, WireFile, tag, text_field, varint
from edgemodel_operator.oci.splice import Slice, Spliced


def shard_name(shard: int) -> str:
    """Give the name of a shard, beside the model."""
    return f"s{shard}.bin"


def splice_skeleton(file: WireFile, scan: OnnxScan, model: Path, homes: Sequence[External]) -> Spliced:
    """Give the pieces of the model file without its weights, which lie in `homes` from now on, in order."""
    body = list(_graph_pieces(file, scan, model, homes))
    graph = scan.graph
    size = sum(len(piece) for piece in body)
    head = tag(onnx_fields.MODEL_GRAPH, BYTES) + varint(size)
    pieces = [Slice(model, 0, graph.begin), head, *body, Slice(model, graph.end, file.size - graph.end)]
    return Spliced(tuple(piece for piece in pieces if len(piece)))


def splice_shards(places: Sequence[Place], contents: Sequence[Slice]) -> tuple[Spliced, ...]:
    """Give the pieces of each shard: weights with zeros between them; `contents` by the index of a weight."""
    shards: list[list[Slice | bytes]] = []
    end = 0
    for place in places:
        if place.shard == len(shards):
            shards.append([])
            end = 0
        content = contents[place.weight]
        shards[-1] += [bytes(place.offset - end)] if place.offset > end else []
        shards[-1].append(content)
        end = place.offset + content.length
    return tuple(Spliced(tuple(pieces)) for pieces in shards)


def _graph_pieces(
    file: WireFile, scan: OnnxScan, model: Path, homes: Sequence[External]
) -> Iterator[Slice | bytes]:
    done = scan.graph.start
    for weight, home in zip(scan.weights, homes, strict=True):
        yield Slice(model, done, weight.field.begin - done)
        yield from _moved(file, model, weight, home)
        done = weight.field.end
    yield Slice(model, done, scan.graph.end - done)


def _moved(file: WireFile, model: Path, weight: Weight, home: External) -> list[Slice | bytes]:
    """Write the tensor anew: what it says of itself as it is, then where its bytes are now."""
    kept = [
        Slice(model, field.begin, field.end - field.begin)
        for field in file.fields(weight.field.start, weight.field.end)
        if field.number not in onnx_fields.CONTENT
    ]
    entries = {"location": home.location, "offset": str(home.offset), "length": str(home.length)}
    external = b"".join(_entry(key, value) for key, value in entries.items())
    location = tag(onnx_fields.TENSOR_DATA_LOCATION, VARINT) + varint(onnx_fields.LOCATION_EXTERNAL)
    length = sum(len(piece) for piece in kept) + len(external) + len(location)
    return [tag(onnx_fields.GRAPH_INITIALIZER, BYTES) + varint(length), *_joined(kept), external + location]


def _entry(key: str, value: str) -> bytes:
    entry = text_field(onnx_fields.ENTRY_KEY, key.encode()) + text_field(
        onnx_fields.ENTRY_VALUE, value.encode()
    )
    return text_field(onnx_fields.TENSOR_EXTERNAL_DATA, entry)


def _joined(slices: Sequence[Slice]) -> list[Slice]:
    """Make one stretch of neighbours."""
    joined: list[Slice] = []
    for piece in slices:
        if joined and joined[-1].offset + joined[-1].length == piece.offset:
            joined[-1] = Slice(piece.path, joined[-1].offset, joined[-1].length + piece.length)
        else:
            joined.append(piece)
    return joined
