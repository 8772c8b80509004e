"""Recipes: what may stand in them, and which are built when."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from imagebuild.__main__ import PROJECT, choose_recipes
from imagebuild.recipe import Recipe, load_recipes

RECIPES = load_recipes(PROJECT / "images")
USUAL = {"base", "litert-cpu", "onnxruntime-cpu", "openvino", "operator"}


def make_recipes(folder: Path, **files: str) -> dict[str, Recipe]:
    (folder / "images").mkdir()
    (folder / "images" / "prune.toml").write_text("")
    for name, text in files.items():
        (folder / "images" / name).mkdir()
        (folder / "images" / name / "image.toml").write_text(f"{text}\n[image]\nentrypoint = ['/x']\n")
    return load_recipes(folder / "images")


def test_what_is_on_demand_is_not_built_unasked() -> None:
    chosen = choose_recipes(RECIPES, "", "")
    assert chosen >= USUAL
    assert chosen.isdisjoint({"onnxruntime-cuda", "onnxruntime-openvino", "tensorrt-jetson"})


@pytest.mark.parametrize(
    ("only", "chosen"),
    [
        ("operator", {"operator"}),
        ("runtime", {"litert-cpu", "onnxruntime-cpu", "openvino"}),
        ("onnxruntime-cpu,base", {"onnxruntime-cpu", "base"}),
    ],
)
def test_images_are_chosen_by_name_or_by_the_start_of_their_repository(only: str, chosen: set[str]) -> None:
    assert choose_recipes(RECIPES, only, "") == chosen


def test_a_word_that_names_nothing_is_refused() -> None:
    with pytest.raises(SystemExit, match="no-such"):
        choose_recipes(RECIPES, "no-such", "")


def test_bases_come_before_what_stands_on_them(tmp_path: Path) -> None:
    recipes = make_recipes(tmp_path, b="title = 'B'", a="title = 'A'\nbase = 'b'")
    assert list(recipes) == ["b", "a"]


def test_a_recipe_with_a_lock_of_its_own_uses_it(tmp_path: Path) -> None:
    python = "[python]\ndistribution = 'x'\nsource = 'src'"
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "own").mkdir()
    (tmp_path / "images" / "own" / "uv.lock").write_text("version = 1")
    for name in ("own", "shared"):
        folder = tmp_path / "images" / name
        folder.mkdir(exist_ok=True)
        (folder / "image.toml").write_text(f"title = 'T'\n{python}\n[image]\nentrypoint = ['/x']\n")
    (tmp_path / "images" / "prune.toml").write_text("")
    locks = {
        name: recipe.python.lock
        for name, recipe in load_recipes(tmp_path / "images").items()
        if recipe.python
    }
    assert locks == {"own": Path("images/own"), "shared": Path()}


@pytest.mark.parametrize(
    "text",
    [
        "title = 'A'\nbase = 'b'\nbase-image = ''",
        "title = 'A'\nbase-image = 'registry.plant-a.local/jetson:latest'",
        "title = 'A'\nplatforms = ['linux/riscv64']",
        "title = 'A'\nunknown = 1",
    ],
)
def test_a_malformed_recipe_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValidationError):
        make_recipes(tmp_path, b="title = 'B'", a=text)
