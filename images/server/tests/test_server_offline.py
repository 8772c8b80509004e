"""The server makes no outbound connection: the kernel counts what it, or a runtime's library, would try."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import openvino_models
import pytest
import tflite_models
from serving import ModelMaker

TESTS = Path(__file__).parent


@cache
def find_way_in() -> tuple[str, ...]:
    """Return the command that runs another one in a network namespace of its own; skips where none may."""
    for flags in ("-n", "-rn"):
        if not subprocess.run(["unshare", flags, "true"], capture_output=True, check=False).returncode:
            return ("unshare", flags)
    pytest.skip("no network namespace may be made here")


def count_attempts(*arguments: object) -> dict[str, int]:
    """Run ``offline.py``; returns how many attempts the kernel saw, by its names for them."""
    done = subprocess.run(
        [*find_way_in(), sys.executable, str(TESTS / "offline.py"), *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    counted: dict[str, int] = json.loads(done.stdout)
    return counted


MAKE: dict[str, Callable[[ModelMaker, Path], Path]] = {
    "onnx": lambda models, path: models.dense(path),
    "tflite": lambda _, path: tflite_models.save_dense(path),
    "xml": lambda _, path: openvino_models.save_dense(path),
}


@pytest.mark.parametrize("suffix", MAKE)
def test_nothing_is_sent_to_anywhere(models: ModelMaker, tmp_path: Path, suffix: str) -> None:
    path = MAKE[suffix](models, tmp_path / f"model.{suffix}")
    attempts = count_attempts(path)
    assert attempts == dict.fromkeys(attempts, 0)


def test_an_attempt_would_be_seen() -> None:
    assert count_attempts("reach-outside")["Ip:OutNoRoutes"] > 0
