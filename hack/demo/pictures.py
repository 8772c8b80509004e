"""Pictures for the classifier: lines of text, drawn upright and upside down, and the tensors made of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

HEIGHT, WIDTH = 48, 192
INPUT, OUTPUT = "x", "save_infer_model/scale_0.tmp_1"
LINES = ("Batch 4711", "Keep upright", "Line 7 ready", "Lot 2026-11")
UPRIGHT, TURNED = 0, 1
Pixels = NDArray[np.float32]


@dataclass(frozen=True)
class Picture:
    """One picture and which way up it is."""

    text: str
    orientation: int
    pixels: Pixels
    """Shape [1, 3, 48, 192], values from -1 to 1."""


def draw_pictures() -> tuple[Picture, ...]:
    """Draw every line upright and upside down."""
    pictures = []
    for text in LINES:
        image = _draw(text)
        pictures.append(Picture(text, UPRIGHT, _pixels(image)))
        pictures.append(Picture(text, TURNED, _pixels(image.rotate(180))))
    return tuple(pictures)


def _draw(text: str) -> Image.Image:
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    font = ImageFont.load_default(size=30)
    box = font.getbbox(text)
    place = ((WIDTH - (box[2] - box[0])) / 2 - box[0], (HEIGHT - (box[3] - box[1])) / 2 - box[1])
    ImageDraw.Draw(image).text(place, text, fill="black", font=font)
    return image


def _pixels(image: Image.Image) -> Pixels:
    """Scale to -1 … 1, to two decimals: JSON stays small, and every node gets the very same input."""
    values = (np.asarray(image, dtype=np.float32) / 255 - 0.5) / 0.5
    return np.round(values.transpose(2, 0, 1)[None], 2).astype(np.float32)


def binary_request(picture: Picture) -> tuple[bytes, dict[str, str]]:
    """Give body and headers of an inference request with the tensor in binary form."""
    raw = picture.pixels.tobytes()
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": INPUT,
                    "shape": list(picture.pixels.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(raw)},
                }
            ]
        }
    ).encode()
    return head + raw, {
        "Inference-Header-Content-Length": str(len(head)),
        "Content-Type": "application/octet-stream",
    }


def json_request(pictures: tuple[Picture, ...]) -> bytes:
    """Give the body of an inference request for a batch, in JSON."""
    return json.dumps(
        {"inputs": [_tensor(INPUT, np.concatenate([item.pixels for item in pictures]))]}
    ).encode()


def golden_sample(model: Path, pictures: tuple[Picture, ...]) -> str:
    """Make the golden sample of a model: a batch, and what the reference runtime answers to it."""
    batch = np.concatenate([item.pixels for item in pictures])
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (answer,) = session.run([OUTPUT], {INPUT: batch})
    document = {"inputs": [_tensor(INPUT, batch)], "outputs": [_tensor(OUTPUT, np.round(answer, 6))]}
    return json.dumps(document, separators=(",", ":"))


def _tensor(name: str, values: NDArray[np.float32]) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(values.shape),
        "datatype": "FP32",
        "data": [float(f"{value:.6g}") for value in values.ravel()],
    }


def orientation_of(answer: bytes) -> tuple[int, list[float]]:
    """Read which way up the first picture of an answer is, and the scores."""
    scores = json.loads(answer)["outputs"][0]["data"]
    first = [float(value) for value in scores[:2]]
    return int(np.argmax(first)), first
