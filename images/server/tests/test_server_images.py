"""Pictures sent to a running server: right answers, and a sentence for everything else."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from drawing import decode, draw, encode, expect_input
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from serving import ModelMaker, Reply, ServerProcess, StartServer

LABELS = ["tabby", "colon: cat", "Löwe", "lynx"]
RESNET: dict[str, Any] = {
    "resize": {"mode": "ShorterSide", "size": 64},
    "crop": {"width": 56, "height": 56},
    "scale": 1 / 255,
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "classification": {"labels": LABELS, "softmax": True, "top": 3},
}
BOXES: dict[str, Any] = {
    "resize": {"mode": "Letterbox", "width": 16, "height": 16},
    "layout": "NHWC",
    "color": "BGR",
}


def make_classifier(models: ModelMaker, path: Path) -> Path:
    """x: FP32 [n, 3, 56, 56] -> y: FP32 [n, 4], the logits of one convolution and one dense layer."""
    random = np.random.default_rng(5)
    value = helper.make_tensor_value_info
    return models.save(
        path,
        [
            helper.make_node("Conv", ["x", "kernel"], ["c"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("MatMul", ["f", "dense"], ["y"]),
        ],
        [value("x", TensorProto.FLOAT, ["n", 3, 56, 56])],
        [value("y", TensorProto.FLOAT, ["n", 4])],
        [
            numpy_helper.from_array(random.normal(0, 0.1, (2, 3, 8, 8)).astype(np.float32), "kernel"),
            numpy_helper.from_array(random.normal(0, 0.3, (98, 4)).astype(np.float32), "dense"),
        ],
    )


def make_folders(models: ModelMaker, root: Path) -> Iterator[Path]:
    yield models.write_manifest(
        make_classifier(models, root / "cats" / "model.onnx").parent, "cats", preprocessing=RESNET
    )
    frames = models.identity(root / "frames" / "model.onnx", "FP32", [1, 16, 16, 3]).parent
    yield models.write_manifest(frames, "frames", preprocessing=BOXES)
    yield models.write_manifest(models.dense(root / "dense" / "model.onnx").parent, "dense")


@pytest.fixture(scope="module")
def server(
    models: ModelMaker, tmp_path_factory: pytest.TempPathFactory, module_servers: StartServer
) -> ServerProcess:
    folders = make_folders(models, tmp_path_factory.mktemp("pictures"))
    arguments = [argument for folder in folders for argument in ("--model", folder)]
    server = module_servers(*arguments, "--max-picture-pixels", 1_000_000, "--access-log", "all", until=())
    while server.ask("GET", "/v2/health/ready").status != 200:
        assert not [line for line in server.log if line["event"] == "model not ready"]
        time.sleep(0.05)
    return server


def send(server: ServerProcess, body: bytes, kind: str, model: str = "cats", query: str = "") -> Reply:
    return server.ask("POST", f"/v2/models/{model}/infer{query}", body, Content_Type=kind)


def scores_of(models: ModelMaker, image: Image.Image, folder: Path) -> NDArray[np.float32]:
    """Give what ONNX Runtime computes for a picture."""
    session = onnxruntime.InferenceSession(make_classifier(models, folder / "model.onnx"))
    (scores,) = session.run(None, {"x": expect_input(image, RESNET)})
    return np.asarray(scores)


def expect_classes(scores: NDArray[np.float32], top: int) -> list[str]:
    odds = np.exp(scores[0].astype(np.float64))
    odds /= odds.sum()
    ranked = sorted(range(4), key=lambda index: -odds[index])[:top]
    return [f"{odds[index]:.6f}:{index}:{LABELS[index]}" for index in ranked]


def test_a_jpeg_is_classified(server: ServerProcess, models: ModelMaker, tmp_path: Path) -> None:
    body = encode(draw(100, 75, seed=3), "JPEG")
    scores = scores_of(models, decode(body), tmp_path)
    reply = send(server, body, "image/jpeg")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json == {
        "model_name": "cats",
        "model_version": "7",
        "parameters": {
            "picture_width": 100,
            "picture_height": 75,
            "scale_x": 85 / 100,
            "scale_y": 64 / 75,
            "offset_x": -14,
            "offset_y": -4,
        },
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [1, 3], "data": expect_classes(scores, 3)}],
    }


def test_the_query_says_how_many_classes(server: ServerProcess, models: ModelMaker, tmp_path: Path) -> None:
    image = draw(60, 90, seed=4)
    scores = scores_of(models, image, tmp_path)
    body = encode(image, "PNG")
    for top in (1, 4):
        (output,) = send(server, body, "image/png", query=f"?top={top}").json["outputs"]
        assert output["data"] == expect_classes(scores, top)
        assert output["shape"] == [1, top]
    assert send(server, body, "image/png", query="?top=1000").json["outputs"][0]["shape"] == [1, 4]
    for query in ("?top=0", "?output=y", "?top=0&output=y"):
        (output,) = send(server, body, "image/png", query=query).json["outputs"]
        assert (output["datatype"], output["shape"]) == ("FP32", [1, 4])
        np.testing.assert_array_equal(np.float32(output["data"]), scores[0])


def test_a_detector_gets_its_frame_and_the_client_the_way_back(server: ServerProcess) -> None:
    image = draw(40, 20)
    reply = send(server, encode(image, "PNG"), "image/png", "frames", "?binary_data_output=true")
    length = int(reply.headers["inference-header-content-length"])
    want = expect_input(image, BOXES)
    assert reply.body[length:] == want.tobytes()
    parameters = json.loads(reply.body[:length])["parameters"]
    assert (parameters["scale_x"], parameters["offset_x"], parameters["offset_y"]) == (0.4, 0, 4)


def test_classes_may_be_binary(server: ServerProcess) -> None:
    body = encode(draw(64, 64), "JPEG")
    (output,) = send(server, body, "image/jpeg").json["outputs"]
    reply = send(server, body, "image/jpeg", query="?binary_data_output=true")
    tail = reply.body[int(reply.headers["inference-header-content-length"]) :]
    texts = [text.encode() for text in output["data"]]
    assert tail == b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def test_a_frame_of_a_camera(server: ServerProcess) -> None:
    image = draw(33, 21)
    frame = np.asarray(image)[:, :, ::-1].tobytes()
    kind = "image/x-raw; width=33; height=21; format=BGR"
    reply = send(server, frame, kind, "frames")
    got = np.float32(reply.json["outputs"][0]["data"]).reshape(1, 16, 16, 3)
    np.testing.assert_array_equal(got, expect_input(image, BOXES))


def test_pictures_and_tensors_take_turns_on_one_connection(server: ServerProcess) -> None:
    body = encode(draw(64, 64), "JPEG")
    tensor = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 56, 56], "data": [0] * 9408}]}
    ).encode()
    head = (
        "POST /v2/models/cats/infer{} HTTP/1.1\r\nHost: t\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
    )
    picture = head.format("?top=2", "Image/JPEG", len(body)).encode() + body
    tensors = head.format("", "application/json", len(tensor)).encode() + tensor
    shapes = []
    with server.wire() as wire:
        for message in (picture, tensors, picture, picture, tensors + picture):
            wire.send(message)
            shapes.append(wire.read().json["outputs"][0]["shape"])
        shapes.append(wire.read().json["outputs"][0]["shape"])
    assert shapes == [[1, 2], [1, 4], [1, 2], [1, 2], [1, 4], [1, 2]]


@pytest.mark.parametrize(
    ("model", "kind", "query", "status", "sentence"),
    [
        ("dense", "image/png", "", 415, "send tensors, or add preprocessing to the manifest"),
        ("cats", "image/webp", "", 415, "is not supported: send image/jpeg, image/png, or raw pixels"),
        ("cats", "image/jpeg", "", 400, "the body is no JPEG: it is a PNG: say so in Content-Type"),
        ("cats", "image/x-raw; width=2", "", 400, "needs height"),
        ("cats", "image/png", "?top=-1", 400, "top must be a whole number from 0 to 1000"),
        ("cats", "image/png", "?top=", 400, "top must be a whole number"),
        ("cats", "image/png", "?top=1&top=2", 400, "gives top twice"),
        ("cats", "image/png", "?k=3", 400, "no parameter 'k' here, only top, output, binary_data_output"),
        ("cats", "image/png", "?output=z", 400, 'the model has no output "z", only "y"'),
        ("cats", "image/png", "?output=y&output=y", 400, "gives output twice"),
        ("cats", "image/png", "?top=1&output=y", 400, "give only one of them"),
        ("cats", "image/png", "?binary_data_output=1", 400, "must be true or false"),
        ("frames", "image/png", "?top=1", 400, "declares no classification"),
        ("cats", "image/x-raw; width=1001; height=1000", "", 413, "this server takes 1000000"),
        ("none", "image/png", "", 404, "there is no model"),
    ],
)
def test_refusals(
    server: ServerProcess, model: str, kind: str, query: str, status: int, sentence: str
) -> None:
    reply = send(server, encode(draw(20, 20), "PNG"), kind, model, query)
    assert reply.status == status
    assert sentence in reply.json["error"]


def test_a_picture_that_does_not_say_what_it_is(server: ServerProcess) -> None:
    for file_format in ("JPEG", "PNG"):
        reply = send(server, encode(draw(20, 20), file_format), "application/x-www-form-urlencoded")
        assert reply.status == 400
        want = f"the request is not valid JSON, but a {file_format}: send it as image/{file_format.lower()}"
        assert reply.json["error"] == want


def test_pictures_are_counted(server: ServerProcess) -> None:
    series = 'edgemodel_server_inference_requests_total{{model="cats",result="{}"}}'
    names = [series.format(result) for result in ("ok", "refused")]
    before = [server.metric(name) for name in names]
    body = encode(draw(20, 20), "PNG")
    for kind in ("image/png", "image/jpeg", "image/webp", "image/x-raw; width=9999; height=9999"):
        send(server, body, kind)
    assert [server.metric(name) for name in names] == [before[0] + 1, before[1] + 3]


def test_odd_metadata_leaves_the_log_alone(server: ServerProcess) -> None:
    body = encode(draw(20, 20), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + b"\xff" * 41)
    assert send(server, body, "image/jpeg").status == 200
    line = find_line(server, len(body))
    assert line["model"] == "cats"
    assert line["queue_seconds"] + line["compute_seconds"] <= line["seconds"]
    assert {line["event"] for line in server.log} == {"listening", "model ready", "request"}


def find_line(server: ServerProcess, size: int) -> dict[str, Any]:
    """Wait for the line in the log about a request with a body of that size."""

    def fits(line: dict[str, Any]) -> bool:
        return line["event"] == "request" and line["bytes_in"] == size

    with server._news:
        server._news.wait_for(lambda: any(map(fits, server.log)), timeout=60)
        return next(filter(fits, server.log))


def test_a_server_of_tensors_loads_no_library_for_pictures(models: ModelMaker, tmp_path: Path) -> None:
    plain = models.write_manifest(models.dense(tmp_path / "dense" / "model.onnx").parent, "dense")
    pictures = next(make_folders(models, tmp_path))
    program = (
        "import sys; from pathlib import Path\n"
        "import edgemodel_server.serve\n"
        "from edgemodel_server.manifest import read_source\n"
        "from edgemodel_server.startup import Checks, prepare\n"
        "for folder in sys.argv[1:]:\n"
        "    prepare(read_source(Path(folder)), Checks())\n"
        "    print('PIL' in sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, plain, pictures], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "True"]


def test_the_time_that_pictures_take_is_measured(server: ServerProcess) -> None:
    series = "edgemodel_server_picture_duration_seconds_count"
    before = server.metric(series)
    send(server, encode(draw(20, 20), "PNG"), "image/png")
    assert server.metric(series) == before + 1
    assert server.metric("edgemodel_server_pictures_waiting") == 0
