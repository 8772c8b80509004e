"""OpenVINO: the runtime's own answers bit for bit, devices, its cache, and that it reports nothing."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino_models
import pytest
from serving import ModelMaker, StartServer

from edgemodel_server.datatypes import NUMPY_DTYPE, Tensor
from edgemodel_server.errors import ApiError, Reason, StartError
from edgemodel_server.runtimes import LoadOptions, Model, load_model
from edgemodel_server.runtimes.openvino_library import ov


def load(path: Path, **options: Any) -> Model:
    return load_model("OpenVINO" if path.suffix == ".xml" else "ONNX", path, LoadOptions(**options))


def sample(datatype: str, rows: int) -> Tensor:
    """Every bit of each element is used somewhere, as far as OpenVINO has bits for it."""
    if datatype == "BYTES":
        return np.resize(np.array([b"", "é".encode(), b"plain"], np.object_), (rows, 2))
    dtype = NUMPY_DTYPE[datatype]
    if datatype == "BOOL":
        return np.resize(np.array([True, False, False], dtype), (rows, 2))
    narrow = {"INT64": np.dtype("<i4"), "UINT64": np.dtype("<u2")}.get(datatype, dtype)
    raw = np.random.default_rng(rows).integers(0, 256, rows * 2 * narrow.itemsize, dtype=np.uint8)
    return raw.view(narrow).astype(dtype).reshape(rows, 2)


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(openvino_models.save_identities(tmp_path_factory.mktemp("identities") / "all.xml"))


@pytest.mark.parametrize("datatype", sorted(openvino_models.KINDS))
def test_every_datatype_passes_unchanged(identities: Model, datatype: str) -> None:
    name = f"in_{datatype}"
    assert identities.signature.inputs[name].datatype == datatype
    assert identities.signature.outputs[name].shape == (-1, 2)
    for rows in (3, 1, 0, 2):
        inputs = {f"in_{kind}": sample(kind, rows) for kind in openvino_models.KINDS}
        (answer,) = identities.run(inputs, [name])
        assert answer.dtype == NUMPY_DTYPE[datatype]
        assert answer.shape == (rows, 2)
        assert answer.tobytes() == inputs[name].tobytes() or datatype == "BYTES"
        assert answer.tolist() == inputs[name].tolist() or datatype.startswith("FP")


def answer_of_openvino(path: Path, x: Tensor) -> Tensor:
    request = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    request.infer({"x": x})
    result: Tensor = request.get_output_tensor(0).data.copy()
    return result


@pytest.mark.parametrize("kind", ["IR", "ONNX"])
@pytest.mark.parametrize("writeable", [True, False])
def test_answers_are_those_of_openvino(
    models: ModelMaker, tmp_path: Path, kind: str, writeable: bool
) -> None:
    if kind == "IR":
        model = load(path := openvino_models.save_dense(tmp_path / "dense.xml"))
    else:
        model = load(path := models.dense(tmp_path / "dense.onnx"), runtime="openvino")
    assert (model.platform, model.provider) == (f"openvino_{kind.lower()}", "CPU")
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    x.flags.writeable = writeable  # a request's body is not
    (y,) = model.run({"x": x}, ["y"])
    assert y.tobytes() == answer_of_openvino(path, x).tobytes()


def test_integers_that_openvino_would_change_are_refused(identities: Model) -> None:
    inputs = {f"in_{kind}": sample(kind, 1) for kind in openvino_models.KINDS}
    for name, value in (("in_INT64", 2**31), ("in_INT64", -(2**31) - 1), ("in_UINT64", 2**31)):
        changed = {**inputs, name: np.full((1, 2), value, inputs[name].dtype)}
        with pytest.raises(ApiError, match=f'"{name}": OpenVINO computes integers with 32 bits'):
            identities.run(changed, [name])


def test_texts_that_are_not_utf_8_are_refused(identities: Model) -> None:
    inputs = {f"in_{kind}": sample(kind, 1) for kind in openvino_models.KINDS}
    inputs["in_BYTES"] = np.array([[b"\xff", b""]], np.object_)
    with pytest.raises(ApiError, match="must be UTF-8"):
        identities.run(inputs, ["in_BYTES"])


def test_overlapping_requests_do_not_mix(tmp_path: Path) -> None:
    model = load(openvino_models.save_dense(tmp_path / "dense.xml"))
    inputs = [np.full((1 + number % 3, 4), number, np.float32) / 50 for number in range(60)]
    want = [model.run({"x": x}, ["y"])[0].tobytes() for x in inputs]
    wrong: list[int] = []

    def ask(first: int) -> None:
        for number in range(first, 60 * 20, 4):
            (y,) = model.run({"x": inputs[number % 60]}, ["y"])
            if y.tobytes() != want[number % 60]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# -- providers ------------------------------------------------------------------------------------------


def refusal(path: Path, **options: Any) -> StartError:
    with pytest.raises(StartError) as refused:
        load(path, **options)
    return refused.value


@pytest.mark.parametrize("device", ["GPU", "AUTO", "HETERO:GPU,CPU", "CPUX"])
def test_a_device_that_is_not_there_is_refused(tmp_path: Path, device: str) -> None:
    refused = refusal(openvino_models.save_dense(tmp_path / "dense.xml"), provider=device)
    assert refused.reason is Reason.PROVIDER_MISMATCH
    assert refused.message == f"{device} is required, but OpenVINO finds only CPU here"


def test_properties_are_the_users(tmp_path: Path) -> None:
    path = openvino_models.save_dense(tmp_path / "dense.xml")
    x = np.full((1, 4), 0.3, np.float32)
    want = answer_of_openvino(path, x)
    for properties in (
        {"PERFORMANCE_HINT": "LATENCY"},
        {"PERFORMANCE_HINT": "THROUGHPUT"},
        {"NUM_STREAMS": "1"},
    ):
        (y,) = load(path, provider_options=properties).run({"x": x}, ["y"])
        assert y.tobytes() == want.tobytes()
    refused = refusal(path, provider_options={"PERFORMANCE_HINT": "FAST"})
    assert "Wrong value FAST" in refused.message
    assert "Exception from" not in refused.message
    assert "Unsupported property SPEED" in refusal(path, provider_options={"SPEED": "9"}).message


def test_the_cache_is_written_only_where_asked_for(tmp_path: Path) -> None:
    path = openvino_models.save_dense(tmp_path / "model" / "dense.xml")
    cache = tmp_path / "cache"
    words = f"CACHE_DIR={cache} is no folder that this process may write to"
    assert words in refusal(path, provider_options={"CACHE_DIR": str(cache)}).message
    load(path)
    cache.mkdir()
    load(path, provider_options={"CACHE_DIR": str(cache)})
    assert list(cache.iterdir())
    assert {one.name for one in path.parent.iterdir()} == {"dense.xml", "dense.bin"}


def test_weights_that_are_a_link_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    path = openvino_models.save_dense(tmp_path / "model" / "dense.xml")
    weights = path.with_suffix(".bin").rename(tmp_path / "secret")
    path.with_suffix(".bin").symlink_to(weights)
    assert "dense.bin is a link out of its folder" in refusal(path).message


def test_nothing_that_could_report_usage_is_loaded(tmp_path: Path) -> None:
    path = openvino_models.save_dense(tmp_path / "dense.xml")
    program = (
        "import sys, pathlib\n"
        "from edgemodel_server.runtimes import LoadOptions, load_model\n"
        "load_model('OpenVINO', pathlib.Path(sys.argv[1]), LoadOptions())\n"
        "loaded = [name for name, module in sys.modules.items() if module]\n"
        "assert 'openvino' in loaded\n"
        "print([name for name in loaded if 'telemetry' in name or name.startswith('openvino.tools')])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    ran = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "HOME": str(home)}, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.stdout.split() == ["[]"]
    assert list(home.iterdir()) == []


def test_a_server_with_two_runtimes(models: ModelMaker, tmp_path: Path, start_server: StartServer) -> None:
    ir, onnx = openvino_models.save_dense(tmp_path / "ir.xml"), models.dense(tmp_path / "dense.onnx")
    server = start_server(
        "--model", ir, "--model", onnx, "--model", f"again={onnx}", "--runtime", "again=openvino", until=()
    )
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert "model not ready" not in [line["event"] for line in server.log], server.log
        time.sleep(0.1)
    document = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [0.1, 0.2, 0.3, 0.4]}]}
    platforms = {
        name: server.ask("GET", f"/v2/models/{name}").json["platform"] for name in ("ir", "dense", "again")
    }
    assert platforms == {"ir": "openvino_ir", "dense": "onnxruntime_onnx", "again": "openvino_onnx"}
    answers = [server.infer(name, document).json["outputs"][0]["data"] for name in platforms]
    assert np.allclose(answers, answers[0], rtol=1e-6)
