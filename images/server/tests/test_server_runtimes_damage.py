"""Damaged files by the hundred, for the runtimes that load a file without a trial in another process."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import openvino_models
import pytest
from serving import ModelMaker

FILES = int(os.environ.get("DAMAGED_FILES", "150"))

PROGRAM = """
import os, sys
from contextlib import suppress
from pathlib import Path
import numpy as np
from edgemodel_server.errors import StartError
from edgemodel_server.runtimes import LoadOptions, load_model

runtime, model_format = sys.argv[1:3]
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
for line in sys.stdin:
    try:
        model = load_model(model_format, Path(line.rstrip("\\n")), LoadOptions(runtime=runtime))
    except StartError as refused:
        print(refused.reason, flush=True)
        continue
    with suppress(Exception):
        model.run({"x": np.zeros((1, 4), np.float32)}, list(model.signature.outputs))
    print("loaded", flush=True)
"""


def damage(random: Random, content: bytes) -> bytes:
    """Cut a file off, flip some of its bits, or put numbers into it that are likely to be too large."""
    kind = random.random()
    if kind < 0.2:
        return content[: random.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4, 16))):
        place = random.randrange(len(content) - 4)
        if kind < 0.8:
            changed[place] ^= 1 << random.randrange(8)
        else:
            number = random.choice((b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff\xff\xff\xff", b"9999"))
            changed[place : place + 4] = number
    return bytes(changed)


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("onnxruntime", "model.onnx"), ("openvino", "model.onnx"), ("openvino", "model.xml")],
)
def test_no_damage_ends_the_process(models: ModelMaker, tmp_path: Path, runtime: str, name: str) -> None:
    path = tmp_path / name
    sound = (openvino_models.save_dense(path) if path.suffix == ".xml" else models.dense(path)).read_bytes()
    random = Random(7)
    files = [tmp_path / f"{number}{path.suffix}" for number in range(FILES)]
    for file in files:
        file.write_bytes(damage(random, sound))
        if path.suffix == ".xml":
            file.with_suffix(".bin").hardlink_to(path.with_suffix(".bin"))
    model_format = "OpenVINO" if path.suffix == ".xml" else "ONNX"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, runtime, model_format],
        input="".join(f"{file}\n" for file in files),
        capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    outcomes = done.stdout.split()
    assert done.returncode == 0, f"{files[len(outcomes)]} ended the process with {done.returncode}"
    assert Counter(outcomes).total() == FILES
    assert set(outcomes) == {"LoadFailed", "loaded"}
