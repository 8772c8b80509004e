"""Environments with the exporters of PyTorch and TensorFlow, as the converter images lock them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from imagebuild.recipe import load_recipes
from imagebuild.stand_ins import write_stand_ins

PROJECT = Path(__file__).resolve().parents[2]
MODELS = PROJECT / "tests" / "adapters" / "convertible"


def make_environment(name: str) -> str:
    """Give the interpreter of `images/convert-NAME`, installed on the first call and kept for the next."""
    folder = PROJECT / "images" / f"convert-{name}"
    key = hashlib.sha256((folder / "uv.lock").read_bytes()).hexdigest()[:12]
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgemodel" / "converters"
    environment = base / f"{name}-{key}"
    for old in set(base.glob(f"{name}-*")) - {environment}:
        shutil.rmtree(old, ignore_errors=True)
    subprocess.run(
        [
            "uv",
            "sync",
            "--frozen",
            "--quiet",
            "--compile-bytecode",
            "--no-install-package",
            "edgemodel-operator",
        ],
        check=True,
        cwd=folder,
        env={**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment)},
    )
    recipe = load_recipes(PROJECT / "images")[folder.name]
    for packages in environment.glob("lib/python*/site-packages"):
        write_stand_ins(packages, recipe.python.stand_ins if recipe.python else ())
    return str(environment / "bin" / "python")


def make_models(name: str, python: str, folder: Path) -> None:
    """Have the environment write its models into a folder."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(
        [python, "-W", "ignore", str(MODELS / f"make_{name}.py"), str(folder)],
        check=True,
        capture_output=True,
        env={**os.environ, **quiet},
    )
