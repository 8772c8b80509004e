"""The start: every check that can fail, fails with its reason, and the process lives to tell it."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from serving import ModelMaker, ServerProcess, StartServer

from edgemodel_server.discovery import find_sources
from edgemodel_server.errors import StartError
from edgemodel_server.manifest import read_source
from edgemodel_server.settings import parse_settings

GOLDEN_X = [1.0, 2.0, 3.0, 4.0]
GOLDEN_Y = [0.9999986, 0.9999998, 0.9999999]
ALL_ZERO = ("ok", "refused", "not_ready", "overloaded", "failed")


def write_golden(path: Path, x: list[float], y: list[float | int]) -> Path:
    golden = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": x}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": y}],
    }
    path.write_text(json.dumps(golden))
    return path


def expected_output(server: ServerProcess) -> list[float]:
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": GOLDEN_X}]}
    output: list[float] = server.infer("dense", document).json["outputs"][0]["data"]
    return output


@pytest.fixture
def folder(models: ModelMaker, tmp_path: Path) -> Path:
    """A good model folder below a model root of its own."""
    return models.write_manifest(models.dense(tmp_path / "root" / "dense" / "model.onnx").parent, "dense")


def assert_not_ready(server: ServerProcess, reason: str, words: str) -> None:
    reply = server.ask("GET", "/v2/health/ready")
    assert reply.status == 503
    assert reply.json["ready"] is False
    (told,) = reply.json["reasons"]
    assert told["reason"] == reason
    assert words in told["message"]
    assert server.ask("GET", "/v2/health/live").status == 200
    assert server.metric("edgemodel_server_ready") == 0
    assert server.metric(f'edgemodel_server_not_ready{{reason="{reason}"}}') == 1
    logged = server.wait_for("model not ready")
    assert logged["reason"] == reason
    assert words in logged["message"]


def assert_refuses_inference(server: ServerProcess) -> None:
    reply = server.infer("dense", {})
    assert reply.status == 503
    assert "not ready" in reply.json["error"]
    assert reply.headers["retry-after"] == "1"
    assert server.ask("GET", "/v2/models/dense/ready").status == 503
    assert server.ask("GET", "/v2/models/dense").status == 503
    assert server.metric('edgemodel_server_inference_requests_total{model="dense",result="not_ready"}') == 1


def test_a_good_model_becomes_ready(folder: Path, start_server: StartServer) -> None:
    server = start_server("--model-root", folder.parent)
    manifest = json.loads((folder / "manifest.json").read_text())
    sha256 = manifest["files"][0]["sha256"]
    provider = "CPUExecutionProvider"
    reply = server.ask("GET", "/v2/health/ready")
    assert reply.status == 200
    assert reply.json == {
        "ready": True,
        "provider": provider,
        "models": [{"name": "dense", "version": "7", "sha256": sha256, "provider": provider, "ready": True}],
    }
    assert server.ask("GET", "/v2/models/dense/ready").json == {"name": "dense", "ready": True}
    assert server.metric("edgemodel_server_ready") == 1
    labels = f'model="dense",version="7",sha256="{sha256}",platform="onnxruntime_onnx",provider="{provider}"'
    assert server.metric(f"edgemodel_server_model_info{{{labels}}}") == 1


def test_every_series_is_there_at_zero_from_the_start(folder: Path, start_server: StartServer) -> None:
    server = start_server("--model-root", folder.parent)
    for result in ALL_ZERO:
        assert (
            server.metric(f'edgemodel_server_inference_requests_total{{model="dense",result="{result}"}}')
            == 0
        )
    for name in ("request", "queue", "compute"):
        series = f"edgemodel_server_{name}_duration_seconds"
        assert server.metric(f'{series}_count{{model="dense"}}') == 0
        assert server.metric(f'{series}_bucket{{model="dense",le="+Inf"}}') == 0
    for reason in (
        "Starting",
        "FileDigestMismatch",
        "LoadFailed",
        "ProviderMismatch",
        "GoldenMismatch",
        "Draining",
    ):
        assert server.metric(f'edgemodel_server_not_ready{{reason="{reason}"}}') == 0


def test_golden_sample_within_tolerance_passes(
    folder: Path, start_server: StartServer, tmp_path: Path
) -> None:
    plain = start_server("--model-root", folder.parent)
    want = [value + 0.009 for value in expected_output(plain)]
    golden = write_golden(tmp_path / "golden.json", GOLDEN_X, want)
    server = start_server("--model-root", folder.parent, "--golden", golden, "--golden-tolerance", "1e-2")
    assert server.ask("GET", "/v2/health/ready").status == 200


@pytest.mark.parametrize("shift", [0.011, -0.011])
def test_golden_sample_out_of_tolerance(
    folder: Path, start_server: StartServer, tmp_path: Path, shift: float
) -> None:
    plain = start_server("--model-root", folder.parent)
    want = expected_output(plain)
    want[1] += shift
    golden = write_golden(tmp_path / "golden.json", GOLDEN_X, want)
    server = start_server("--model-root", folder.parent, "--golden", golden, "--golden-tolerance", "1e-2")
    assert_not_ready(
        server, "GoldenMismatch", 'output "y" of the golden sample is off at 1 of 3 elements, worst at [0, 1]'
    )
    assert_refuses_inference(server)
    assert server.stop() == 0


def test_a_model_that_answers_nan_never_passes(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    model = models.dense(tmp_path / "dense.onnx", scale=float("nan"))
    golden = write_golden(tmp_path / "golden.json", GOLDEN_X, [0, 0, 0])
    server = start_server("--model", model, "--golden", golden, "--golden-tolerance", "1e9")
    assert_not_ready(server, "GoldenMismatch", "got nan")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read"),
        ("{", "does not fit the model"),
        ("[]", "must be a JSON object"),
        ('{"inputs": [], "outputs": [{"name": "y"}]}', "missing input"),
        (
            '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4], "data": []}], "outputs": []}',
            "not empty",
        ),
        (
            '{"inputs": [{"name":"x","datatype":"FP32","shape":[0,4],"data":[]}], "outputs": [{"name":"z"}]}',
            'no tensor "z"',
        ),
    ],
)
def test_a_golden_file_that_does_not_fit_fails_closed(
    folder: Path, start_server: StartServer, tmp_path: Path, text: str | None, words: str
) -> None:
    golden = tmp_path / "golden.json"
    if text is not None:
        golden.write_text(text)
    server = start_server("--model-root", folder.parent, "--golden", golden)
    assert_not_ready(server, "GoldenMismatch", words)


def test_one_changed_byte_is_found(folder: Path, start_server: StartServer) -> None:
    path = folder / "model.onnx"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    server = start_server("--model-root", folder.parent)
    assert_not_ready(server, "FileDigestMismatch", "has sha256")
    assert_refuses_inference(server)
    assert server.stop(signal.SIGINT) == 0


def test_a_file_that_is_missing_is_found(folder: Path, start_server: StartServer) -> None:
    (folder / "model.onnx").unlink()
    assert_not_ready(start_server("--model-root", folder.parent), "FileDigestMismatch", "not in the folder")


def test_a_file_of_another_size_is_found(folder: Path, start_server: StartServer) -> None:
    with (folder / "model.onnx").open("ab") as stream:
        stream.write(b"\0")
    assert_not_ready(start_server("--model-root", folder.parent), "FileDigestMismatch", "the manifest says")


def test_a_file_that_nobody_vouched_for_is_found(folder: Path, start_server: StartServer) -> None:
    (folder / "weights.bin").write_bytes(b"x")
    assert_not_ready(
        start_server("--model-root", folder.parent), "FileDigestMismatch", "is not in the manifest"
    )


def test_a_link_out_of_the_folder_is_found(folder: Path, start_server: StartServer, tmp_path: Path) -> None:
    (folder / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    assert_not_ready(start_server("--model-root", folder.parent), "FileDigestMismatch", "not in the folder")


def test_a_file_that_is_no_model(models: ModelMaker, start_server: StartServer, tmp_path: Path) -> None:
    folder = tmp_path / "root" / "dense"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"not a model at all")
    models.write_manifest(folder, "dense")
    server = start_server("--model-root", folder.parent)
    assert_not_ready(server, "LoadFailed", "cannot be loaded")
    assert_refuses_inference(server)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema": "other"}, "schema must be edgemodel.dev/model/v1"),
        ({"name": "../a"}, "name must be"),
        ({"version": ""}, "version must be"),
        ({"version": 7}, "version must be"),
        ({"format": "PMML"}, "format must be one of ONNX"),
        ({"format": []}, "format must be one of ONNX"),
        ({"files": []}, "not empty"),
        ({"files": [{"path": "/etc/passwd", "sha256": "0" * 64, "size": 1}]}, "no relative path inside"),
        ({"files": [{"path": "../model.onnx", "sha256": "0" * 64, "size": 1}]}, "no relative path inside"),
        ({"files": [{"path": "ops/my.SO.1", "sha256": "0" * 64, "size": 1}]}, "ops/my.SO.1 is a library"),
        ({"files": [{"path": "model.onnx", "sha256": "0" * 63, "size": 1}]}, "64 lower-case hex"),
        ({"files": [{"path": "model.onnx", "sha256": "0" * 64, "size": -1}]}, "number of bytes"),
        ({"files": [{"path": "model.bin", "sha256": "0" * 64, "size": 1}]}, "no .onnx file"),
    ],
)
def test_a_manifest_that_is_none(
    models: ModelMaker, folder: Path, start_server: StartServer, changes: dict[str, object], words: str
) -> None:
    models.write_manifest(folder, "dense", **changes)
    server = start_server("--model-root", folder.parent)
    assert_not_ready(server, "LoadFailed", words)
    assert server.ask("GET", "/v2/health/ready").json["models"] == []


def test_no_model_at_all(start_server: StartServer, tmp_path: Path) -> None:
    assert_not_ready(start_server("--model-root", tmp_path), "LoadFailed", "there is no model folder under")


def test_a_provider_that_this_runtime_does_not_have(folder: Path, start_server: StartServer) -> None:
    server = start_server("--model-root", folder.parent, "--require-provider", "TensorrtExecutionProvider")
    assert_not_ready(server, "ProviderMismatch", "TensorrtExecutionProvider is required")


def test_the_provider_that_is_in_use_is_accepted(folder: Path, start_server: StartServer) -> None:
    server = start_server("--model-root", folder.parent, "--require-provider", "CPUExecutionProvider")
    assert server.ask("GET", "/v2/health/ready").status == 200


def test_one_bad_model_does_not_take_the_others_down(
    models: ModelMaker, folder: Path, start_server: StartServer, tmp_path: Path
) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"x")
    server = start_server(
        "--model", folder, "--model", f"other={tmp_path / 'bad.onnx'}", until=("model not ready",)
    )
    server.wait_for("model ready")
    assert_not_ready(server, "LoadFailed", "bad.onnx")
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 4], "data": []}]}
    assert server.infer("dense", document).status == 200
    assert server.infer("other", document).status == 503


def test_a_model_must_reproduce_the_golden_sample_of_its_manifest(
    models: ModelMaker, folder: Path, start_server: StartServer, tmp_path: Path
) -> None:
    good = write_golden(tmp_path / "golden.json", GOLDEN_X, GOLDEN_Y)
    write_golden(folder / "golden.json", GOLDEN_X, [5, 5, 5])
    models.write_manifest(folder, "dense", golden="golden.json")
    bad = start_server("--check", "--model", folder, until=())
    assert bad.wait() == 1
    assert bad.wait_for("check failed")["reason"] == "GoldenMismatch"
    overridden = start_server("--check", "--model", folder, "--golden", good, until=())
    assert overridden.wait() == 0


@pytest.mark.parametrize("golden", ["../golden.json", "golden.json", "", 7, None, ["model.onnx"]])
def test_a_golden_sample_that_no_digest_vouches_for_is_refused(
    models: ModelMaker, folder: Path, golden: object
) -> None:
    models.write_manifest(folder, "dense", golden=golden)
    with pytest.raises(StartError, match=r"golden: .* is not in files"):
        read_source(folder)


@pytest.mark.parametrize(
    ("mode", "option"),
    [
        (["--host", "127.0.0.1", "--http-port", "0"], "--golden=dence=golden.json"),
        (["--check"], "--runtime=dence=onnxruntime"),
        (["--prefetch"], "--golden=dence=golden.json"),
    ],
)
def test_an_option_for_a_model_that_is_not_there_is_refused(
    folder: Path, mode: list[str], option: str
) -> None:
    command = [sys.executable, "-m", "edgemodel_server", *mode, "--model", str(folder), option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    name = option.partition("=")[0]
    assert done.stderr.endswith(f'error: argument {name}: there is no model "dence", only dense\n')


def test_an_option_for_a_model_whose_name_cannot_be_read_refuses_nothing(
    models: ModelMaker, folder: Path
) -> None:
    models.write_manifest(folder, "dense", schema="none")
    assert find_sources(parse_settings(["--model", str(folder), "--runtime", "dense=onnxruntime"])).failures


def test_a_bare_file_is_served_under_its_own_name_or_the_one_given(
    models: ModelMaker, start_server: StartServer, tmp_path: Path
) -> None:
    path = models.dense(tmp_path / "flowers.onnx")
    server = start_server("--model", path, "--model", f"again={path}")
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert server.process.poll() is None
    for name in ("flowers", "again"):
        assert server.ask("GET", f"/v2/models/{name}").json["versions"] == ["1"]


def test_check_loads_and_tests_without_serving(
    folder: Path, start_server: StartServer, tmp_path: Path
) -> None:
    good = start_server("--check", "--model", folder, until=())
    assert good.wait() == 0
    assert good.wait_for("model passed")["model"] == "dense"
    golden = write_golden(tmp_path / "golden.json", GOLDEN_X, [5, 5, 5])
    bad = start_server("--check", "--model", folder, "--golden", golden, until=())
    assert bad.wait() == 1
    assert bad.wait_for("check failed")["reason"] == "GoldenMismatch"
    none = start_server("--check", "--model-root", tmp_path / "nothing", until=())
    assert none.wait() == 1


def test_prefetch_holds_without_a_runtime_until_told_to_stop(folder: Path, start_server: StartServer) -> None:
    server = start_server("--prefetch", "--model-root", folder.parent, until=("holding",))
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "onnxruntime" not in maps
    assert "numpy" not in maps
    opened = [str(link.readlink()) for link in Path(f"/proc/{server.process.pid}/fd").iterdir()]
    assert not [name for name in opened if name.startswith("socket:")]
    assert server.process.poll() is None
    assert server.stop() == 0


def test_prefetch_of_a_damaged_model_fails_with_the_sentence(folder: Path, start_server: StartServer) -> None:
    (folder / "model.onnx").write_bytes(b"x" * (folder / "model.onnx").stat().st_size)
    server = start_server("--prefetch", "--model-root", folder.parent, until=())
    assert server.wait() == 1
    line = server.wait_for("prefetch failed")
    assert line["reason"] == "FileDigestMismatch"
    assert "has sha256" in line["message"]


def test_prefetch_of_nothing_fails(start_server: StartServer, tmp_path: Path) -> None:
    assert start_server("--prefetch", "--model-root", tmp_path, until=()).wait() == 1
