"""What an image is made of: `images/<name>/image.toml` and `images/prune.toml`, checked and typed."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

VARIANT_LABEL = "dev.edgemodel.runtime"
PlatformName = Literal["linux/amd64", "linux/arm64"]


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


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
    """A distribution of ours, with these of its extras, and the locked dependencies of both.

    `lock` is the folder of the `uv.lock`: that of the recipe where it has one, else the project's. `without`
    names locked distributions that stay out; `drop`, from `prune.toml`, is over paths below site-packages.
    `glibc` is the C library of the base, which decides the wheels that may be taken. `stand-ins` are patterns
    of the libraries that wheels are linked against and that we do without (`stand_ins.py`). `whole` keeps
    what `prune.toml` lists.
    """

    distribution: str
    source: Path
    lock: Path = Path()
    extras: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    glibc: Annotated[str, Field(pattern=r"^2\.[0-9]+$")] = "2.36"
    stand_ins: Annotated[tuple[str, ...], Field(alias="stand-ins")] = ()
    whole: bool = False

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
    """One image; `base` names the recipe it stands on.

    Instead of it, `base-image` is an image that is not ours, as `registry/repository@sha256:…`; empty where
    whoever builds the variant names it. What is `on-demand` is built only when it is asked for by name.
    """

    name: str
    title: str
    repository: str
    base: str | None = None
    base_image: Annotated[str | None, Field(alias="base-image", pattern=r"^$|@sha256:[0-9a-f]{64}$")] = None
    on_demand: Annotated[bool, Field(alias="on-demand")] = False
    platforms: tuple[PlatformName, ...] = ("linux/amd64", "linux/arm64")
    debian: DebianPart | None = None
    python: PythonPart | None = None
    links: Mapping[str, str] = Field(default_factory=dict)
    files: Mapping[str, str] = Field(default_factory=dict)
    directories: Mapping[str, str] = Field(default_factory=dict)
    image: ImagePart

    @property
    def variant(self) -> str:
        """What AcceleratorClasses call it; empty for an image that runs no models."""
        return self.image.labels.get(VARIANT_LABEL, "")

    @model_validator(mode="after")
    def _stand_on_one_base(self) -> Recipe:
        if self.base is not None and self.base_image is not None:
            raise ValueError(f"{self.name} names both `base` and `base-image`: leave one out")
        return self


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
            own_lock = (path.parent / "uv.lock").exists()
            document["python"] |= {
                "drop": () if document["python"].get("whole") else drop,
                "lock": path.parent.relative_to(folder.parent) if own_lock else Path(),
            }
        recipes[name] = Recipe.model_validate({"name": name, "repository": name, **document})
    return dict(sorted(recipes.items(), key=lambda item: (_depth(item[1], recipes), item[0])))


def _depth(recipe: Recipe, recipes: Mapping[str, Recipe]) -> int:
    return 0 if recipe.base is None else 1 + _depth(recipes[recipe.base], recipes)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)
