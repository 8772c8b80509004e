"""The files beside an ONNX model: which of them its tensors mean, and what they hold there."""

from __future__ import annotations

from collections.abc import Sequence

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.parts import Piece, as_piece
from edgemodel_operator.build.shard.scan import OnnxScan
from edgemodel_operator.build.shard.tensors import External
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.oci.splice import Slice


class Beside:
    """The files beside a model, by the names that the model gives them.

    The only file beside the model may have any name: sources often know no other than that of the download.
    Raises Objection where a file is missing.
    """

    def __init__(self, scan: OnnxScan, files: Sequence[SourceFile]) -> None:
        moving = {weight.external.location for weight in scan.weights if weight.external}
        self._fixed = {external.location for external in scan.fixed}
        self._by_location = _bind(sorted(moving | self._fixed), files)
        for external in scan.fixed:
            self.find(external)

    def find(self, external: External) -> Slice:
        """Give the bytes of a tensor; raises Objection when the file has not that many."""
        file = self._by_location[external.location]
        length = file.size - external.offset if external.length is None else external.length
        if length < 0 or external.offset + length > file.size:
            raise Objection(
                f"It takes weights from beyond the end of {external.location[:100]!r}, which has {file.size} "
                "bytes: the two files do not belong together, or one is cut off."
            )
        return Slice(file.path, external.offset, length)

    def pieces(self, *, moved: bool) -> list[Piece]:
        """Give the files as they lie in the image; without those whose bytes were all `moved`.

        They are called what the model calls them, whatever their source did.
        """
        named = {
            _plain(location): file
            for location, file in self._by_location.items()
            if location in self._fixed or not moved
        }
        return [as_piece(file, name) for name, file in named.items()]


def _bind(locations: Sequence[str], files: Sequence[SourceFile]) -> dict[str, SourceFile]:
    by_name = {file.name: file for file in files}
    bound: dict[str, SourceFile] = {}
    for location in locations:
        found = by_name.get(_plain(location))
        if found is None and len(locations) == len(files) == 1:
            found = files[0]
        if found is None:
            raise Objection(
                f"Its weights lie in {location[:100]!r}, which is not among its files: give that file as "
                "`weights` of the source, or an archive that has it beside the model."
            )
        bound[location] = found
    return bound


def _plain(location: str) -> str:
    return location.removeprefix("./")
