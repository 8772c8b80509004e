"""How an image and an update are written down, for people and for programs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgemodel_operator.api.names import GROUP
from edgemodel_operator.cli.image_facts import Attached, ImageFacts, PlatformImage
from edgemodel_operator.cli.update import Update
from edgemodel_operator.core.annotations import BUILD_KEY

_SHOWN = {
    "model": "org.opencontainers.image.title",
    "version": "org.opencontainers.image.version",
    "format": f"{GROUP}/model-format",
    "source": f"{GROUP}/model-sha256",
    "build key": BUILD_KEY,
    "runtime": "org.opencontainers.image.base.digest",
}
"""What the annotations are called here."""
_DIGEST_LENGTH = len("sha256:") + 12
_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class ImageReport:
    """One image."""

    facts: ImageFacts
    contents: Mapping[str, str]
    """What each layer holds, by digest."""
    attached: Sequence[Attached]

    def lines(self) -> list[str]:
        """Write it for people."""
        layers = self.facts.layers
        stored = size_text(sum(layer.size for layer in layers.values()))
        said = {word: self.facts.annotations.get(name) for word, name in _SHOWN.items()}
        facts = [(word, value) for word, value in said.items() if value]
        head = [*facts, ("stored", f"{stored} in {len(layers)} layers of all platforms")]
        return [
            str(self.facts.image),
            *(f"  {word:<9}  {value}" for word, value in head),
            *(line for platform in self.facts.platforms for line in self._platform(platform)),
            *self._attachments(),
        ]

    def _platform(self, image: PlatformImage) -> list[str]:
        head = f"{image.platform}: {size_text(image.size)} in {len(image.layers)} layers, {image.digest}"
        rows = [
            (
                layer.digest[:_DIGEST_LENGTH],
                size_text(layer.size),
                layer.media_type.rpartition(".")[2],
                self.contents.get(layer.digest, ""),
            )
            for layer in image.layers
        ]
        return [
            "",
            head,
            *(f"  {digest}  {size:>9}  {kind:<8}  {holds}" for digest, size, kind, holds in rows),
        ]

    def _attachments(self) -> list[str]:
        if not self.attached:
            return ["", "nothing is attached"]
        names = {image.digest: image.platform for image in self.facts.platforms}
        if str(self.facts.image.digest) not in names:
            names[str(self.facts.image.digest)] = "index"
        rows = [
            f"  {names[one.subject]:<12}  {one.what:<17}  {size_text(one.size):>9}  {one.says}"
            for one in self.attached
        ]
        return ["", "attached", *(row.rstrip() for row in rows)]

    def document(self) -> dict[str, Any]:
        """Write it for programs; sizes in bytes."""
        return {
            "image": str(self.facts.image),
            "annotations": dict(self.facts.annotations),
            "platforms": [
                {
                    "platform": image.platform,
                    "digest": image.digest,
                    "size": image.size,
                    "layers": [
                        {**layer.to_json(), "holds": self.contents.get(layer.digest, "")}
                        for layer in image.layers
                    ],
                }
                for image in self.facts.platforms
            ],
            "attached": [asdict(one) for one in self.attached],
        }


@dataclass(frozen=True)
class UpdateReport:
    """What an update moves."""

    old: ImageFacts
    new: ImageFacts
    update: Update

    def lines(self) -> list[str]:
        """Write it for people."""
        moves = [
            f"{move.platform}: moves {size_text(move.moved_bytes)} in {move.moved_layers} of {move.layers} "
            f"layers, keeps {size_text(move.kept_bytes)}"
            for move in self.update.moves
        ]
        gone = [f"{platform}: is not in the newer image" for platform in self.update.gone]
        return [f"from {self.old.image}", f"to   {self.new.image}", *moves, *gone]

    def document(self) -> dict[str, Any]:
        """Write it for programs; sizes in bytes."""
        return {
            "from": str(self.old.image),
            "to": str(self.new.image),
            "platforms": [
                {
                    "platform": move.platform,
                    "movedLayers": move.moved_layers,
                    "layers": move.layers,
                    "movedBytes": move.moved_bytes,
                    "keptBytes": move.kept_bytes,
                }
                for move in self.update.moves
            ],
            "gone": list(self.update.gone),
        }


def size_text(size: int) -> str:
    """Write a size in bytes as people do, in steps of 1000."""
    for factor, unit in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
