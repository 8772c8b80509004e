"""The options of `edgemodel build`: what is wrong with them is said before anything begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from edgemodel_operator.cli.main import main
from support.command_line import model_document, write_documents

HOST = "registry.plant-a.local"
DIGEST = "sha256:" + "a" * 64
RUNTIME = f"onnxruntime-cpu={HOST}/runtime@{DIGEST}"
HTTP = {"http": {"url": "https://models.plant-a.local/line.onnx"}}


def build(tmp_path: Path, *options: str, source: dict[str, Any] | None = None) -> Result:
    path = write_documents(tmp_path / "model.yaml", model_document(source or HTTP, f"{HOST}/models/line"))
    return CliRunner().invoke(main, ["build", "-f", str(path), *options])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--runtime", "onnxruntime-cpu"], "--runtime onnxruntime-cpu: write VARIANT=IMAGE"),
        ([], "no runtime image is known for onnxruntime-cpu"),
        (["--runtime", "onnxruntime-cpu=runtime:1"], "names no registry"),
        (["--runtime", RUNTIME, "-o", f"{HOST}/line@{DIGEST}"], "the digest is what comes out"),
        (["--runtime", RUNTIME, "-o", "oci:"], "names no folder"),
        (["--runtime", RUNTIME, "--variant", "npu"], "do not need the variant npu"),
    ],
)
def test_what_is_wrong_with_the_options_is_one_sentence(
    tmp_path: Path, options: list[str], sentence: str
) -> None:
    ended = build(tmp_path, *options)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert sentence in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_volume_of_the_cluster_is_not_here(tmp_path: Path) -> None:
    ended = build(
        tmp_path, "--runtime", RUNTIME, source={"pvc": {"claimName": "models", "path": "line.onnx"}}
    )
    assert (ended.exit_code, "give the model with `--source" in ended.stderr) == (2, True)


def test_a_failure_can_be_had_as_json(tmp_path: Path) -> None:
    ended = build(tmp_path, "--json")
    failure = json.loads(ended.stdout)["failure"]
    assert (ended.exit_code, failure["reason"], failure["retryable"]) == (2, "NotPossible", False)
    assert ended.stderr == ""


def test_settings_that_are_wrong_name_their_key(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("runtime: {}\n")
    ended = build(tmp_path, "--config", str(tmp_path / "config.yaml"))
    assert ended.exit_code == 2
    assert "config.yaml: runtime: " in ended.stderr


def test_every_command_is_listed_with_its_help() -> None:
    shown = CliRunner().invoke(main, ["--help"])
    assert shown.exit_code == 0
    for name in ("build", "inspect", "keygen", "sign", "verify"):
        assert f"  {name} " in shown.output
        assert CliRunner().invoke(main, [name, "--help"]).exit_code == 0
    assert CliRunner().invoke(main, ["burn"]).exit_code == 2
