"""What an image is made of: `images/<name>/image.toml` and `images/prune.toml`, checked and typed."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DebianPart(_Table):
    """Debian packages to unpack; `keep` and `drop` are shell patterns over paths, `*` also spans slashes."""

    packages: tuple[str, ...]
    without: tuple[str, ...] = ()
    keep: tuple[str, ...] = ("*",)
    drop: tuple[str, ...] = ()

    def keeps(self, path: str) -> bool:
        """Tell whether a path of a package goes into the image."""
        return _matches(path, self.keep) and not _matches(path, self.drop)


class PythonPart(_Table):
    """A workspace distribution, with these of its extras, and their locked dependencies.

    `without` names locked distributions that stay out; `drop`, from `prune.toml`, is over paths below
    site-packages.
    """

    distribution: str
    source: Path
    extras: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()

    def keeps(self, path: str) -> bool:
        """Tell whether an installed file goes into the image."""
        return not _matches(path, self.drop)


class ImagePart(_Table):
    """How the image runs; unset fields come from the base."""

    entrypoint: tuple[str, ...]
    user: str | None = None
    workdir: str | None = None
    env: Mapping[str, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)


class Recipe(_Table):
    """One image; `base` names the recipe it stands on."""

    name: str
    title: str
    repository: str
    base: str | None = None
    debian: DebianPart | None = None
    python: PythonPart | None = None
    links: Mapping[str, str] = Field(default_factory=dict)
    files: Mapping[str, str] = Field(default_factory=dict)
    directories: Mapping[str, str] = Field(default_factory=dict)
    image: ImagePart


def load_recipes(folder: Path) -> dict[str, Recipe]:
    """Read all recipes below the folder, bases before the images that stand on them.

    What they leave out of each wheel is in `prune.toml`, once for all of them.

    Raises pydantic's ValidationError for a malformed recipe, KeyError for an unknown base.
    """
    pruned = tomllib.loads((folder / "prune.toml").read_text())
    drop = [pattern for name in sorted(pruned) for pattern in pruned[name]["drop"]]
    recipes: dict[str, Recipe] = {}
    for path in sorted(folder.glob("*/image.toml")):
        name = path.parent.name
        document = tomllib.loads(path.read_text())
        if "python" in document:
            document["python"]["drop"] = drop
        recipes[name] = Recipe.model_validate({"name": name, "repository": name, **document})
    return dict(sorted(recipes.items(), key=lambda item: (_depth(item[1], recipes), item[0])))


def _depth(recipe: Recipe, recipes: Mapping[str, Recipe]) -> int:
    return 0 if recipe.base is None else 1 + _depth(recipes[recipe.base], recipes)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
