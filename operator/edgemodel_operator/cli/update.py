"""What moves when a node goes from one image to another. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edgemodel_operator.cli.image_facts import ImageFacts, PlatformImage


@dataclass(frozen=True)
class Move:
    """The update of the nodes of one platform."""

    platform: str
    moved_layers: int
    layers: int
    moved_bytes: int
    """New layers, manifest and configuration, as they are compressed in the registry."""
    kept_bytes: int
    """Layers that the node has already."""


@dataclass(frozen=True)
class Update:
    """An update, platform by platform."""

    moves: tuple[Move, ...]
    gone: tuple[str, ...]
    """Platforms that the new image no longer has."""


def compare(old: ImageFacts, new: ImageFacts) -> Update:
    """Tell what nodes that have pulled the old image pull for the new one."""
    before = {image.platform: image for image in old.platforms}
    moves = tuple(_move(before.get(image.platform), image) for image in new.platforms)
    after = {image.platform for image in new.platforms}
    return Update(moves, tuple(sorted(before.keys() - after)))


def _move(old: PlatformImage | None, new: PlatformImage) -> Move:
    # A layer that an image has twice is pulled once.
    wanted = {layer.digest: layer.size for layer in new.layers}
    present = {layer.digest for layer in old.layers} if old else set()
    missing = wanted.keys() - present
    same = old is not None and old.digest == new.digest
    moved = sum(wanted[digest] for digest in missing) + (0 if same else new.overhead)
    kept = sum(size for digest, size in wanted.items() if digest in present)
    return Move(new.platform, len(missing), len(wanted), moved, kept)
