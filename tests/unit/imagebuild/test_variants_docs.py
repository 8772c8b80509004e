"""What the page on variants shows is what there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from imagebuild.__main__ import PROJECT
from imagebuild.recipe import Recipe, load_recipes

PAGE = (PROJECT / "docs" / "variants.md").read_text(encoding="utf-8")
RECIPES = {recipe.variant: recipe for recipe in load_recipes(PROJECT / "images").values() if recipe.variant}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_every_variant_is_in_the_table_with_its_platforms() -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.splitlines()
        if line.startswith("| `")
    ]
    listed = {cells[0].strip("`"): (cells[3], cells[5].startswith("on demand")) for cells in rows}
    assert listed == {
        name: (", ".join(one.removeprefix("linux/") for one in recipe.platforms), recipe.on_demand)
        for name, recipe in RECIPES.items()
    }


def test_the_recipe_that_is_shown_is_one() -> None:
    shown = Recipe.model_validate({"name": "shown", **tomllib.loads(blocks("toml")[0])})
    there = RECIPES[shown.variant]
    assert (shown.repository, shown.base, shown.on_demand) == (there.repository, there.base, there.on_demand)
    assert shown.python is not None
    assert there.python is not None
    assert (shown.python.without, shown.python.glibc) == (there.python.without, there.python.glibc)


def test_the_project_that_is_shown_is_that_of_the_variant() -> None:
    there = PROJECT / "images" / "onnxruntime-cuda" / "pyproject.toml"
    assert tomllib.loads(blocks("toml")[1]) == tomllib.loads(there.read_text())


def test_the_values_that_are_shown_fit_together() -> None:
    (values,) = map(yaml.safe_load, blocks("yaml"))
    for one in values["acceleratorClasses"]:
        spec = AcceleratorClassSpec.model_validate(one["spec"])
        assert {runtime.variant for runtime in spec.runtimes} <= values["runtimes"].keys() & RECIPES.keys()


@pytest.mark.parametrize("option", re.findall(r"--[a-z-]+", " ".join(blocks("sh"))))
def test_the_options_that_are_shown_exist(option: str) -> None:
    assert f'"{option}"' in (Path(PROJECT) / "hack" / "imagebuild" / "__main__.py").read_text()
