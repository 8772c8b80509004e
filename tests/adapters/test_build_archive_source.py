"""Archives behind a URL, disks that are full, and time that runs out: the whole way of a source."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgemodel_operator.api.source import Archive, HttpSource, Source
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.wanted import Want
from edgemodel_operator.oci.transport import RetryPolicy
from support.archives import overlapping_zip, pack
from support.build import LOOPBACK, SourceServer, hang, sha256, source_server

MODEL = b"weights" * 1000
ONNX = Want((".onnx",), (".data",), beside=True)
IR = Want((".xml",), (".bin",), same_stem=True)
SAVED_MODEL = Want(("saved_model.pb",), beside=True)
QUICK = RetryPolicy(attempts=2, first_pause=0.001, longest_pause=0.002)
ALLOWED = Allowance(AddressPolicy.parse(allowed=LOOPBACK), 1 << 24, total_seconds=60, retry=QUICK)


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        yield server


async def fetch(
    url: str, folder: Path, want: Want, archive: Archive | None, allowance: Allowance = ALLOWED
) -> FetchedSource:
    source = Source(http=HttpSource(url=url, insecure=True), archive=archive)
    return await fetch_source(source, want, folder, allowance, SourceAccess())


async def failure_of(
    url: str, folder: Path, archive: Archive | None, allowance: Allowance = ALLOWED
) -> BuildFailure:
    with pytest.raises(BuildError) as caught:
        await fetch(url, folder, ONNX, archive, allowance)
    assert caught.value.failure.message.endswith(".")
    return caught.value.failure


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "zip"])
async def test_a_model_with_external_data_in_an_archive(
    server: SourceServer, tmp_path: Path, kind: str
) -> None:
    packed = pack({"line/model.onnx": MODEL, "line/w/part.data": b"tensors", "README": b"-"}, kind)
    fetched = await fetch(server.serve(packed), tmp_path, ONNX, Archive())
    assert [(file.name, file.sha256) for file in fetched.files] == [
        ("model.onnx", sha256(MODEL)),
        ("w/part.data", sha256(b"tensors")),
    ]
    assert (fetched.files[0].path.parent / "w/part.data").read_bytes() == b"tensors"
    assert [file.sha256 for file in fetched.fetched] == [sha256(packed)]
    assert [path.name for path in tmp_path.iterdir()] == ["source"]  # the archive itself has gone


async def test_an_ir_in_an_archive(server: SourceServer, tmp_path: Path) -> None:
    url = server.serve(pack({"a/m.xml": b"<net/>", "a/m.bin": MODEL, "b/n.xml": b"<net/>"}, "zip"))
    fetched = await fetch(url, tmp_path, IR, Archive(path="a/m.xml"))
    assert [file.name for file in fetched.files] == ["m.xml", "m.bin"]


async def test_a_saved_model_in_an_archive(server: SourceServer, tmp_path: Path) -> None:
    files = {"7/saved_model.pb": MODEL, "7/variables/variables.index": b"i", "6/saved_model.pb": b"old"}
    fetched = await fetch(server.serve(pack(files, "tar.gz")), tmp_path, SAVED_MODEL, Archive(path="7"))
    assert [file.name for file in fetched.files] == ["saved_model.pb", "variables/variables.index"]
    assert fetched.files[0].path.read_bytes() == MODEL


@pytest.mark.parametrize(
    ("packed", "path", "words"),
    [
        (pack({"a.onnx": b"1", "b.onnx": b"2"}, "zip"), "", "(a.onnx, b.onnx): name one by `archive.path`"),
        (pack({"notes.txt": b""}, "tar"), "", "There is no .onnx file in it; it holds notes.txt."),
        (pack({"a.onnx": b"1"}, "tar"), "b", "There is no .onnx file in 'b'"),
        (b"no archive" * 100, "", "no archive that can be read"),
        (overlapping_zip(500, 1 << 20), "", "share their bytes"),
        (pack({f"{n}.onnx": bytes(9 << 20) for n in "ab"}, "tar.zst"), "", "unpacks to more than"),
        (pack({"../m.onnx": b"1"}, "tar"), "", "is not a plain relative path"),
    ],
    ids=["several", "none", "folder", "garbage", "overlaps", "bomb", "parent"],
)
async def test_archives_that_are_refused(
    server: SourceServer, tmp_path: Path, packed: bytes, path: str, words: str
) -> None:
    failure = await failure_of(server.serve(packed), tmp_path, Archive(path=path))
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_INVALID, False)
    assert words in failure.message


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Let the kernel refuse to make any file longer than `limit` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_fills_up_while_downloading(server: SourceServer, tmp_path: Path) -> None:
    url = server.serve(bytes(1 << 20))
    with small_files(1 << 16):
        failure = await failure_of(url, tmp_path, None)
    assert (failure.reason, failure.retryable) == (Reason.NO_SPACE, True)


async def test_a_device_without_space(server: SourceServer, tmp_path: Path) -> None:
    (tmp_path / "fetched-model").symlink_to("/dev/full")
    failure = await failure_of(server.serve(bytes(1 << 20)), tmp_path, None)
    assert failure.reason is Reason.NO_SPACE


async def test_a_disk_that_fills_up_while_unpacking(server: SourceServer, tmp_path: Path) -> None:
    url = server.serve(pack({"m.onnx": bytes(1 << 20)}, "zip"))
    with small_files(1 << 16):
        failure = await failure_of(url, tmp_path, Archive())
    assert failure.reason is Reason.NO_SPACE
    assert [path.name for path in tmp_path.iterdir()] == ["fetched-model"]


async def test_time_runs_out(server: SourceServer, tmp_path: Path) -> None:
    failure = await failure_of(server.answer(hang), tmp_path, None, replace(ALLOWED, total_seconds=0.2))
    assert (failure.reason, failure.retryable) == (Reason.SOURCE_TIMEOUT, True)
