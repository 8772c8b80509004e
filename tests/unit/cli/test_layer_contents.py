"""What a layer holds, told from its first bytes."""

from __future__ import annotations

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemodel_operator.cli.layer_contents import first_files, summarize
from edgemodel_operator.oci.compression import GZIP, ZSTD, Compressor
from edgemodel_operator.oci.descriptor import OCI_LAYER_TAR, OCI_LAYER_ZSTD
from edgemodel_operator.oci.layer import File, write_layer

NOISE = random.Random(1).randbytes(2_000_000)  # compresses to itself, so that the cut is in the middle of it


def layer(compressor: Compressor, *files: File) -> bytes:
    out = io.BytesIO()
    write_layer(files, out, compressor=compressor)
    return out.getvalue()


@pytest.mark.parametrize("compressor", [ZSTD, GZIP])
def test_the_first_bytes_name_the_first_files(compressor: Compressor) -> None:
    files = [File("models/line/manifest.json", b"{}"), File("models/line/model.onnx", NOISE)]
    blob = layer(compressor, *files, File("models/line/tail.bin", b"x"))
    assert first_files(blob[: 256 * 1024], compressor.media_type) == (
        "models/line/manifest.json",
        "models/line/model.onnx",
    )


def test_a_whole_small_layer_names_all_its_files() -> None:
    blob = layer(ZSTD, *(File(f"etc/{number}", b"x") for number in range(5)))
    assert len(first_files(blob, ZSTD.media_type)) == 5


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from([OCI_LAYER_TAR, OCI_LAYER_ZSTD, GZIP.media_type, "other"]))
def test_any_bytes_are_read_without_an_error(start: bytes, media_type: str) -> None:
    assert all(isinstance(name, str) for name in first_files(start, media_type))


@settings(deadline=None)
@given(st.integers(0, 2000), st.binary(min_size=1, max_size=20))
def test_a_damaged_layer_is_read_without_an_error(place: int, damage: bytes) -> None:
    blob = bytearray(layer(ZSTD, File("models/line/model.onnx", NOISE[:1000])))
    blob[place : place + len(damage)] = damage
    first_files(bytes(blob), OCI_LAYER_ZSTD)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["models/line/manifest.json", "models/line/model.onnx"], "model: manifest.json, model.onnx"),
        (["models/line/s1.bin"], "weights: s1.bin"),
        (["etc/passwd", "usr/bin/python3", "usr/bin/ls"], "etc, usr/bin"),
        (["usr/local/lib/python3.11/dist-packages/numpy/a.py"], "usr/local/lib/python3.11/dist-packages"),
        (["a/1", "b/1", "c/1", "d/1", "e/1"], "a, b, c, d, …"),
        (["models/line/model.onnx", "etc/passwd"], "models/line, etc"),
        ([], ""),
    ],
)
def test_a_few_words_say_where_files_lie(files: list[str], text: str) -> None:
    assert summarize(files) == text
