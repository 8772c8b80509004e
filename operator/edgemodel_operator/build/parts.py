"""Which files a model has in its image, and which of them share a layer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgemodel_operator.build.inspect.objection import Objection
from edgemodel_operator.build.sources.fetched import SourceFile
from edgemodel_operator.oci.layer import InvalidEntry, check_path
from edgemodel_operator.oci.splice import Content

STEM = "model"
"""The name of the main file, before its suffix; an OpenVINO IR finds its weights by it."""

MANIFEST_NAME = "manifest.json"

_OWN_LAYER_BYTES = 1024 * 1024
"""Smaller files lie in the layer of the graph."""

_MOST_OWN_LAYERS = 16
_LIBRARIES = frozenset({".so", ".dll", ".dylib"})


@dataclass(frozen=True)
class Piece:
    """One file in the model's folder of the image."""

    name: str
    """Its name, relative to the folder."""
    content: Content
    """Its bytes, or which local files hold them."""
    sha256: str
    """Its SHA-256 (hex)."""
    size: int
    """Its size (bytes)."""


@dataclass(frozen=True)
class ModelParts:
    """A model as it will lie in its image."""

    skeleton: Path
    """What is inspected: of ONNX the graph without the weights that were moved, else the model file."""
    layers: tuple[tuple[Piece, ...], ...]
    """The files by layer, bottom to top. What changes least lies at the bottom, because a node unpacks again
    whatever lies above a change. The top layer holds the graph first, and small files; the manifest joins
    them."""
    rewritten: bool
    """Whether the main file has other bytes than that of the source."""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All files: the main one first, then the others of its layer, then the layers below it."""
        return tuple(piece for layer in (self.layers[-1], *self.layers[:-1]) for piece in layer)

    @property
    def main(self) -> Piece:
        """The file that the runtime is given."""
        return self.layers[-1][0]


def as_piece(file: SourceFile, name: str) -> Piece:
    """Give a file of the source as a file of the image, under its name there."""
    return Piece(name, file.path, file.sha256, file.size)


def whole_model(file: SourceFile, name: str, others: Sequence[Piece]) -> ModelParts:
    """Lay out a model whose main file stays as it is. Raises Objection."""
    return ModelParts(file.path, arrange_layers([], as_piece(file, name), others), rewritten=False)


def arrange_layers(
    shards: Sequence[Piece], main: Piece, others: Sequence[Piece]
) -> tuple[tuple[Piece, ...], ...]:
    """Give each shard and each large file a layer, and one on top to the main file and what is small.

    Raises Objection when names are unfit for a folder of the image, or clash.
    """
    _check_names([*shards, main, *others])
    small = [piece for piece in others if piece.size < _OWN_LAYER_BYTES]
    large = [piece for piece in others if piece.size >= _OWN_LAYER_BYTES]
    alone, rest = large[:_MOST_OWN_LAYERS], tuple(large[_MOST_OWN_LAYERS:])
    below = [*((piece,) for piece in [*shards, *alone]), rest]
    return (*filter(None, below), (main, *small))


def _check_names(pieces: Sequence[Piece]) -> None:
    taken = {MANIFEST_NAME}
    for piece in pieces:
        try:
            check_path(piece.name)
        except InvalidEntry as error:
            raise Objection(f"A file beside it has a name that no image takes: {error}") from error
        folded = unicodedata.normalize("NFC", piece.name.casefold())
        if folded in taken:
            raise Objection(f"Two of its files would be called {piece.name!r} in the image: rename one.")
        if _LIBRARIES & set(PurePosixPath(folded).suffixes):
            raise Objection(
                f"{piece.name!r} is a library: models with operations of their own are not served."
            )
        taken.add(folded)
