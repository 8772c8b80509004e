"""Taking an ONNX model apart: the graph, its shards, and what else belongs to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from edgemodel_operator.api.image import Sharding
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.parts import STEM, ModelParts, Piece, arrange_layers, whole_model
from edgemodel_operator.build.shard.beside import Beside
from edgemodel_operator.build.shard.plan import Part, Place, plan_shards
from edgemodel_operator.build.shard.proof import print_model
from edgemodel_operator.build.shard.scan import OnnxScan, Weight, scan_onnx
from edgemodel_operator.build.shard.skeleton import shard_name, splice_shards, splice_skeleton
from edgemodel_operator.build.shard.tensors import External
from edgemodel_operator.build.shard.wire import WireFile
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.oci.splice import Content, Slice, Spliced, hash_content, write_content

_MAIN = f"{STEM}.onnx"


def split_onnx(files: Sequence[SourceFile], sharding: Sharding, work: Path) -> ModelParts:
    """Lay out an ONNX model; writes its graph to `work` where weights are moved. Blocking.

    Raises Objection when the model is damaged, or its files do not belong together.
    """
    main, *others = files
    with main.path.open("rb", buffering=0) as opened:
        file = WireFile(opened, main.size)
        scan = scan_onnx(file)
        beside = Beside(scan, others)
        contents = [_content(weight, main.path, beside) for weight in scan.weights]
        _refuse_overlaps(contents)
        distinct = list(dict.fromkeys(contents))
        places = _plan(scan, contents, distinct) if sharding is Sharding.AUTO else ()
        if not places:
            return whole_model(main, _MAIN, beside.pieces(moved=False))
        homes = _homes(contents, distinct, places)
        graph = splice_skeleton(file, scan, main.path, homes)
    shards = splice_shards(places, distinct)
    skeleton = work / "graph.onnx"
    top = Piece(_MAIN, skeleton, *write_content(graph, skeleton))
    with ThreadPoolExecutor() as pool:  # hashing, which lets other threads run
        before = pool.submit(print_model, main.path, beside.find)
        after = pool.submit(print_model, skeleton, _finder(shards, beside.find))
        hashes = list(pool.map(hash_content, shards))
        _require_same(before.result(), after.result())
    pieces = [Piece(shard_name(shard), part, *hashes[shard]) for shard, part in enumerate(shards)]
    return ModelParts(skeleton, arrange_layers(pieces, top, beside.pieces(moved=True)), rewritten=True)


def _content(weight: Weight, model: Path, beside: Beside) -> Slice:
    if weight.external is not None:
        return beside.find(weight.external)
    if weight.raw is None:
        raise Objection("It has a tensor without content.")
    return Slice(model, weight.raw.start, weight.raw.end - weight.raw.start)


def _refuse_overlaps(contents: Sequence[Slice]) -> None:
    """Two tensors may share all of their bytes, but not some: a small file could grow without bound."""
    ordered = sorted(set(contents), key=lambda content: (str(content.path), content.offset, content.length))
    for one, next_one in pairwise(ordered):
        if one.path == next_one.path and one.offset + one.length > next_one.offset:
            raise Objection("It has tensors that overlap in the file of its weights.")


def _plan(scan: OnnxScan, contents: Sequence[Slice], distinct: Sequence[Slice]) -> tuple[Place, ...]:
    uses: dict[Slice, int] = {}
    for weight, content in zip(scan.weights, contents, strict=True):
        uses[content] = min(weight.first_use, uses.get(content, weight.first_use))
    return plan_shards([Part(content.length, uses[content]) for content in distinct])


def _homes(
    contents: Sequence[Slice], distinct: Sequence[Slice], places: Sequence[Place]
) -> tuple[External, ...]:
    where = {distinct[place.weight]: place for place in places}
    return tuple(
        External(shard_name(where[content].shard), where[content].offset, content.length)
        for content in contents
    )


def _finder(
    shards: Sequence[Spliced], find_other: Callable[[External], Content]
) -> Callable[[External], Content]:
    by_name = {shard_name(shard): content for shard, content in enumerate(shards)}

    def find(external: External) -> Content:
        content = by_name.get(external.location)
        if content is None:
            return find_other(external)
        return content.stretch(external.offset, external.length or 0)

    return find


def _require_same(before: str, after: str) -> None:
    if before != after:
        raise fail(
            Reason.INTERNAL_ERROR,
            "Taking the weights out of the model changed it, which must never happen: set `image.sharding: "
            "Disabled`, and report this.",
        )
