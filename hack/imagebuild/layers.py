"""From trees of files to layers: what all platforms share becomes one layer, the rest one per platform."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgemodel_operator.oci.compression import Zstd
from edgemodel_operator.oci.descriptor import Descriptor, Platform
from edgemodel_operator.oci.layer import Directory, Entry, File, Layer, Link, write_layer
from edgemodel_operator.oci.splice import Content, read_chunks, size_of

from .cache import Cache, key_of

FORMAT = 1
"""Part of the cache key: raise it when the bytes for the same entries change."""


@dataclass(frozen=True)
class StoredLayer:
    """A layer whose blob lies in the cache."""

    layer: Layer
    blob: Path
    unpacked_bytes: int


def entries_of(root: Path, below: str = "") -> tuple[Entry, ...]:
    """List a folder's files and links as layer entries, their paths put below `below`."""
    found: list[Entry] = []
    for path in sorted(root.rglob("*")):
        name = f"{below}{path.relative_to(root).as_posix()}"
        if path.is_symlink():
            found.append(Link(name, str(path.readlink())))
        elif path.is_file():
            found.append(File(name, path, executable=bool(path.stat().st_mode & 0o111)))
    return tuple(found)


def split_shared(
    trees: Mapping[Platform, Sequence[Entry]],
) -> tuple[tuple[Entry, ...], dict[Platform, tuple[Entry, ...]]]:
    """Separate what is the same on all platforms, so that it is stored and pulled once."""
    prints = {
        platform: {entry.path: fingerprint(entry) for entry in tree} for platform, tree in trees.items()
    }
    first, *others = prints.values()
    shared = {path for path, one in first.items() if all(other.get(path) == one for other in others)}
    common = tuple(entry for entry in next(iter(trees.values())) if entry.path in shared)
    own = {
        platform: tuple(entry for entry in tree if entry.path not in shared)
        for platform, tree in trees.items()
    }
    return common, own


def fingerprint(entry: Entry) -> tuple[str, ...]:
    """Return all of an entry that reaches the layer."""
    match entry:
        case File():
            return entry.path, "file", str(entry.executable), _content_hash(entry.source)
        case Link():
            return entry.path, "link", entry.target
        case Directory():
            return entry.path, "directory", oct(entry.mode)


def store_layer(entries: Sequence[Entry], cache: Cache, level: int) -> StoredLayer:
    """Compress the entries, or find the layer made of the same entries before."""
    key = key_of(FORMAT, Zstd(level).id, sorted(fingerprint(entry) for entry in entries))
    if (known := cache.tree("layers", key)) is None:
        with cache.new_tree("layers", key) as root:
            with (root / "blob").open("wb") as out:
                layer = write_layer(entries, out, compressor=Zstd(level))
            document = {"descriptor": layer.descriptor.to_json(), "diff_id": layer.diff_id}
            (root / "layer.json").write_text(json.dumps(document))
        known = cache.folder("layers", key)
    document = json.loads((known / "layer.json").read_text())
    layer = Layer(Descriptor.from_json(document["descriptor"]), document["diff_id"])
    return StoredLayer(layer, known / "blob", sum(_size(entry) for entry in entries))


def _size(entry: Entry) -> int:
    return size_of(entry.source) if isinstance(entry, File) else 0


@cache
def _content_hash(source: Content) -> str:
    digest = hashlib.sha256()
    for chunk in read_chunks(source):
        digest.update(chunk)
    return digest.hexdigest()
