"""The label with which a runtime image says what operators it has."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from edgemodel_operator.build.operators import LABEL
from edgemodel_operator.build.origin.packages import Package
from imagebuild import operators_label as module
from imagebuild.cache import Cache
from imagebuild.operators_label import operators_label

HERE = version("onnxruntime")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the libraries; gives which were asked."""
    names: list[str] = []

    def answer(name: str) -> dict[str, dict[str, object]]:
        names.append(name)
        return {"ONNX": {"ai.onnx": {"Add": [[7, 26]]}}}

    monkeypatch.setattr(module, "operators_of", answer)
    return names


@pytest.mark.parametrize("distribution", ["onnxruntime", "onnxruntime-gpu"])
def test_a_runtime_of_the_version_here_is_asked_once(
    asked: list[str], tmp_path: Path, distribution: str
) -> None:
    packages = [Package("pkg:pypi/numpy@2"), Package(f"pkg:pypi/{distribution}@{HERE}")]
    labels = [operators_label(packages, Cache(tmp_path)) for _ in range(2)]
    assert json.loads(labels[0][LABEL]) == {"ONNX": {"ai.onnx": {"Add": [[7, 26]]}}}
    assert labels[0] == labels[1]
    assert asked == ["onnxruntime"]


@pytest.mark.parametrize(
    "purl",
    [
        "pkg:pypi/onnxruntime@1.2.3",
        "pkg:pypi/onnxruntime-openvino@1.24.1",
        f"pkg:deb/debian/onnxruntime@{HERE}",
    ],
)
def test_nothing_is_said_of_a_runtime_that_is_not_here(asked: list[str], tmp_path: Path, purl: str) -> None:
    assert operators_label([Package(purl)], Cache(tmp_path)) == {}
    assert asked == []
