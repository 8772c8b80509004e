"""The inspection of model files in its own process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport, ModelTensor, OperatorSet
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.asking import Asked, Program
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.inspection import inspect_model
from support.build import make_onnx, parse_onnx
from support.formats import make_files

NAMES = {
    ModelFormat.ONNX: ("model.onnx", "weights.bin"),
    ModelFormat.TFLITE: ("model.tflite",),
    ModelFormat.OPENVINO: ("ir/model.xml", "ir/model.bin"),
}
MIB = 1024 * 1024
MEASURE = """
import asyncio, json, resource, sys
from pathlib import Path
from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.inspection import inspect_model
files = [ModelFile.model_validate(file) for file in json.loads(sys.argv[2])]
asyncio.run(inspect_model(ModelFormat.ONNX, Path(sys.argv[1]), files))
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
"""
"""Prints how much memory an inspection took (bytes). A small program: what a process holds when it starts
another one counts for both."""
TRY = """
import os, signal, socket, subprocess, sys
from pathlib import Path
from edgemodel_operator.build.inspect import __main__ as program
from edgemodel_operator.build.inspect.objection import Objection
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"
def misbehave(*_):
    actions = (socket.socket, lambda: subprocess.run(["true"]), lambda: Path(sys.argv[2]).write_bytes(b"x"))
    raise Objection(" ".join(attempt(action) for action in actions))
