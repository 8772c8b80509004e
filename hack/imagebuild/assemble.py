"""From recipes to complete images in memory and in the cache; nothing is pushed here."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgemodel_operator.build.origin.packages import PACKAGES_LABEL, Package, packages_label
from edgemodel_operator.oci.descriptor import OCI_INDEX, Descriptor, Platform
from edgemodel_operator.oci.image import Image, RuntimeSettings, make_image, make_index
from edgemodel_operator.oci.layer import Directory, Entry, File, Link

from .bytecode import with_bytecode
from .cache import Cache
from .debian import unpack_packages
from .foreign import ForeignBase
from .layers import StoredLayer, entries_of, split_shared, store_layer
from .locked import Lock, read_lock
from .operators_label import operators_label
from .packaged import Packaged
from .recipe import DebianPart, PythonPart, Recipe
from .wheels import copy_source, install_wheels

SITE_PACKAGES = "usr/local/lib/python3.11/dist-packages/"


@dataclass(frozen=True)
class BuiltImage:
    """An image for all its platforms: the JSON documents, and the layers' blobs in the cache.

    `foreign` is the base that is not ours, whose layers lie below ours and still in their registry.
    """

    recipe: Recipe
    version: str
    layers: Mapping[Platform, tuple[StoredLayer, ...]] = field(hash=False)
    packages: Mapping[Platform, tuple[Package, ...]] = field(hash=False)
    images: Mapping[Platform, Image] = field(hash=False)
    index: bytes
    settings: RuntimeSettings
    foreign: ForeignBase | None = None

    @property
    def descriptor(self) -> Descriptor:
        """Describe the index."""
        return Descriptor.of(OCI_INDEX, self.index)


@dataclass(frozen=True)
class _Step:
    """Layers for each platform, and what is in them."""

    layers: Mapping[Platform, tuple[StoredLayer, ...]]
    packages: Mapping[Platform, tuple[Package, ...]]


@dataclass(frozen=True)
class Builder:
    """Builds recipes one after the other; `tell` receives a line per step."""

    project: Path
    cache: Cache
    apt_sources: str
    version: str
    level: int
    tell: Callable[[str], None]

    def build(self, recipe: Recipe, base: BuiltImage | ForeignBase | None) -> BuiltImage:
        """Build one image on top of its base (None: from nothing)."""
        ours = base if isinstance(base, BuiltImage) else None
        foreign = base if isinstance(base, ForeignBase) else None
        layers, packages = _below(recipe, ours, foreign)
        for step in self._steps(recipe):
            for platform, added in step.layers.items():
                layers[platform] += added
                packages[platform] += step.packages[platform]
        settings = _settings(recipe, self.version, ours)
        annotations = _annotations(recipe, self.version, base)
        images: dict[Platform, Image] = {}
        for platform, stack in layers.items():
            said = replace(settings, labels={**settings.labels, **self._facts(recipe, packages[platform])})
            written = [stored.layer for stored in stack]
            images[platform] = (
                foreign.graft(platform, written, said, annotations)
                if foreign
                else make_image(platform, written, said)
            )
        index = make_index([image.descriptor for image in images.values()], annotations)
        return BuiltImage(recipe, self.version, layers, packages, images, index, settings, foreign)

    def _facts(self, recipe: Recipe, packages: Sequence[Package]) -> dict[str, str]:
        """Return the labels that say what is in an image, and what its runtime can do."""
        listed = {PACKAGES_LABEL: packages_label(packages)}
        return {**listed, **operators_label(packages, self.cache)} if recipe.variant else listed

    def _steps(self, recipe: Recipe) -> Iterator[_Step]:
        """Yield the layers by how often they change, the most stable first."""
        platforms = platforms_of(recipe)
        if recipe.debian is not None:
            debian = {platform: self._debian(recipe, recipe.debian, platform) for platform in platforms}
            trees = {
                platform: (*entries_of(one.root), *_made_entries(recipe)) for platform, one in debian.items()
            }
            yield self._step(f"{recipe.name}: Debian", trees, debian)
        if recipe.python is not None:
            lock = read_lock(self.project, recipe.python)
            wheels = {platform: self._wheels(recipe, recipe.python, platform, lock) for platform in platforms}
            trees = {platform: entries_of(one.root, SITE_PACKAGES) for platform, one in wheels.items()}
            yield self._step(f"{recipe.name}: wheels", trees, wheels)
            with tempfile.TemporaryDirectory() as temporary:
                own = copy_source(recipe.python, self.project, Path(temporary))
                entries = entries_of(Path(temporary), SITE_PACKAGES)
                program = Packaged(Path(temporary), (own,))
                yield self._step(
                    f"{recipe.name}: program",
                    dict.fromkeys(platforms, entries),
                    dict.fromkeys(platforms, program),
                )

    def _debian(self, recipe: Recipe, part: DebianPart, platform: Platform) -> Packaged:
        self.tell(f"{recipe.name}: Debian packages for {platform}")
        return unpack_packages(part, platform.architecture, self.apt_sources, self.cache)

    def _wheels(self, recipe: Recipe, part: PythonPart, platform: Platform, lock: Lock) -> Packaged:
        self.tell(f"{recipe.name}: wheels for {platform}")
        return install_wheels(part, platform, lock, self.cache)

    def _step(
        self, what: str, trees: Mapping[Platform, Sequence[Entry]], packaged: Mapping[Platform, Packaged]
    ) -> _Step:
        packages = {platform: one.packages for platform, one in packaged.items()}
        return _Step(self._layers(what, trees), packages)

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


def platforms_of(recipe: Recipe) -> tuple[Platform, ...]:
    """Return the platforms of the image."""
    return tuple(Platform.parse(name) for name in recipe.platforms)


def _below(
    recipe: Recipe, ours: BuiltImage | None, foreign: ForeignBase | None
) -> tuple[dict[Platform, tuple[StoredLayer, ...]], dict[Platform, tuple[Package, ...]]]:
    """Return the layers of ours and the packages that an image begins with."""
    platforms = platforms_of(recipe)
    layers = {platform: ours.layers[platform] if ours else () for platform in platforms}
    packages = {platform: ours.packages[platform] if ours else () for platform in platforms}
    if foreign:
        packages = {platform: foreign.packages(platform) for platform in platforms}
    return layers, packages


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


def _annotations(recipe: Recipe, version: str, base: BuiltImage | ForeignBase | None) -> dict[str, str]:
    standard = {"title": recipe.title, "version": version, "licenses": "Apache-2.0"}
    if base is not None:
        digest = base.descriptor.digest if isinstance(base, BuiltImage) else base.reference.digest
        standard["base.digest"] = digest or ""
    return {f"org.opencontainers.image.{name}": value for name, value in standard.items()}
