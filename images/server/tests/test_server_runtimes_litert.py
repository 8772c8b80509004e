"""LiteRT: the runtime's own answers bit for bit, delegates, overlapping requests, state."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tflite_models
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped, unused-ignore]
from grpc_client import GrpcClient
from serving import StartServer

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor
from edgemodel_server.errors import Reason, StartError
from edgemodel_server.grpc.protos import inference_pb2 as pb
from edgemodel_server.runtimes import LoadOptions, Model, load_model


def load(path: Path, **options: Any) -> Model:
    return load_model("TFLite", path, LoadOptions(**options))


def answer_of_litert(path: Path, x: Tensor) -> Tensor:
    """What a fresh interpreter of the library gives for the one input of a model."""
    interpreter = Interpreter(str(path), num_threads=1)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, x.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, x)
    interpreter.invoke()
    result: Tensor = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return result


def sample(datatype: str, rows: int) -> Tensor:
    """Every bit of each element is used somewhere."""
    if datatype == "BYTES":
        texts = np.array([b"", b"\x00\xff", "é".encode(), b"plain"], np.object_)
        return np.resize(texts, (rows, 2))
    dtype = NUMPY_DTYPE[datatype]
    if datatype == "BOOL":
        return np.resize(np.array([True, False, False], dtype), (rows, 2))
    raw = np.random.default_rng(rows).integers(0, 256, rows * 2 * dtype.itemsize, dtype=np.uint8)
    return raw.view(dtype).reshape(rows, 2)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tflite_models.save_identities(tmp_path_factory.mktemp("identities") / "all.tflite"))


@pytest.mark.parametrize("datatype", sorted(tflite_models.KINDS))
def test_every_datatype_passes_unchanged(identities: Model, datatype: str) -> None:
    assert identities.signature.inputs[f"in_{datatype}"].datatype == datatype
    assert identities.signature.outputs[f"out_{datatype}"].shape == (-1, 2)
    for rows in (3, 1, 0, 2):  # each time another size than the last one
        inputs = {f"in_{name}": sample(name, rows) for name in tflite_models.KINDS}
        (answer,) = identities.run(inputs, [f"out_{datatype}"])
        assert answer.dtype == NUMPY_DTYPE[datatype]
        assert answer.shape == (rows, 2)
        assert answer.tobytes() == inputs[f"in_{datatype}"].tobytes() or datatype == "BYTES"
        assert answer.tolist() == inputs[f"in_{datatype}"].tolist() or datatype.startswith("FP")


@pytest.mark.parametrize("rows", [1, 5])
def test_answers_are_those_of_litert(tmp_path: Path, rows: int) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    x = np.random.default_rng(rows).standard_normal((rows, 4)).astype(np.float32)
    (y,) = load(path).run({"x": x}, ["y"])
    assert y.tobytes() == answer_of_litert(path, x).tobytes()
    assert np.allclose(y, np.tanh(x @ (np.arange(12).reshape(3, 4) / 7 - 0.5).T), atol=1e-6)


def test_names_come_from_the_signature_or_from_the_tensors(tmp_path: Path) -> None:
    signed = load(tflite_models.save_dense(tmp_path / "signed.tflite"))
    plain = load(tflite_models.save_dense(tmp_path / "plain.tflite", signed=False))
    assert (list(signed.signature.inputs), list(signed.signature.outputs)) == (["x"], ["y"])
    assert (list(plain.signature.inputs), list(plain.signature.outputs)) == (["x:0"], ["y:0"])
    assert signed.signature.inputs["x"].shape == (-1, 4)
    assert (signed.platform, signed.provider) == ("litert_tflite", "XNNPACK")


def test_quantized_tensors_stay_integers(tmp_path: Path) -> None:
    model = load(tflite_models.save_dequantize(tmp_path / "quantized.tflite"))
    assert model.signature.inputs["x"].describe() == {
        "name": "x", "datatype": "INT8", "shape": [-1, 4], "parameters": {"scale": 0.5, "zero_point": -3},
    }  # fmt: skip
    assert "parameters" not in model.signature.outputs["y"].describe()
    (y,) = model.run({"x": np.array([[-128, -3, -2, 127]], np.int8)}, ["y"])
    assert y.tolist() == [[-62.5, 0.0, 0.5, 65.0]]


def test_overlapping_requests_do_not_mix(tmp_path: Path) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    model = load(path)
    inputs = [np.full((1 + number % 3, 4), number, np.float32) / 50 for number in range(60)]
    want = [model.run({"x": x}, ["y"])[0].tobytes() for x in inputs]
    wrong: list[int] = []

    def ask(first: int) -> None:
        for number in range(first, 60 * 20, 4):
            x = inputs[number % 60]
            if model.run({"x": x}, ["y"])[0].tobytes() != want[number % 60]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_model_with_state_answers_every_request_from_its_first_state(tmp_path: Path) -> None:
    model = load(tflite_models.save_sum(tmp_path / "sum.tflite"))
    x = np.array([1.0, 2.0], np.float32)
    assert [model.run({"x": x}, ["y"])[0].tolist() for _ in range(3)] == [[1.0, 2.0]] * 3


def test_a_closed_model_has_given_its_interpreters_back(tmp_path: Path) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    model = load(path)
    assert path.name in Path("/proc/self/maps").read_text()
    model.close()
    assert path.name not in Path("/proc/self/maps").read_text()


def test_a_quantized_model_is_described_over_rest_and_grpc(tmp_path: Path, start_server: StartServer) -> None:
    path = tflite_models.save_dequantize(tmp_path / "quantized.tflite")
    server = start_server("--model", path, "--grpc-port", "0")
    (x,) = server.ask("GET", "/v2/models/quantized").json["inputs"]
    assert x["parameters"] == {"scale": 0.5, "zero_point": -3}
    with GrpcClient(server) as client:
        reply = client.call(
            "ModelMetadata", pb.ModelMetadataRequest(name="quantized"), pb.ModelMetadataResponse
        )
    assert [(one.name, one.datatype, list(one.shape)) for one in reply.inputs] == [("x", "INT8", [-1, 4])]


# -- providers ------------------------------------------------------------------------------------------

DELEGATE_SOURCE = Path(__file__).with_name("pass_through_delegate.c")


@pytest.fixture(scope="module")
def delegate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real delegate that computes RESHAPE, or what its option ``takes`` names by number, by copying."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("making a delegate needs gcc")
    library = tmp_path_factory.mktemp("delegate") / "libpassthrough.so.1"
    command = [
        compiler,
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        "-o",
        str(library),
        str(DELEGATE_SOURCE),
    ]
    subprocess.run(command, check=True)
    return library


def assert_mismatch(words: str, path: Path, **options: Any) -> None:
    with pytest.raises(StartError) as refused:
        load(path, **options)
    assert refused.value.reason is Reason.PROVIDER_MISMATCH
    assert words in refused.value.message


def test_the_cpu_is_what_xnnpack_computes_on(tmp_path: Path) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    assert load(path, provider="CPU").provider == "CPU"
    assert load(path, provider="XNNPACK").provider == "XNNPACK"


def test_a_provider_without_a_library_is_refused(tmp_path: Path) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    assert_mismatch("edgetpu is required: LiteRT needs the library", path, provider="edgetpu")


def test_a_delegate_computes_the_model(tmp_path: Path, delegate: Path) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    x = np.array([[1.0, 2.0]], np.float32)
    model = load(path, delegate=delegate, provider="passthrough", provider_options={"add": "0.25"})
    assert model.provider == "passthrough"
    assert model.run({"x": x}, ["y"])[0].tolist() == [[1.25, 2.25]]
    assert model.run({"x": np.zeros((3, 2), np.float32)}, ["y"])[0].tolist() == [[0.25, 0.25]] * 3
    assert load(path).run({"x": x}, ["y"])[0].tolist() == [[1.0, 2.0]]


def test_a_delegate_must_take_the_whole_model(tmp_path: Path, delegate: Path) -> None:
    path = tflite_models.save_reshape(tmp_path / "more.tflite", and_tanh=True)
    assert_mismatch(
        "passthrough computes only 1 of the model's 2 operations, the CPU would compute 1 TANH",
        path,
        delegate=delegate,
    )
    model = load(path, delegate=delegate, cpu_fallback=True, provider_options={"add": "1"})
    assert model.provider == "passthrough"
    (y,) = model.run({"x": np.zeros((1, 2), np.float32)}, ["y"])
    assert np.allclose(y, np.tanh(1.0))


def test_a_delegate_that_takes_nothing_is_refused(tmp_path: Path, delegate: Path) -> None:
    path = tflite_models.save_dense(tmp_path / "dense.tflite")
    words = "the delegate passthrough takes no operation of the model"
    assert_mismatch(words, path, delegate=delegate, cpu_fallback=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"fail": "no device is plugged in"}, "no device is plugged in"), ({"speed": "9"}, "no such option")],
)
def test_a_delegate_that_cannot_start_says_why(
    tmp_path: Path, delegate: Path, options: dict[str, str], words: str
) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    assert_mismatch(words, path, delegate=delegate, provider_options=options)


def test_a_library_that_is_no_delegate(tmp_path: Path) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    assert_mismatch("cannot open", path, delegate=tmp_path / "libnone.so")
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    assert_mismatch("libtext.so cannot be used", path, delegate=text)


def test_a_file_that_crashes_litert_does_not_take_the_others_down(
    tmp_path: Path, start_server: StartServer
) -> None:
    good = tflite_models.save_dense(tmp_path / "good.tflite")
    bad = tflite_models.save_nothing(tmp_path / "bad.tflite")
    program = "import sys; from ai_edge_litert.interpreter import Interpreter; Interpreter(sys.argv[1])"
    crashed = subprocess.run([sys.executable, "-c", program, str(bad)], check=False, capture_output=True)
    assert crashed.returncode == -signal.SIGSEGV, "LiteRT refuses this file now: the trial has lost its proof"
    server = start_server("--model", bad, "--model", good, until=("model ready",))
    (reason,) = server.ask("GET", "/v2/health/ready").json["reasons"]
    assert reason["reason"] == "LoadFailed"
    assert "it ended a trial of the runtime with SIGSEGV" in reason["message"]
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0, 0, 0, 0]}]}
    assert server.infer("good", document).json["outputs"][0]["data"] == [0.0, 0.0, 0.0]


def test_a_crash_of_a_delegate_ends_a_trial_and_nothing_else(tmp_path: Path, delegate: Path) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    with pytest.raises(StartError) as refused:
        load(path, delegate=delegate, provider_options={"crash": "1"})
    assert refused.value.reason is Reason.LOAD_FAILED
    assert "ended a trial of the runtime with SIGABRT" in refused.value.message


def test_a_trial_runs_nothing_that_lies_beside_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("queue", "numpy"):
        (tmp_path / f"{module}.py").write_text("raise SystemExit('code from the current folder')")
    monkeypatch.chdir(tmp_path)
    assert load(tflite_models.save_dense(tmp_path / "model.tflite")).signature.inputs


def test_a_trial_ends_with_its_server(tmp_path: Path, delegate: Path, start_server: StartServer) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    started = tmp_path / "started"
    server = start_server(
        "--model", path, "--delegate", delegate, "--provider-option", f"hang={started}", until=("listening",)
    )
    while not (started.exists() and started.read_text().strip()):
        time.sleep(0.02)
    child = Path("/proc") / started.read_text().strip() / "stat"
    assert state_of(child) == "S"
    server.process.kill()
    server.wait()
    while state_of(child) not in ("Z", ""):  # a zombie is gone, too: its new parent has not asked for it yet
        time.sleep(0.02)


def state_of(process: Path) -> str:
    """The kernel's letter for the state of a process; none if it does not exist."""
    try:
        return process.read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def test_a_server_with_a_delegate(tmp_path: Path, delegate: Path, start_server: StartServer) -> None:
    path = tflite_models.save_reshape(tmp_path / "reshape.tflite")
    server = start_server(
        "--model",
        path,
        "--delegate",
        delegate,
        "--provider-option",
        "add=0.5",
        "--require-provider",
        "passthrough",
    )
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]}
    assert server.infer("reshape", document).json["outputs"][0]["data"] == [1.5, 2.5]
    assert server.ask("GET", "/v2/health/ready").json["provider"] == "passthrough"
