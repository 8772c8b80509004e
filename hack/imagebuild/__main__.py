"""Build and push the project's images: `python -m imagebuild --push registry.example.com:5000/edgemodel`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp

from edgemodel_operator.oci.auth import parse_docker_config
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session

from .assemble import Builder, BuiltImage, platforms_of
from .bytecode import WrongPython
from .cache import Cache, default_cache
from .debian import DebianUnavailable, default_sources
from .foreign import BaseUnusable, ForeignBase, read_base
from .locked import WheelsUnavailable
from .publish import push
from .recipe import Recipe, load_recipes

PROJECT = Path(__file__).resolve().parents[2]
_FAILURES = (
    BaseUnusable,
    DebianUnavailable,
    WheelsUnavailable,
    WrongPython,
    RegistryError,
    InvalidReference,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = parse_options(arguments)
    try:
        built = build(options)
        lock = asyncio.run(_push_all(options, built)) if options.push else _local_lock(built)
    except _FAILURES as error:
        _tell(f"error: {error}")
        return 1
    text = json.dumps(lock, indent=2, sort_keys=True) + "\n"
    if options.out:
        Path(options.out).write_text(text)
    sys.stdout.write(text)
    return 0


def build(options: argparse.Namespace) -> list[BuiltImage]:
    """Build the chosen images and the bases they stand on; returns the chosen ones."""
    project = Path(options.project)
    recipes = load_recipes(project / "images")
    chosen = choose_recipes(recipes, options.only, options.variants)
    foreign = asyncio.run(_read_bases(options, [recipes[name] for name in sorted(chosen)]))
    sources = Path(options.apt_sources).read_text() if options.apt_sources else default_sources()
    cache = Cache(Path(options.cache)) if options.cache else default_cache()
    builder = Builder(project, cache, sources, project_version(project), options.level, _Progress())
    built: dict[str, BuiltImage] = {}
    with cache.exclusive():
        for name in _with_bases(recipes, chosen):
            base = recipes[name].base
            built[name] = builder.build(recipes[name], built[base] if base else foreign.get(name))
            _report(built[name])
    return [image for name, image in built.items() if name in chosen]


def project_version(project: Path) -> str:
    """Return the version that images are tagged with."""
    return str(tomllib.loads((project / "pyproject.toml").read_text())["project"]["version"])


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="imagebuild", description="Build the images for linux/amd64 and linux/arm64."
    )
    parser.add_argument("--push", metavar="REGISTRY/PREFIX", help="push to REGISTRY/PREFIX/<image>:<version>")
    parser.add_argument(
        "--only", default="", help="comma-separated images, by recipe or repository (or its start)"
    )
    parser.add_argument(
        "--variants",
        default="",
        help="also these variants that are built on demand, comma-separated; `all`: those that need no base",
    )
    parser.add_argument(
        "--base-image",
        action="append",
        default=[],
        metavar="VARIANT=IMAGE",
        help="the base of a variant that leaves it to you: registry/repository@sha256:…",
    )
    parser.add_argument("--out", metavar="FILE", help="also write the lock JSON here")
    parser.add_argument("--level", type=int, default=9, help="zstd level; 19 for releases (default: 9)")
    parser.add_argument("--plain-http", action="store_true", help="speak HTTP (always done for loopback)")
    parser.add_argument(
        "--docker-config", metavar="FILE", help="registry credentials, as in ~/.docker/config.json"
    )
    parser.add_argument("--apt-sources", metavar="FILE", help="apt sources instead of this machine's own")
    parser.add_argument("--project", metavar="FOLDER", default=str(PROJECT), help="the sources to build from")
    parser.add_argument("--cache", metavar="FOLDER", help="instead of $XDG_CACHE_HOME/edgemodel/images")
    return parser.parse_args(arguments)


def choose_recipes(recipes: Mapping[str, Recipe], only: str, variants: str) -> set[str]:
    """Return the names of the images to build; raises SystemExit for a word that names none.

    `only` and `variants` are lists with commas: see the options of these names.
    """
    usual = {name for name, recipe in recipes.items() if not recipe.on_demand}
    chosen = _matching(recipes, only) if only else usual
    if variants == "all":
        return chosen | {name for name, recipe in recipes.items() if recipe.base_image != ""}
    return chosen | (_matching(recipes, variants) if variants else set())


def _matching(recipes: Mapping[str, Recipe], words: str) -> set[str]:
    """Return the recipes that the words name, else those of the usual ones whose repository starts so."""
    found: set[str] = set()
    for word in filter(None, words.split(",")):
        named = {
            name for name, recipe in recipes.items() if word in {name, recipe.repository, recipe.variant}
        }
        begun = {
            name
            for name, recipe in recipes.items()
            if recipe.repository.startswith(word) and not recipe.on_demand
        }
        if not named | begun:
            raise SystemExit(f"No image is called {word!r}; there are: {', '.join(recipes)}.")
        found |= named or begun
    return found


async def _read_bases(options: argparse.Namespace, recipes: Sequence[Recipe]) -> dict[str, ForeignBase]:
    given = dict(pair.partition("=")[::2] for pair in options.base_image)
    bases: dict[str, ForeignBase] = {}
    async with new_session(trust_env=True) as session:
        for recipe in recipes:
            if recipe.base_image is None:
                continue
            named = given.get(recipe.name, recipe.base_image)
            if not named:
                raise BaseUnusable(
                    f"{recipe.name} stands on an image of yours: add "
                    f"--base-image {recipe.name}=registry/repository@sha256:…"
                )
            reference = parse_reference(named)
            if reference.digest is None:
                raise BaseUnusable(f"{named} names no digest: write registry/repository@sha256:…")
            client = _client(options, session, reference)
            bases[recipe.name] = await read_base(client, reference, platforms_of(recipe))
    return bases


def _with_bases(recipes: dict[str, Recipe], chosen: set[str]) -> list[str]:
    needed = set(chosen)
    for name in reversed(recipes):
        base = recipes[name].base
        if name in needed and base:
            needed.add(base)
    return [name for name in recipes if name in needed]


async def _push_all(options: argparse.Namespace, built: Sequence[BuiltImage]) -> dict[str, str]:
    lock: dict[str, str] = {}
    async with new_session(trust_env=True) as session:
        for image in built:
            target = parse_reference(f"{options.push}/{image.recipe.repository}:{image.version}")
            bases = (image.foreign.reference,) if image.foreign else ()
            client = _client(options, session, target, *bases)
            _tell(f"push {target}")
            base = (
                f"{target.repository.rpartition('/')[0]}/{image.recipe.base}" if image.recipe.base else None
            )
            lock[image.recipe.repository] = str(await push(client, image, target, mount_from=base))
    return lock


def _client(
    options: argparse.Namespace, session: aiohttp.ClientSession, *references: Reference
) -> RegistryClient:
    credentials = (
        parse_docker_config(Path(options.docker_config).read_bytes()) if options.docker_config else {}
    )
    plain = {one.registry for one in references if options.plain_http or _is_loopback(one)}
    return RegistryClient(session, credentials=credentials, plain_http=plain)


def _local_lock(built: Sequence[BuiltImage]) -> dict[str, str]:
    return {image.recipe.repository: image.descriptor.digest for image in built}


def _is_loopback(target: Reference) -> bool:
    host = target.registry.rpartition(":")[0] or target.registry
    return host in {"localhost", "[::1]"} or host.startswith("127.")


def _report(image: BuiltImage) -> None:
    for platform, stack in image.layers.items():
        packed = sum(stored.layer.descriptor.size for stored in stack) / 1e6
        unpacked = sum(stored.unpacked_bytes for stored in stack) / 1e6
        _tell(f"{image.recipe.name} {platform}: {packed:.1f} MB compressed, {unpacked:.1f} MB unpacked")
    _tell(f"{image.recipe.name}: {image.descriptor.digest}")


class _Progress:
    """Prints each step with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def __call__(self, line: str) -> None:
        _tell(f"{time.monotonic() - self._start:6.1f} s  {line}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
