"""Layers: the same bytes everywhere, nothing in them that hurts when unpacked."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tracemalloc
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.oci.compression import GZIP, ZSTD, Compressor
from edgemodel_operator.oci.layer import (
    Directory,
    Entry,
    File,
    InvalidEntry,
    Layer,
    Link,
    arrange,
    check_path,
    write_layer,
)

names = st.from_regex(r"[a-z0-9_.äé-]{1,9}", fullmatch=True).filter(
    lambda name: name not in {".", ".."} and not name.startswith(".wh.")
)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
files = st.dictionaries(paths, st.binary(max_size=300), min_size=1, max_size=8)


def _write(entries: list[Entry]) -> tuple[Layer, bytes]:
    out = io.BytesIO()
    return write_layer(entries, out), out.getvalue()


def _untar(blob: bytes) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(blob)))


@given(files, st.randoms())
def test_the_order_of_entries_does_not_matter(contents: dict[str, bytes], random: object) -> None:
    entries: list[Entry] = [File(path, content) for path, content in contents.items()]
    try:
        arrange(entries)
    except InvalidEntry:
        return  # one drawn name is a folder of another
    shuffled = entries.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    layer, blob = _write(entries)
    assert _write(shuffled) == (layer, blob)
    with _untar(blob) as archive:
        found = {m.name: archive.extractfile(m).read() for m in archive if m.isfile()}  # type: ignore[union-attr]
    assert found == contents


def test_the_descriptor_tells_the_truth_about_blob_and_tar() -> None:
    layer, blob = _write([File("a/b", b"x" * 100_000)])
    assert layer.descriptor.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert layer.descriptor.size == len(blob)
    tar = zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    assert layer.diff_id == f"sha256:{hashlib.sha256(tar).hexdigest()}"


def test_headers_hold_nothing_of_this_machine(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(b"weights")
    source.chmod(0o600)
    os.utime(source, (1, 1))
    entries: list[Entry] = [
        File("models/m/model.onnx", source),
        File("bin/run", b"", executable=True),
        Link("lib", "usr/lib"),
        Directory("tmp", 0o1777),
    ]
    with _untar(_write(entries)[1]) as archive:
        members = {member.name: member for member in archive}
    assert list(members) == ["bin", "bin/run", "lib", "models", "models/m", "models/m/model.onnx", "tmp"]
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members.values()} == {(0, 0, "", "", 0)}
    modes = {name: member.mode for name, member in members.items()}
    assert modes["models/m/model.onnx"] == 0o644
    assert modes["bin/run"] == modes["models"] == 0o755
    assert modes["tmp"] == 0o1777
    assert members["lib"].linkname == "usr/lib"


_PROGRAM = """
import io, sys
from edgemodel_operator.oci.compression import GZIP, ZSTD
from edgemodel_operator.oci.layer import File, Link, write_layer
entries = [File(f"models/ä{n % 7}/f{n}", bytes([n]) * n * 1000) for n in range(1, 60)]
entries.append(Link("models/" + "long" * 40, "f1"))
for compressor in (GZIP, ZSTD):
    print(write_layer(set(entries), io.BytesIO(), compressor=compressor))
"""


def test_two_processes_in_different_surroundings_write_the_same_layer(tmp_path: Path) -> None:
    surroundings = [
        {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONHASHSEED": "1", "HOME": "/nonexistent"},
        {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "2", "HOME": str(tmp_path), "USER": "x"},
    ]
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            umask=umask,
            cwd=tmp_path,
            capture_output=True,
            check=True,
        ).stdout
        for environment, umask in zip(surroundings, (0o077, 0o000), strict=True)
    ]
    assert outputs[0] == outputs[1]
    assert b"sha256:" in outputs[0]


KNOWN = {
    "zstd-3/libzstd-1.5.7": "sha256:5ce267f7aaeddd2b4590248a2ad286d2c564f16f284cb745fc897e1031de391a",
    "gzip-6/zlib-1.2.13": "sha256:eee48b5279ce5232f50d71358dc7f5e3dc0dc655b64410bcdb21d330b3e0ae53",
}


@pytest.mark.parametrize("compressor", [ZSTD, GZIP], ids=lambda compressor: compressor.id)
def test_a_known_layer_keeps_its_digest(compressor: Compressor) -> None:
    """If this fails the bytes of all layers have changed: give the compressor a new name or undo it."""
    entries: list[Entry] = [File("models/m/model.onnx", b"weights"), Link("latest", "models/m")]
    layer = write_layer(entries, io.BytesIO(), compressor=compressor)
    assert layer.diff_id == "sha256:e0a85e7d651e1c264f3779c62ed1accf379e0efe66a0d7c99dc1256ff8ba4c89"
    assert layer.descriptor.media_type == compressor.media_type
    assert layer.descriptor.digest == KNOWN.get(compressor.id, layer.descriptor.digest)


class _Discard(io.RawIOBase):
    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: object) -> int:
        return len(data)  # type: ignore[arg-type]


def test_a_large_model_never_sits_in_memory(tmp_path: Path) -> None:
    source = tmp_path / "model"
    with source.open("wb") as out:
        out.truncate(64 * 1024 * 1024)
    sink: BinaryIO = io.BufferedWriter(_Discard())
    tracemalloc.start()
    try:
        write_layer([File("models/m/model.onnx", source)], sink)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "./a",
        "a/..",
        "../a",
        "a/.wh.b",
        ".wh..wh..opq",
        "a\0b",
        "a\nb",
        "a\\b",
        "a\u0308",
    ],
)
def test_dangerous_names_are_refused(path: str) -> None:
    with pytest.raises(InvalidEntry):
        check_path(path)


@pytest.mark.parametrize(
    "entries",
    [
        [File("a", b""), File("a", b"")],
        [File("a", b""), File("a/b", b"")],
        [Link("a", "/etc"), File("a/b", b"")],
    ],
)
def test_entries_in_each_other_s_way_are_refused_before_writing(entries: list[Entry]) -> None:
    out = io.BytesIO()
    with pytest.raises(InvalidEntry):
        write_layer(entries, out)
    assert out.getvalue() == b""
