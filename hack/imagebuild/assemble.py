"""From recipes to complete images in memory and in the cache; nothing is pushed here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor, Platform
from edgemodel_operator.oci.image import Image, RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.layer import Directory, Entry, File, Link

from .bytecode import with_bytecode
from .cache import Cache
from .debian import unpack_packages
from .layers import StoredLayer, entries_of, split_shared, store_layer
from .recipe import DebianPart, PythonPart, Recipe
from .wheels import copy_source, install_wheels, locked_requirements

PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))
SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages/"


@dataclass(frozen=True)
class BuiltImage:
    """An image for all platforms: the JSON documents, and the layers' blobs in the cache."""

    recipe: Recipe
    version: str
    layers: Mapping[Platform, tuple[StoredLayer, ...]] = field(hash=False)
    images: Mapping[Platform, Image] = field(hash=False)
    index: bytes
    settings: RuntimeSettings

    @property
    def descriptor(self) -> Descriptor:
        """Describe the index."""
        return Descriptor.of(OCI_INDEX, self.index)


@dataclass(frozen=True)
class Builder:
    """Builds recipes one after the other; `tell` receives a line per step."""

    project: Path
    cache: Cache
    apt_sources: str
    version: str
    level: int
    tell: Callable[[str], None]

    def build(self, recipe: Recipe, base: BuiltImage | None) -> BuiltImage:
        """Build one image on top of its base (None: from nothing)."""
        layers: dict[Platform, tuple[StoredLayer, ...]] = {
            platform: base.layers[platform] if base else () for platform in PLATFORMS
        }
        for step in self._steps(recipe):
            for platform, added in step.items():
                layers[platform] += added
        settings = _settings(recipe, self.version, base)
        annotations = _annotations(recipe, self.version, base)
        images = {
            platform: make_image(platform, [stored.layer for stored in stack], settings)
            for platform, stack in layers.items()
        }
        index = make_index([image.descriptor for image in images.values()], annotations)
        return BuiltImage(recipe, self.version, layers, images, index, settings)

    def _steps(self, recipe: Recipe) -> Iterator[dict[Platform, tuple[StoredLayer, ...]]]:
        """Yield the layers by how often they change, the most stable first."""
        if recipe.debian is not None:
            trees = {platform: self._debian(recipe, recipe.debian, platform) for platform in PLATFORMS}
            yield self._layers(f"{recipe.name}: Debian", trees)
        if recipe.python is not None:
            requirements = locked_requirements(recipe.python, self.project)
            trees = {platform: self._wheels(recipe.python, platform, requirements) for platform in PLATFORMS}
            yield self._layers(f"{recipe.name}: wheels", trees)
            with tempfile.TemporaryDirectory() as temporary:
                copy_source(recipe.python, self.project, Path(temporary))
                own = entries_of(Path(temporary), SITE_PACKAGES)
                yield self._layers(f"{recipe.name}: program", dict.fromkeys(PLATFORMS, own))

    def _debian(self, recipe: Recipe, part: DebianPart, platform: Platform) -> tuple[Entry, ...]:
        self.tell(f"{recipe.name}: Debian packages for {platform}")
        root = unpack_packages(part, platform.architecture, self.apt_sources, self.cache)
        return (*entries_of(root), *_made_entries(recipe))

    def _wheels(self, part: PythonPart, platform: Platform, requirements: str) -> tuple[Entry, ...]:
        self.tell(f"{part.distribution}: wheels for {platform}")
        root = install_wheels(part, platform, requirements, self.project, self.cache)
        return entries_of(root, SITE_PACKAGES)

    def _layers(
        self, what: str, trees: Mapping[Platform, Sequence[Entry]]
    ) -> dict[Platform, tuple[StoredLayer, ...]]:
        self.tell(f"{what}: compile and compress")
        common, own = split_shared(trees)
        parts = {platform: (own[platform], common) for platform in trees}
        return {
            platform: tuple(
                store_layer(with_bytecode(part, self.cache), self.cache, self.level) for part in stack if part
            )
            for platform, stack in parts.items()
        }


def _made_entries(recipe: Recipe) -> Iterator[Entry]:
    yield from (Link(path, target) for path, target in recipe.links.items())
    yield from (File(path, content.encode()) for path, content in recipe.files.items())
    yield from (Directory(path, int(mode, 8)) for path, mode in recipe.directories.items())


def _settings(recipe: Recipe, version: str, base: BuiltImage | None) -> RuntimeSettings:
    inherited = base.settings if base else RuntimeSettings()
    env = {**dict(pair.split("=", 1) for pair in inherited.env), **recipe.image.env}
    return RuntimeSettings(
        entrypoint=recipe.image.entrypoint,
        env=[f"{name}={value}" for name, value in sorted(env.items())],
        user=recipe.image.user or inherited.user,
        working_dir=recipe.image.workdir or inherited.working_dir,
        labels={**_annotations(recipe, version, None), **recipe.image.labels},
    )


def _annotations(recipe: Recipe, version: str, base: BuiltImage | None) -> dict[str, str]:
    standard = {"title": recipe.title, "version": version, "licenses": "Apache-2.0"}
    if base is not None:
        standard["base.digest"] = base.descriptor.digest
    return {f"org.opencontainers.image.{name}": value for name, value in standard.items()}
