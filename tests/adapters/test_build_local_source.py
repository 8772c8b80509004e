"""Sources that the caller brings along: volumes, with all the traps of a file system, and ConfigMaps."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from edgemodel_operator.api.source import (
    Archive,
    ConfigMapFile,
    ConfigMapSource,
    PvcFile,
    PvcSource,
    Source,
)
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.volume import open_beneath
from edgemodel_operator.build.sources.wanted import Want
from support.archives import pack
from support.build import sha256

MODEL = b"weights" * 1000
ONNX = Want((".onnx",), (".data",), beside=True)
ALLOWED = Allowance(AddressPolicy(), 1 << 20, total_seconds=60)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "exports/7").mkdir(parents=True)
    (folder / "exports/7/model.onnx").write_bytes(MODEL)
    (folder / "exports/7/w.data").write_bytes(b"tensors")
    return folder


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def pvc(path: str, **changes: object) -> PvcSource:
    return PvcSource.model_validate({"claim_name": "models", "path": path, **changes})


async def fetch(
    source: Source, work: Path, access: SourceAccess, allowance: Allowance = ALLOWED
) -> FetchedSource:
    return await fetch_source(source, ONNX, work, allowance, access)


async def failure_of(
    source: Source, work: Path, access: SourceAccess, allowance: Allowance = ALLOWED
) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(source, work, access, allowance)
    assert caught.value.failure.message.endswith(".")
    return caught.value.failure


async def test_files_of_a_volume(volume: Path, work: Path) -> None:
    told: list[tuple[int, int | None]] = []
    allowance = replace(ALLOWED, on_bytes=lambda done, total: told.append((done, total)))
    weights = PvcFile(path="exports/7/w.data", sha256=sha256(b"tensors"))
    source = Source(pvc=pvc("exports/7/model.onnx", weights=weights))
    fetched = await fetch(source, work, SourceAccess(volume=volume), allowance)
    assert [(file.name, file.sha256) for file in fetched.files] == [
        ("model.onnx", sha256(MODEL)),
        ("w.data", sha256(b"tensors")),
    ]
    assert told == [(7000, 7000), (7007, 7007)]
    (volume / "exports/7/model.onnx").write_bytes(b"written meanwhile")
    assert fetched.files[0].path.read_bytes() == MODEL


async def test_an_archive_of_a_volume(volume: Path, work: Path) -> None:
    (volume / "m.tar.zst").write_bytes(pack({"m/model.onnx": MODEL}, "tar.zst"))
    source = Source(pvc=pvc("m.tar.zst"), archive=Archive())
    fetched = await fetch(source, work, SourceAccess(volume=volume))
    assert [file.name for file in fetched.files] == ["model.onnx"]
    assert (volume / "m.tar.zst").exists()


async def test_a_volume_that_is_not_mounted(work: Path) -> None:
    failure = await failure_of(Source(pvc=pvc("m.onnx")), work, SourceAccess())
    assert failure.reason is Reason.SOURCE_INVALID
    assert "The volume models is not mounted here" in failure.message


@pytest.mark.parametrize(
    ("path", "reason", "words"),
    [
        ("missing.onnx", Reason.SOURCE_NOT_FOUND, "missing.onnx does not exist in the volume"),
        ("nowhere/model.onnx", Reason.SOURCE_NOT_FOUND, "nowhere/model.onnx does not exist"),
        ("exports/7", Reason.SOURCE_INVALID, "is no file, but a folder"),
        ("exports/7/model.onnx/x", Reason.SOURCE_INVALID, "at 'model.onnx': name the file itself"),
        ("pipe", Reason.SOURCE_INVALID, "is no file"),
        ("link.onnx", Reason.SOURCE_INVALID, "leads through a link"),
        ("outside.onnx", Reason.SOURCE_INVALID, "leads through a link"),
        ("folder/model.onnx", Reason.SOURCE_INVALID, "at 'folder'"),
        ("up/secret.onnx", Reason.SOURCE_INVALID, "at 'up'"),
    ],
)
async def test_paths_that_lead_to_no_file_of_the_volume(
    volume: Path, work: Path, path: str, reason: Reason, words: str
) -> None:
    (volume.parent / "secret.onnx").write_bytes(b"secret")
    os.mkfifo(volume / "pipe")
    (volume / "link.onnx").symlink_to("exports/7/model.onnx")
    (volume / "outside.onnx").symlink_to("../secret.onnx")
    (volume / "folder").symlink_to("exports/7")
    (volume / "up").symlink_to("..")
    failure = await failure_of(Source(pvc=pvc(path)), work, SourceAccess(volume=volume))
    assert failure.reason is reason
    assert words in failure.message
    assert not any(work.iterdir())


@pytest.mark.parametrize(
    "path", ["../secret.onnx", "exports/../../secret.onnx", "/etc/passwd", "exports//x", ""]
)
def test_the_opening_itself_goes_nowhere_else(volume: Path, path: str) -> None:
    # The type refuses such paths; this is the second door.
    (volume.parent / "secret.onnx").write_bytes(b"secret")
    with pytest.raises(BuildError, match="is no plain path"):
        open_beneath(volume, path)


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(volume: Path) -> None:
    (volume.parent / "outside").mkdir()
    (volume.parent / "outside/model.onnx").write_bytes(b"secret")
    (volume / "swap").mkdir()
    (volume / "swap/model.onnx").write_bytes(MODEL)
    (volume / "link").symlink_to("../outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (volume / "swap").rename(volume / "aside")
            (volume / "link").rename(volume / "swap")
            (volume / "swap").rename(volume / "link")
            (volume / "aside").rename(volume / "swap")

    swapping = threading.Thread(target=swap)
    swapping.start()
    opened = 0
    try:
        while opened < 200:
            try:
                descriptor = open_beneath(volume, "swap/model.onnx")
            except BuildError:
                continue
            with os.fdopen(descriptor, "rb") as file:
                assert file.read() == MODEL
            opened += 1
    finally:
        stop.set()
        swapping.join()


async def test_a_file_that_is_written_to_while_it_is_read(volume: Path, work: Path) -> None:
    model = volume / "exports/7/model.onnx"

    def write_more(done: int, total: int | None) -> None:
        os.utime(model, ns=(1, 1))  # half of the old bytes and half of the new ones may have the old length

    source = Source(pvc=pvc("exports/7/model.onnx"))
    failure = await failure_of(
        source, work, SourceAccess(volume=volume), replace(ALLOWED, on_bytes=write_more)
    )
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_UNAVAILABLE, True)
    assert "was written to while it was read" in failure.message


async def test_a_large_file_of_a_volume_is_refused_unread(volume: Path, work: Path) -> None:
    source = Source(pvc=pvc("exports/7/model.onnx"))
    failure = await failure_of(source, work, SourceAccess(volume=volume), replace(ALLOWED, max_bytes=6999))
    assert failure.reason is Reason.SOURCE_TOO_LARGE
    assert not any(work.iterdir())


async def test_another_file_than_pinned(volume: Path, work: Path) -> None:
    source = Source(pvc=pvc("exports/7/model.onnx", sha256="0" * 64))
    failure = await failure_of(source, work, SourceAccess(volume=volume))
    assert failure.reason is Reason.SOURCE_DIGEST_MISMATCH


async def test_entries_of_a_config_map(work: Path) -> None:
    access = SourceAccess(config_map={"model.onnx": MODEL, "w.data": b"tensors", "readme": b"-"})
    weights = ConfigMapFile(key="w.data")
    source = Source(config_map=ConfigMapSource(name="tiny", key="model.onnx", weights=weights))
    fetched = await fetch(source, work, access)
    assert [(file.name, file.path.read_bytes()) for file in fetched.files] == [
        ("model.onnx", MODEL),
        ("w.data", b"tensors"),
    ]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({}, "it has: none at all"),
        ({"b": b"", "a": b""}, "The ConfigMap tiny has no entry m.onnx; it has: a, b."),
    ],
)
async def test_an_entry_that_is_missing(work: Path, entries: dict[str, bytes], words: str) -> None:
    source = Source(config_map=ConfigMapSource(name="tiny", key="m.onnx"))
    failure = await failure_of(source, work, SourceAccess(config_map=entries))
    assert failure.reason is Reason.SOURCE_NOT_FOUND
    assert words in failure.message
