"""Runtimes: which one loads a model, on which provider, and what every one of them refuses."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino_models
import pytest
import tflite_models
from onnx import TensorProto, helper, numpy_helper
from serving import ModelMaker, StartServer

from edgemodel_server.errors import Reason, StartError
from edgemodel_server.formats import FORMAT_RUNTIMES, RUNTIMES
from edgemodel_server.manifest import FORMAT_SUFFIXES
from edgemodel_server.runtimes import LoadOptions, choose_runtime, load_model
from edgemodel_server.runtimes.onnx_providers import CPU, check_placement
from edgemodel_server.settings import parse_settings
from edgemodel_server.unload import give_memory_back


def refusal(model_format: str, path: Path, **options: Any) -> StartError:
    with pytest.raises(StartError) as refused:
        load_model(model_format, path, LoadOptions(**options))
    return refused.value


# -- the choice of a runtime ---------------------------------------------------------------------------------


def test_every_format_has_a_runtime() -> None:
    assert set(FORMAT_RUNTIMES) == set(FORMAT_SUFFIXES)
    assert {name for names in FORMAT_RUNTIMES.values() for name in names} == set(RUNTIMES)


def test_the_first_runtime_of_a_format_is_its_default() -> None:
    assert choose_runtime("ONNX", None) == "onnxruntime"
    assert choose_runtime("ONNX", "openvino") == "openvino"


def test_a_runtime_that_is_not_installed_leaves_it_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert choose_runtime("ONNX", None) == "openvino"


@pytest.mark.parametrize(
    ("model_format", "wanted", "words"),
    [
        ("TFLite", None, "no litert for TFLite models is installed here: install edgemodel-server[litert]"),
        (
            "ONNX",
            "openvino",
            "no openvino for ONNX models is installed here: install edgemodel-server[openvino]",
        ),
        ("TFLite", "onnxruntime", "onnxruntime cannot load TFLite models, only litert can"),
    ],
)
def test_a_runtime_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, model_format: str, wanted: str | None, words: str
) -> None:
    for library in ("ai_edge_litert", "openvino"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(StartError) as refused:
        choose_runtime(model_format, wanted)
    assert (refused.value.reason, refused.value.message) == (Reason.LOAD_FAILED, words)


@pytest.mark.parametrize("model_format", sorted(FORMAT_SUFFIXES))
def test_only_the_runtime_at_hand_is_imported(models: ModelMaker, tmp_path: Path, model_format: str) -> None:
    program = (
        "import sys, pathlib\n"
        "from edgemodel_server.runtimes import LoadOptions, load_model\n"
        "load_model(sys.argv[1], pathlib.Path(sys.argv[2]), LoadOptions())\n"
        "print(*(name for name in sys.argv[3:] if sys.modules.get(name)))\n"
    )
    path = write_models(tmp_path, models)[model_format]
    libraries = [runtime.library for runtime in RUNTIMES.values()]
    command = [sys.executable, "-c", program, model_format, str(path), *libraries]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [RUNTIMES[FORMAT_RUNTIMES[model_format][0]].library]


def test_a_model_is_loaded_by_the_runtime_that_its_name_was_given(tmp_path: Path) -> None:
    settings = parse_settings(["--runtime", "litert", "--runtime", "lines=openvino"])
    assert settings.runtime_for("lines") == "openvino"
    assert settings.runtime_for("other") == "litert"
    assert parse_settings([]).runtime_for("lines") is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runtime", "torch"], "'torch' is no runtime, there are onnxruntime, litert, openvino"),
        (["--runtime", "../a=litert"], "'../a' is no model name"),
        (["--provider-option", "fast"], "'fast' is not KEY=VALUE"),
        (["--provider-option", "=1"], "'=1' is not KEY=VALUE"),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_options_of_a_provider_keep_what_follows_the_first_equals_sign() -> None:
    settings = parse_settings(["--provider-option", "CACHE_DIR=/tmp/a=b", "--provider-option", "empty="])
    assert settings.provider_options == {"CACHE_DIR": "/tmp/a=b", "empty": ""}


# -- memory --------------------------------------------------------------------------------------------------


def anonymous_bytes() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) << 10


@pytest.mark.parametrize("model_format", sorted(FORMAT_SUFFIXES))
def test_a_closed_model_gives_its_memory_back(tmp_path: Path, model_format: str) -> None:
    width, rows = 1024, 2048  # 4 MiB of weights, and 8 MiB for each of the tensors between two layers
    path = write_wide(tmp_path / f"wide{FORMAT_SUFFIXES[model_format]}", width)

    def load_and_close() -> tuple[int, int]:
        """Return what the process holds more of while the model is loaded, and after that."""
        before = anonymous_bytes()
        model = load_model(model_format, path, LoadOptions())
        model.run({"x": np.ones((rows, width), np.float32)}, list(model.signature.outputs))
        loaded = anonymous_bytes()
        model.close()
        del model
        give_memory_back()
        return loaded - before, anonymous_bytes() - before

    load_and_close()  # the library keeps what it needs itself
    taken, kept = zip(*(load_and_close() for _ in range(4)), strict=True)
    assert min(taken) > 8 << 20
    assert min(kept) < 1 << 20  # an allocator's caches may keep more now and then, a leak would always


def write_wide(path: Path, width: int) -> Path:
    """x: FP32 [n, width] -> y: FP32 [n, width], two products."""
    weights = np.full((width, width), 1 / width, np.float32)
    match path.suffix:
        case ".onnx":
            value = helper.make_tensor_value_info
            nodes = [
                helper.make_node("MatMul", ["x", "w"], ["h"]),
                helper.make_node("MatMul", ["h", "w"], ["y"]),
            ]
            shape = ["n", width]
            return ModelMaker().save(
                path, nodes, [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)],
                [numpy_helper.from_array(weights, "w")],
            )  # fmt: skip
        case ".tflite":
            return tflite_models.save_products(path, weights)
        case _:
            return openvino_models.save_products(path, weights)


# -- the provider of ONNX Runtime ----------------------------------------------------------------------------


def test_a_provider_that_takes_no_operation_is_found_out(models: ModelMaker, tmp_path: Path) -> None:
    """The session lists this provider first, and computes everything on the CPU."""
    path = models.dense(tmp_path / "dense.onnx")
    provider = "AzureExecutionProvider"
    assert ort.InferenceSession(str(path), providers=[provider]).get_providers()[0] == provider
    for cpu_fallback in (False, True):
        refused = refusal("ONNX", path, provider=provider, cpu_fallback=cpu_fallback)
        assert refused.reason is Reason.PROVIDER_MISMATCH
        assert (
            refused.message == f"{provider} takes no operation of the model: the CPU would compute all of it"
        )


def test_a_provider_that_takes_a_part_is_found_out() -> None:
    """No provider but the CPU's computes anything here, so that the session's record is made up."""
    parts = (("NPU", ["Conv", "Relu"]), (CPU, ["Where"]), (CPU, ["Loop", "Where"]))
    record = [
        SimpleNamespace(
            ep_name=name, get_nodes=partial(list, [SimpleNamespace(op_type=kind) for kind in kinds])
        )
        for name, kinds in parts
    ]
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: record)
    check_placement(session, "NPU", LoadOptions(cpu_fallback=True))
    with pytest.raises(StartError) as refused:
        check_placement(session, "NPU", LoadOptions())
    assert refused.value.reason is Reason.PROVIDER_MISMATCH
    words = "NPU computes only 2 of the model's 5 operations, the CPU would compute 2 Where, 1 Loop"
    assert words in refused.value.message


def test_the_cpu_takes_no_options(models: ModelMaker, tmp_path: Path) -> None:
    path = models.dense(tmp_path / "dense.onnx")
    refused = refusal("ONNX", path, provider_options={"device_id": "1"})
    assert "CPUExecutionProvider has no options, and device_id was given" in refused.message


# -- weights beside an ONNX model ----------------------------------------------------------------------------


def save_external(
    path: Path, location: str, *, where: str = "initializer", entries: dict[str, str] | None = None
) -> Path:
    """A model y = x + w whose w is in a file of its own, kept at ``where`` in the graph."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **(entries or {})}.items():
        weights.external_data.add(key=key, value=value)
    value = helper.make_tensor_value_info
    nodes, initializers = [helper.make_node("Add", ["x", "w"], ["y"])], [weights]
    if where == "constant":
        nodes.insert(0, onnx.NodeProto(op_type="Constant", output=["w"], attribute=[
            onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=weights)]))  # fmt: skip
        initializers = []
    elif where == "subgraph":
        inner = helper.make_graph(nodes, "inner", [], [value("y", TensorProto.FLOAT, [4])], initializers)
        yes = numpy_helper.from_array(np.array(True), "yes")
        nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)]
        initializers = [yes]
    graph = helper.make_graph(
        nodes,
        "graph",
        [value("x", TensorProto.FLOAT, [4])],
        [value("y", TensorProto.FLOAT, [4])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


WEIGHTS = np.array([1, 2, 3, 4], "<f4")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_weights_of_the_models_own_folder_are_read(tmp_path: Path, runtime: str) -> None:
    path = save_external(tmp_path / "model.onnx", "deep/w.bin")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "w.bin").write_bytes(WEIGHTS.tobytes())
    model = load_model("ONNX", path, LoadOptions(runtime=runtime))
    assert model.run({"x": np.zeros(4, np.float32)}, ["y"])[0].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("where", ["initializer", "constant", "subgraph"])
@pytest.mark.parametrize(
    "location",
    ["../secret", "/etc/hostname", "link", "folder/secret", "a/../../secret", "*/_ORT_MEM_ADDR_/*", ""],
)
def test_weights_from_elsewhere_are_refused(tmp_path: Path, runtime: str, where: str, location: str) -> None:
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    folder = tmp_path / "model"
    path = save_external(
        folder / "model.onnx", location, where=where, entries={"offset": "0", "length": "16"}
    )
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    (folder / "a").mkdir()
    refused = refusal("ONNX", path, runtime=runtime)
    assert refused.reason is Reason.LOAD_FAILED
    assert f'takes weights from "{location}", which' in refused.message


@pytest.mark.parametrize("location", ["w.bin", "../secret", "/etc/hostname"])
def test_litert_reads_no_weights_from_other_files(tmp_path: Path, location: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "w.bin").write_bytes(b"\0" * 64)
    (tmp_path / "secret").write_bytes(b"\0" * 64)
    path = tflite_models.save_external(tmp_path / "model" / "model.tflite", location)
    model = load_model("TFLite", path, LoadOptions())
    with pytest.raises(RuntimeError, match="lacks data"):  # so it fails its warm-up, and is not served
        model.run({"x": np.zeros((1, 4), np.float32)}, ["y"])


# -- files that are no models --------------------------------------------------------------------------------


def write_models(folder: Path, models: ModelMaker) -> dict[str, Path]:
    return {
        "ONNX": models.dense(folder / "model.onnx"),
        "TFLite": tflite_models.save_dense(folder / "model.tflite"),
        "OpenVINO": openvino_models.save_dense(folder / "model.xml"),
    }


@pytest.mark.parametrize("model_format", sorted(FORMAT_SUFFIXES))
def test_damaged_files_are_refused(models: ModelMaker, tmp_path: Path, model_format: str) -> None:
    path = write_models(tmp_path, models)[model_format]
    content = path.read_bytes()
    for damaged in (b"", content[:3], content[: len(content) // 2], b"\0" * 64, b"not a model" * 9):
        path.write_bytes(damaged)
        refused = refusal(model_format, path)
        assert refused.reason is Reason.LOAD_FAILED
        assert str(path) in refused.message
    path.write_bytes(content)
    load_model(model_format, path, LoadOptions())


def test_an_ir_without_its_weights_is_refused(tmp_path: Path) -> None:
    path = openvino_models.save_dense(tmp_path / "model.xml")
    path.with_suffix(".bin").write_bytes(b"\0" * 8)
    assert refusal("OpenVINO", path).reason is Reason.LOAD_FAILED
    path.with_suffix(".bin").unlink()
    assert refusal("OpenVINO", path).reason is Reason.LOAD_FAILED


def test_claims_of_gigabytes_are_refused(tmp_path: Path) -> None:
    huge = 1 << 31
    onnx_path = save_external(tmp_path / "model.onnx", "w.bin", entries={"offset": "0", "length": str(huge)})
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    for runtime in ("onnxruntime", "openvino"):
        assert refusal("ONNX", onnx_path, runtime=runtime).reason is Reason.LOAD_FAILED
    inline = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[huge // 4], raw_data=b"\0" * 16)
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "graph", [], [value], [inline])
    onnx_path.write_bytes(helper.make_model(graph, ir_version=8).SerializeToString())
    for runtime in ("onnxruntime", "openvino"):
        assert refusal("ONNX", onnx_path, runtime=runtime).reason is Reason.LOAD_FAILED
    ir = openvino_models.save_dense(tmp_path / "ir.xml")
    ir.write_text(ir.read_text().replace('size="48"', f'size="{huge}"').replace("4, 3", f"{huge // 12}, 3"))
    assert refusal("OpenVINO", ir).reason is Reason.LOAD_FAILED
    tflite = tflite_models.save_dense(tmp_path / "model.tflite")
    content = tflite.read_bytes()
    weights = (np.arange(12, dtype=np.float32).reshape(3, 4) / 7 - 0.5).tobytes()
    start = content.index(weights) - 4  # the length of a FlatBuffer's vector stands before it
    tflite.write_bytes(content[:start] + huge.to_bytes(4, "little") + content[start + 4 :])
    assert refusal("TFLite", tflite).reason is Reason.LOAD_FAILED


def test_operations_of_ones_own_are_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Secret", ["x"], ["y"], domain="com.example")], "graph",
        [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())
    for runtime in ("onnxruntime", "openvino"):
        refused = refusal("ONNX", path, runtime=runtime)
        assert refused.reason is Reason.LOAD_FAILED
        assert "Secret" in refused.message
    tflite = tflite_models.save_custom(tmp_path / "model.tflite", "edgetpu-custom-op")
    assert "edgetpu-custom-op" in refusal("TFLite", tflite).message


def test_a_bad_model_does_not_take_the_others_down(
    models: ModelMaker, tmp_path: Path, start_server: StartServer
) -> None:
    good = write_models(tmp_path / "good", models)
    bad = write_models(tmp_path / "bad", models)
    arguments: list[object] = []
    for model_format, path in bad.items():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        arguments += [
            "--model",
            f"bad-{model_format}={path}",
            "--model",
            f"good-{model_format}={good[model_format]}",
        ]
    check = start_server("--check", *arguments, until=())
    assert check.wait() == 1
    passed = {line["model"] for line in check.log if line["event"] == "model passed"}
    failed = [line["message"] for line in check.log if line["event"] == "check failed"]
    assert passed == {f"good-{model_format}" for model_format in good}
    assert len(failed) == len(bad)
    assert all(any(str(path) in message for message in failed) for path in bad.values())
