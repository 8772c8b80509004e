"""Pictures for quantized TFLite models: the integers that LiteRT is given, and its scores told as numbers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema  # type: ignore[import-untyped, unused-ignore]
from ai_edge_litert.interpreter import Interpreter  # type: ignore[import-untyped, unused-ignore]
from drawing import decode, draw, encode, expect_input
from serving import ModelMaker, ServerProcess, StartServer
from tflite_models import KINDS, TfliteMaker

SIDE = 16
COLORS = ("red", "green", "blue")
ZERO_POINTS = {"UINT8": 0, "INT8": -128}
DTYPES = {"UINT8": np.uint8, "INT8": np.int8}


def declare(datatype: str) -> dict[str, Any]:
    quantization = {"scale": 1 / 255, "zeroPoint": ZERO_POINTS[datatype]}
    return {
        "resize": {"mode": "Stretch", "width": SIDE, "height": SIDE},
        "layout": "NHWC",
        "scale": 1 / 255,
        "quantization": quantization,
        "classification": {"labels": [*COLORS], "top": 3, "quantization": quantization},
    }


def make_color_meter(path: Path, datatype: str) -> Path:
    """x: [1, 16, 16, 3] -> y: [1, 1, 1, 3], the mean of each colour, from 0 to 1, both quantized."""
    maker = TfliteMaker()
    graph = maker.graph()
    x = graph.tensor("x", KINDS[datatype], [1, SIDE, SIDE, 3])
    y = graph.tensor("y", KINDS[datatype], [1, 1, 1, 3])
    for tensor in (x, y):
        graph.quantize(tensor, 1 / 255, ZERO_POINTS[datatype])
    options = schema.Pool2DOptionsT()
    options.padding = schema.Padding.VALID
    options.strideW = options.strideH = options.filterWidth = options.filterHeight = SIDE
    graph.operate(schema.BuiltinOperator.AVERAGE_POOL_2D, [x], [y], options)
    graph.part.inputs, graph.part.outputs = [x], [y]
    maker.sign({"x": x}, {"y": y})
    return maker.save(path)


@pytest.fixture(scope="module")
def root(models: ModelMaker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("colors")
    for datatype in ZERO_POINTS:
        folder = make_color_meter(root / datatype / "model.tflite", datatype).parent
        models.write_manifest(folder, datatype, format="TFLite", preprocessing=declare(datatype))
    return root


@pytest.fixture(scope="module")
def server(root: Path, module_servers: StartServer) -> ServerProcess:
    server = module_servers("--model-root", root)
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert server.process.poll() is None
    return server


@pytest.mark.parametrize("datatype", list(ZERO_POINTS))
def test_the_color_of_a_photo(root: Path, server: ServerProcess, datatype: str) -> None:
    body = encode(draw(48, 36, seed=11), "JPEG")
    interpreter = Interpreter(str(root / datatype / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    pixels = expect_input(decode(body), declare(datatype), DTYPES[datatype])
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    scores = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    path = f"/v2/models/{datatype}/infer"
    tensors = server.ask("POST", path + "?top=0", body, Content_Type="image/jpeg").json["outputs"]
    assert tensors == [
        {"name": "y", "datatype": datatype, "shape": [1, 1, 1, 3], "data": scores.ravel().tolist()}
    ]
    (classes,) = server.ask("POST", path, body, Content_Type="image/jpeg").json["outputs"]
    shares = (scores.ravel().astype(int) - ZERO_POINTS[datatype]) / 255
    ranked = np.argsort(-shares, kind="stable")
    assert classes["data"] == [f"{shares[index]:.6f}:{index}:{COLORS[index]}" for index in ranked]
