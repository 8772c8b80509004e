"""Taking one file out of archives that nobody vouches for."""

from __future__ import annotations

import gzip
import io
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from edgemodel_operator.build.archives import ArchiveLimits, InvalidArchive, extract_file

MODEL = b"weights" * 1000


def make_tar(*members: tuple[str, bytes] | tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            header = tarfile.TarInfo(member[0])
            header.size = len(member[1])
            tar.addfile(header, io.BytesIO(member[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    return header


def extract(
    folder: Path, archive: bytes, path: str = "models/m.onnx", *, file: int = 1 << 20, expanded: int = 1 << 22
) -> tuple[list[str], bytes | None]:
    (folder / "archive").write_bytes(archive)
    target = folder / "out"
    limits = ArchiveLimits(file, expanded, time.monotonic() + 60)
    found = extract_file(folder / "archive", lambda name: name == path, target, limits)
    return found, target.read_bytes() if target.exists() else None


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress], ids=["tar", "gzip", "zstd"])
def test_the_file_is_found_in_every_compression(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    archive = pack(make_tar(("etc/passwd", b"x"), ("./models/m.onnx", MODEL), ("z", b"z")))
    assert extract(tmp_path, archive) == (["models/m.onnx"], MODEL)


def test_the_last_entry_of_a_name_counts(tmp_path: Path) -> None:
    archive = make_tar(("models/m.onnx", b"old and longer"), ("/models/m.onnx", b"new"))
    assert extract(tmp_path, archive) == (["models/m.onnx"], b"new")


@pytest.mark.parametrize(
    "trick",
    [
        link("models/m.onnx", "/etc/passwd"),
        link("models/m.onnx", "etc/passwd", tarfile.LNKTYPE),
        link("models/m.onnx", "", tarfile.CHRTYPE),
        link("models/m.onnx", "", tarfile.FIFOTYPE),
        link("models/m.onnx", "", tarfile.GNUTYPE_SPARSE),
        link("models/../models/m.onnx", ""),
    ],
    ids=["symbolic link", "hard link", "device", "fifo", "sparse", "parent"],
)
def test_only_plain_files_count(tmp_path: Path, trick: tarfile.TarInfo) -> None:
    try:
        found = extract(tmp_path, make_tar(("etc/passwd", b"root"), trick))
    except InvalidArchive:
        found = [], None  # a malformed sparse header may as well break the archive
    assert found == ([], None)


def test_a_bomb_stops_at_its_budget(tmp_path: Path) -> None:
    bomb = zstandard.compress(make_tar(("filler", bytes(8 << 20)), ("models/m.onnx", MODEL)))
    assert len(bomb) < 10_000
    with pytest.raises(InvalidArchive, match="unpacks to more than 4194304 bytes"):
        extract(tmp_path, bomb)


def test_a_file_beyond_the_cap_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidArchive, match="has 7000 bytes; the limit is 6999"):
        extract(tmp_path, make_tar(("models/m.onnx", MODEL)), file=6999)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"no archive at all" * 100,
        gzip.compress(MODEL)[:20],
        zstandard.compress(make_tar(("models/m.onnx", MODEL)))[:-10],
        b"\x28\xb5\x2f\xfd\xff\xff\xff\xff",
        make_tar(("models/m.onnx", MODEL))[:2000],
    ],
    ids=["empty", "text", "cut gzip", "cut zstd", "bad zstd", "cut tar"],
)
def test_a_broken_archive_is_refused(tmp_path: Path, archive: bytes) -> None:
    with pytest.raises(InvalidArchive):
        extract(tmp_path, archive)


def test_a_deadline_that_has_passed_ends_the_search(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(make_tar(("models/m.onnx", MODEL)))
    with pytest.raises(InvalidArchive, match="too long"):
        extract_file(
            tmp_path / "archive", lambda name: True, tmp_path / "out", ArchiveLimits(1 << 20, 1 << 22, 0.0)
        )
