"""What comes out of a source: files on disk, named and hashed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SourceFile:
    """A file of the model on the local disk."""

    path: Path
    """Where it lies."""
    name: str
    """How it is called beside the other files of the model, relative to the folder of the main one:
    `model.onnx`, `weights.data`, `variables/variables.index`."""
    sha256: str
    """Its SHA-256 (hex)."""
    size: int
    """Its size (bytes)."""


@dataclass(frozen=True)
class FetchedSource:
    """A source that was fetched whole."""

    fetched: tuple[SourceFile, ...]
    """What was fetched, in the order of `Source.digests`: the model or archive, then the weights. These
    digests are to be pinned. An archive itself is gone when it was opened."""
    files: tuple[SourceFile, ...]
    """The files of the model, the main one first; all lie in one folder under their names, so that files
    which name each other find each other."""
