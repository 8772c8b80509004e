"""Images with a lock of their own: locked as they say, with wheels for their platforms; and the variants."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from imagebuild.__main__ import PROJECT, choose_recipes
from imagebuild.assemble import platforms_of
from imagebuild.locked import Lock, read_lock, run_uv
from imagebuild.recipe import PythonPart, Recipe, load_recipes

RECIPES = load_recipes(PROJECT / "images")
LOCKED = {name: recipe for name, recipe in RECIPES.items() if recipe.python and recipe.python.lock != Path()}
VARIANTS = {name: recipe for name, recipe in LOCKED.items() if recipe.variant}
PAIRS = [(name, str(platform)) for name, recipe in LOCKED.items() for platform in platforms_of(recipe)]


def python_of(recipe: Recipe) -> PythonPart:
    assert recipe.python is not None
    return recipe.python


@cache
def lock_of(name: str) -> Lock:
    return read_lock(PROJECT, python_of(LOCKED[name]))


def test_there_are_variants() -> None:
    assert sorted(VARIANTS) == ["onnxruntime-cuda", "onnxruntime-openvino", "tensorrt-jetson"]
    added = choose_recipes(RECIPES, "", "all") - choose_recipes(RECIPES, "", "")
    assert added & VARIANTS.keys() == {"onnxruntime-cuda", "onnxruntime-openvino"}
    assert choose_recipes(RECIPES, "base", "tensorrt-jetson") == {"base", "tensorrt-jetson"}


@pytest.mark.parametrize("name", LOCKED)
def test_the_lock_is_that_of_the_project_beside_it(name: str) -> None:
    """Nothing is fetched: a lock that fits what is asked for needs no index to say so."""
    run_uv(["uv", "lock", "--check", "--offline"], PROJECT / "images" / name)


@pytest.mark.parametrize(("name", "platform"), PAIRS)
def test_every_distribution_has_a_wheel_for_the_platform(name: str, platform: str) -> None:
    (at,) = [one for one in platforms_of(LOCKED[name]) if str(one) == platform]
    chosen = lock_of(name).for_platform(at, python_of(LOCKED[name]).glibc)
    assert [one.name for one in chosen if len(one.hashes) != 1] == []


@pytest.mark.parametrize("name", VARIANTS)
def test_no_variant_has_the_runtime_twice(name: str) -> None:
    runtimes = [one.name for one in lock_of(name).requirements if one.name.startswith("onnxruntime")]
    assert len(runtimes) == 1
    assert runtimes != ["onnxruntime"]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_has_the_libraries_that_the_others_have(name: str) -> None:
    """The server is the same in all images: what it is tested with is what it gets."""
    usual, own = versions_of(RECIPES["onnxruntime-cpu"]), versions_of(VARIANTS[name])
    del usual["onnxruntime"]
    assert {one: own.get(one) for one in usual} == usual


def versions_of(recipe: Recipe) -> dict[str, str]:
    """Give what an image holds; a lock for several Pythons has versions without a wheel for ours."""
    part = python_of(recipe)
    chosen = read_lock(PROJECT, part).for_platform(platforms_of(recipe)[0], part.glibc)
    return {one.name: one.version for one in chosen if len(one.hashes) == 1}


def test_what_the_chart_shows_are_variants_and_repositories_that_exist() -> None:
    values = (PROJECT / "charts" / "edgemodel-operator" / "values.yaml").read_text()
    known = {recipe.variant: recipe.repository for recipe in RECIPES.values() if recipe.variant}
    shown = {
        rung["variant"]
        for one in yaml.safe_load(values)["acceleratorClasses"]
        for rung in one["spec"]["runtimes"]
    }
    assert shown <= known.keys()
    for variant, repository in known.items():
        assert repository == f"runtime-{variant}"


def test_a_recipe_of_its_own_lock_names_python_as_the_images_do() -> None:
    for name in LOCKED:
        project = tomllib.loads((PROJECT / "images" / name / "pyproject.toml").read_text())
        assert project["project"]["requires-python"] == "==3.11.*"
        assert project["tool"]["uv"]["package"] is False