program.inspect_files = misbehave
program.main(sys.argv[1:2])
"""


async def inspect(folder: Path, model_format: ModelFormat, contents: Sequence[bytes]) -> ModelReport:
    """Inspect a model of these files, of which only the first is on disk."""
    skeleton = folder / "skeleton"
    skeleton.write_bytes(contents[0])
    named = zip(NAMES[model_format], contents, strict=False)
    files = [ModelFile(name=name, sha256="", size=len(content)) for name, content in named]
    return await inspect_model(model_format, skeleton, files)


@pytest.mark.parametrize(
    ("model_format", "batch", "sets", "operators"),
    [
        (ModelFormat.ONNX, "N", (OperatorSet(domain="ai.onnx", version=17),), ("MatMul",)),
        (ModelFormat.TFLITE, "-1", (), ("FULLY_CONNECTED@1",)),
        (
            ModelFormat.OPENVINO,
            "-1",
            (OperatorSet(domain="opset", version=1),),
            ("Const@1", "MatMul@1", "Parameter@1", "Result@1"),
        ),
    ],
)
async def test_every_format_is_reported(
    tmp_path: Path,
    model_format: ModelFormat,
    batch: str,
    sets: tuple[OperatorSet, ...],
    operators: tuple[str, ...],
) -> None:
    contents = make_files(model_format, 16)
    assert await inspect(tmp_path, model_format, contents) == ModelReport(
        inputs=(ModelTensor(name="x", datatype="FP32", shape=(batch, "16")),),
        outputs=(ModelTensor(name="y", datatype="FP32", shape=(batch, "16")),),
        operator_sets=sets,
        operators=operators,
        parameters=256,
        size_bytes=sum(map(len, contents)),
        estimated_memory_bytes=256 * 4 + 2 * 16 * 4,
    )


@pytest.mark.parametrize("model_format", ModelFormat)
async def test_a_file_of_another_format_is_refused(tmp_path: Path, model_format: ModelFormat) -> None:
    for other in ModelFormat:
        if other is not model_format:
            with pytest.raises(BuildError, match=f"no {model_format} model that can be served. It is not a"):
                await inspect(tmp_path, model_format, (make_files(other, 16)[0], b""))


def external(location: str, length: int) -> bytes:
    model = parse_onnx(make_onnx(16))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
    content: bytes = model.SerializeToString()
    return content


async def test_weights_may_lie_in_a_file_of_the_model_that_is_never_read(tmp_path: Path) -> None:
    contents = (external("weights.bin", 1024), bytes(1024))
    report = await inspect(tmp_path, ModelFormat.ONNX, contents)
    assert (report.parameters, report.size_bytes) == (256, sum(map(len, contents)))


async def test_names_of_weights_are_relative_to_the_main_file(tmp_path: Path) -> None:
    skeleton = tmp_path / "skeleton"
    skeleton.write_bytes(external("data/w.bin", 1024))
    main = ModelFile(name="line/3/model.onnx", sha256="", size=1)
    there = ModelFile(name="line/3/data/w.bin", sha256="", size=1024)
    assert (await inspect_model(ModelFormat.ONNX, skeleton, (main, there))).size_bytes == 1025
    for name in ("data/w.bin", "line/data/w.bin"):
        elsewhere = there.model_copy(update={"name": name})
        with pytest.raises(BuildError, match="which is not there"):
            await inspect_model(ModelFormat.ONNX, skeleton, (main, elsewhere))


WIDTH, LAYERS = 2048, 64
LAYER_BYTES = WIDTH * WIDTH * 4


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, list[ModelFile]]:
    """64 layers of 16 MiB each in eight files: what a model of a GiB looks like without its weights."""
    tensors = []
    for number in range(LAYERS):
        tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[WIDTH, WIDTH])
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": f"s{number % 8}.bin", "offset": number // 8 * LAYER_BYTES, "length": LAYER_BYTES}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        tensors.append(tensor)
    graph = helper.make_graph(
        [helper.make_node("MatMul", [f"h{n}", f"w{n}"], [f"h{n + 1}"]) for n in range(LAYERS)],
        "large",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, ["N", WIDTH])],
        [helper.make_tensor_value_info(f"h{LAYERS}", TensorProto.FLOAT, ["N", WIDTH])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "skeleton").write_bytes(model.SerializeToString())
    files = [ModelFile(name="model.onnx", sha256="", size=9000)]
    files += [ModelFile(name=f"s{number}.bin", sha256="", size=8 * LAYER_BYTES) for number in range(8)]
    return tmp_path / "skeleton", files


async def test_a_gibibyte_of_weights_is_counted(large: tuple[Path, list[ModelFile]]) -> None:
    report = await inspect_model(ModelFormat.ONNX, *large)
    assert report.parameters == 256 * MIB
    assert report.estimated_memory_bytes == 1024 * MIB + 2 * WIDTH * 4


def test_a_gibibyte_of_weights_costs_no_memory(large: tuple[Path, list[ModelFile]]) -> None:
    skeleton, files = large
    program = [sys.executable, "-c", MEASURE, str(skeleton), json.dumps([file.to_raw() for file in files])]
    measured = subprocess.run(program, check=True, capture_output=True, text=True)
    assert int(measured.stdout) < 160 * MIB


def constant_weights(tensor: Any) -> Any:
    model = parse_onnx(make_onnx())
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    return model


def initial_weights(tensor: Any) -> Any:
    model = parse_onnx(make_onnx())
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("holding", [initial_weights, constant_weights])
def test_weights_that_were_not_moved_cost_no_memory(tmp_path: Path, holding: Callable[[Any], Any]) -> None:
    skeleton = tmp_path / "skeleton"
    weights = numpy.zeros(25 * MIB, numpy.float32)
    skeleton.write_bytes(holding(numpy_helper.from_array(weights, "w")).SerializeToString())
    files = [ModelFile(name="model.onnx", sha256="", size=1)]
    program = [sys.executable, "-c", MEASURE, str(skeleton), json.dumps([file.to_raw() for file in files])]
    measured = subprocess.run(program, check=True, capture_output=True, text=True)
    assert int(measured.stdout) < 100 * MIB


def test_the_reader_has_no_network_and_writes_no_files(tmp_path: Path) -> None:
    """Put another reader in the place of the real one and let it try."""
    (tmp_path / "model").write_bytes(make_onnx())
    request = json.dumps({"format": "ONNX", "skeleton": str(tmp_path / "model"), "sizes": {}})
    program = [sys.executable, "-c", TRY, str(os.getpid()), str(tmp_path / "written")]
    tried = subprocess.run(program, input=request, check=True, capture_output=True, text=True)
    assert json.loads(tried.stdout)["message"] == "PermissionError PermissionError OSError"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not an ONNX file"),
        (b"<html><body>Please log in</body></html>", "not an ONNX file"),
        (bytes(range(256)) * 100, "not an ONNX file"),
        (make_onnx()[:-200], "not an ONNX file"),
        (b"\x0a" * 5_000_000, "not an ONNX file"),
        (external("../../etc/passwd", 1024), "no plain name of a file beside the model"),
        (external("weights.bin", 1024), "which is not there"),
        (make_onnx(opset=999), "operator set is 999"),
        (make_onnx(ir_version=99), "IR version is 99"),
    ],
    ids=["empty", "page", "noise", "cut", "tags", "outside", "missing", "opset", "ir"],
)
async def test_other_files_are_refused(tmp_path: Path, content: bytes, sentence: str) -> None:
    with pytest.raises(BuildError) as caught:
        await inspect(tmp_path, ModelFormat.ONNX, (content,))
    failure = caught.value.failure
    assert (failure.reason, failure.retryable) == (Reason.INVALID_MODEL, False)
    assert sentence in failure.message


async def test_a_link_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").symlink_to("/etc/hostname")
    with pytest.raises(BuildError, match="is a link or a folder"):
        await inspect_model(
            ModelFormat.ONNX, tmp_path / "model.onnx", [ModelFile(name="model.onnx", sha256="", size=1)]
        )


async def test_a_reader_that_ends_without_an_answer_is_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(make_onnx())
    (tmp_path / "model").chmod(0)
    request = {"format": "No such format", "skeleton": str(tmp_path / "model"), "sizes": {}}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "edgemodel_operator.build.inspect", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate(json.dumps(request).encode())
    assert (process.returncode, output) == (1, b"")


def many_nodes(count: int) -> bytes:
    """A graph that is large without any weight."""
    model = parse_onnx(make_onnx())
    node = helper.make_node("Identity", ["x" * 900], ["y" * 900])
    model.graph.node.extend([node] * count)
    return bytes(model.SerializeToString())


ANSWER = """
import sys
from pathlib import Path
from edgemodel_operator.build.inspect import __main__ as program
program.container_memory = lambda: int(sys.argv[2])
program.main(sys.argv[1:2])
"""


def test_a_graph_that_does_not_fit_into_the_container_says_what_to_raise(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(many_nodes(30_000))
    request = json.dumps({"format": "ONNX", "skeleton": str(tmp_path / "model"), "sizes": {}}).encode()
    program = [sys.executable, "-c", ANSWER, str(os.getpid())]

    def answer(memory: int) -> Any:
        command = [*program, str(memory)]
        return json.loads(subprocess.run(command, input=request, check=True, capture_output=True).stdout)

    answers = [answer(1024 * MIB), answer(8192 * MIB)]
    assert answers[0]["outOfMemory"]
    assert "more than 256 MiB" in answers[0]["message"]
    assert "`operator.resources.limits.memory`" in answers[0]["message"]
    assert answers[1]["ok"]


@pytest.mark.parametrize(
    ("asked", "reason", "retryable"),
    [
        (Asked(-9, b""), Reason.WORKER_DIED, True),
        (Asked(-11, b""), Reason.INVALID_MODEL, False),
        (Asked(0, b'{"ok": false, "outOfMemory": true, "message": "M."}'), Reason.OUT_OF_MEMORY, False),
    ],
    ids=["killed", "crashed", "out of memory"],
)
async def test_only_what_the_model_does_is_laid_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: Asked, reason: Reason, retryable: bool
) -> None:
    async def ask(program: Program, request: bytes) -> Asked:
        return asked

    monkeypatch.setattr(Program, "ask", ask)
    with pytest.raises(BuildError) as caught:
        await inspect(tmp_path, ModelFormat.ONNX, (make_onnx(),))
    assert (caught.value.failure.reason, caught.value.failure.retryable) == (reason, retryable)
