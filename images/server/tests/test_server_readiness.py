"""Why a server is not ready: each reason stands in every place where somebody may look for it."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from serving import ModelMaker, ServerProcess, StartServer

from edgemodel_server.errors import Reason

Damage = Callable[[ModelMaker, Path], list[object]]
"""Makes the model folder wrong; returns what the command line says beside it."""


def change_a_byte(models: ModelMaker, folder: Path) -> list[object]:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(content)
    return []


def be_no_model(models: ModelMaker, folder: Path) -> list[object]:
    (folder / "model.onnx").write_bytes(b"no model")
    models.write_manifest(folder, "dense")
    return []


def ask_for_another_provider(models: ModelMaker, folder: Path) -> list[object]:
    return ["--require-provider", "TensorrtExecutionProvider"]


def give_an_input_that_fails(models: ModelMaker, folder: Path) -> list[object]:
    models.lookup(folder / "model.onnx")
    models.write_manifest(folder, "dense")
    return write_golden(folder, {"name": "x", "datatype": "INT64", "shape": [1], "data": [99]}, [1, 2])


def give_a_wrong_output(models: ModelMaker, folder: Path) -> list[object]:
    return write_golden(
        folder, {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}, [5, 5, 5]
    )


def write_golden(folder: Path, x: dict[str, object], y: list[int]) -> list[object]:
    path = folder.parent.parent / "golden.json"
    output = {"name": "y", "datatype": "FP32", "shape": [1, len(y)], "data": y}
    path.write_text(json.dumps({"inputs": [x], "outputs": [output]}))
    return ["--golden", path]


@pytest.fixture
def folder(models: ModelMaker, tmp_path: Path) -> Path:
    return models.write_manifest(models.dense(tmp_path / "root" / "dense" / "model.onnx").parent, "dense")


def read_reasons(server: ServerProcess) -> list[str]:
    reply = server.ask("GET", "/v2/health/ready")
    assert reply.status == 503
    return [told["reason"] for told in reply.json["reasons"]]


@pytest.mark.parametrize(
    ("damage", "reason", "words"),
    [
        (change_a_byte, Reason.FILE_DIGEST_MISMATCH, "has sha256"),
        (be_no_model, Reason.LOAD_FAILED, "cannot be loaded"),
        (ask_for_another_provider, Reason.PROVIDER_MISMATCH, "TensorrtExecutionProvider is required"),
        (give_an_input_that_fails, Reason.WARM_UP_FAILED, "the first computation fails"),
        (give_a_wrong_output, Reason.GOLDEN_MISMATCH, "of the golden sample is off"),
    ],
)
def test_a_failed_check_has_its_reason_everywhere(
    models: ModelMaker, folder: Path, start_server: StartServer, damage: Damage, reason: Reason, words: str
) -> None:
    server = start_server("--model", folder, *damage(models, folder))
    assert read_reasons(server) == [reason]
    (told,) = server.ask("GET", "/v2/models/dense/ready").json["reasons"]
    assert told["reason"] == reason
    assert words in told["message"]
    (entry,) = server.ask("POST", "/v2/repository/index").json
    assert entry["reason"] == f"{reason}: {told['message']}"
    for other in Reason:
        assert server.metric(f'edgemodel_server_not_ready{{reason="{other}"}}') == (other is reason)
        if other is not Reason.DRAINING:
            series = f'edgemodel_server_model_not_ready{{model="dense",reason="{other}"}}'
            assert server.metric(series) == (other is reason)
    line = server.wait_for("model not ready")
    assert (line["model"], line["reason"], line["message"]) == ("dense", reason, told["message"])
    refused = server.infer("dense", {})
    assert refused.status == 503
    assert told["message"] in refused.json["error"]


def test_while_the_checks_are_under_way_the_reason_is_starting(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    server = start_server("--model", models.slow(tmp_path / "slow.onnx", rounds=10**6), until=())
    assert read_reasons(server) == [Reason.STARTING]
    assert server.metric('edgemodel_server_not_ready{reason="Starting"}') == 1
    assert server.ask("GET", "/v2/health/live").status == 200
    assert server.ask("GET", "/openapi.json").status == 200


def test_a_server_that_was_told_to_stop_is_draining_and_still_answers(
    folder: Path, start_server: StartServer
) -> None:
    server = start_server("--model", folder, "--drain-seconds", "60")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for("draining")
    assert read_reasons(server) == [Reason.DRAINING]
    assert server.metric('edgemodel_server_not_ready{reason="Draining"}') == 1
    assert server.ask("GET", "/v2/models/dense/ready").status == 200
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4], "data": []}]}
    assert server.infer("dense", document).status == 200
    assert server.stop() == 0


def test_every_reason_is_described_in_the_contract() -> None:
    contract = (Path(__file__).parents[2] / "CONTRACT.md").read_text()
    for reason in Reason:
        assert f"| `{reason}` |" in contract
