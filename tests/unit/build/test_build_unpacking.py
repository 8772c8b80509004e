"""Opening archives that nobody vouches for."""

from __future__ import annotations

import gzip
import io
import itertools
import resource
import subprocess
import tarfile
import tempfile
import time
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.build.archives import ArchiveLimits, InvalidArchive, extract_file
from edgemodel_operator.build.unpacking import HARMLESS_BYTES, MAX_FILES, UnpackLimits, unpack
from support.archives import make_tar, make_zip, overlapping_zip, pack, special

MODEL = b"weights" * 1000
FILES = {"m/model.onnx": MODEL, "m/weights.data": b"\x01" * 4096, "README": b""}
KINDS = ("tar", "tar.gz", "tar.zst", "zip")
ROOMY = ArchiveLimits(1 << 20, 1 << 30, deadline=float("inf"))
LIMITS = UnpackLimits(1 << 20, 1 << 22, deadline=float("inf"), what="archive")


def open_bytes(folder: Path, content: bytes, limits: UnpackLimits = LIMITS) -> dict[str, bytes]:
    """Open an archive and read everything that came out; hold against what was told."""
    (folder / "archive").write_bytes(content)
    paths = unpack(folder / "archive", folder / "out", limits)
    found = {
        str(path.relative_to(folder / "out")): path.read_bytes()
        for path in (folder / "out").rglob("*")
        if path.is_file()
    }
    assert sorted(paths) == sorted(found)
    return found


def refusal(folder: Path, content: bytes, limits: UnpackLimits = LIMITS) -> str:
    """Fail to open an archive; nothing of it may be left."""
    with pytest.raises(InvalidArchive) as caught:
        open_bytes(folder, content, limits)
    assert {path.name for path in folder.iterdir()} == {"archive"}
    return str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_told_by_its_content(tmp_path: Path, kind: str) -> None:
    assert open_bytes(tmp_path, pack(FILES, kind)) == FILES


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, form: int) -> None:
    name = f"{'folder/' * 30}{'ünï' * 40}.onnx"
    assert open_bytes(tmp_path, make_tar((name, MODEL), form=form)) == {name: MODEL}


def test_a_zip_that_was_written_as_a_stream(tmp_path: Path) -> None:
    class Pipe(io.RawIOBase):
        written = b""

        @override
        def writable(self) -> bool:
            return True

        @override
        def write(self, data: Any, /) -> int:
            self.written += bytes(data)
            return len(data)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in FILES.items():
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(content)
    assert open_bytes(tmp_path, pipe.written) == FILES


def test_files_are_plain_whatever_their_headers_say(tmp_path: Path) -> None:
    header = special("run.onnx", tarfile.REGTYPE)
    header.mode, header.uid = 0o6777, 4711
    open_bytes(tmp_path, make_tar(header))
    assert (tmp_path / "out/run.onnx").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_what_may_be_run_stays_so_where_that_is_asked_for(tmp_path: Path, kind: str) -> None:
    with (tmp_path / "archive").open("wb") as file:
        if kind == "tar":
            header = special("tool", tarfile.REGTYPE)
            header.mode = 0o6711
            file.write(make_tar(header, ("text", b"")))
        else:
            with zipfile.ZipFile(file, "w") as archive:
                for name, mode in (("tool", 0o100700), ("text", 0o100644)):
                    entry = zipfile.ZipInfo(name)
                    entry.external_attr = mode << 16
                    archive.writestr(entry, b"")
    unpack(tmp_path / "archive", tmp_path / "out", LIMITS, keep_executable=True)
    modes = {path.name: path.stat().st_mode & 0o7111 for path in (tmp_path / "out").iterdir()}
    assert modes == {"tool": 0o111, "text": 0}


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device or the like"),
        (tarfile.BLKTYPE, "a device or the like"),
        (tarfile.FIFOTYPE, "a device or the like"),
        (b"Z", "a device or the like"),
    ],
)
def test_a_tar_holds_nothing_but_files_and_folders(tmp_path: Path, kind: bytes, what: str) -> None:
    archive = make_tar(("model.onnx", MODEL), special("trick", kind, "/etc/passwd"))
    assert f"'trick', which is {what}" in refusal(tmp_path, archive)


@pytest.mark.parametrize(
    ("mode", "what"), [(0o120777, "a symbolic link"), (0o020666, "a device"), (0o140777, "a device")]
)
def test_a_zip_holds_nothing_but_files_and_folders(tmp_path: Path, mode: int, what: str) -> None:
    assert f"'trick', which is {what}" in refusal(tmp_path, make_zip(("trick", b"/etc/passwd"), mode=mode))


BAD_NAMES = [
    "/etc/cron.d/x",
    "../x.onnx",
    "m/../../x.onnx",
    "m/./x.onnx",
    "m//x.onnx",
    "C:\\x.onnx",
    "..\\x.onnx",
    "e\u0301.onnx",  # not composed
    "x\n.onnx",
    "x\u202exnno.onnx",  # reads backwards
    "m/.wh.model.onnx",
    "x" * 256,
    "/".join(["folder"] * 200),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_are_no_plain_paths(tmp_path: Path, name: str, kind: str) -> None:
    assert "name that is" in refusal(tmp_path, pack({"model.onnx": MODEL, name: b"x"}, kind))


def test_a_name_that_ends_early_for_some_readers(tmp_path: Path) -> None:
    nul = make_zip(("model.onnx-evil", MODEL)).replace(b"model.onnx-evil", b"model.onnx\0evil")
    assert "name that is refused" in refusal(tmp_path, nul)


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("model.onnx", "Model.ONNX"),
        ("m/a.onnx", "M/b.onnx"),
        ("straße.onnx", "STRASSE.onnx"),
        ("\ufb01ne.onnx", "fine.onnx"),
        ("m", "m/model.onnx"),
        ("m/model.onnx", "m"),
        ("\u212b.onnx", "Å.onnx"),
    ],
)
def test_names_that_are_one_for_some_file_systems(tmp_path: Path, kind: str, first: str, second: str) -> None:
    said = refusal(tmp_path, pack({first: b"1", second: b"2"}, kind))
    assert "take for one" in said or "twice" in said or "refused" in said


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice(tmp_path: Path, kind: str) -> None:
    members = (("model.onnx", b"1"), ("model.onnx", b"2"))
    archive = make_tar(*members) if kind == "tar" else make_zip(*members)
    assert refusal(tmp_path, archive) == "The archive holds 'model.onnx' twice."


def test_folders_may_come_more_than_once(tmp_path: Path) -> None:
    folder = special("m", tarfile.DIRTYPE)
    root = special("./", tarfile.DIRTYPE)
    archive = make_tar(root, folder, ("./m/a.onnx", b"1"), folder, ("m/b.onnx", b"2"))
    assert open_bytes(tmp_path, archive) == {"m/a.onnx": b"1", "m/b.onnx": b"2"}
    (tmp_path / "zipped").mkdir()
    zipped = make_zip(("m/", b""), ("m/a.onnx", b"1"))
    assert open_bytes(tmp_path / "zipped", zipped) == {"m/a.onnx": b"1"}


def test_what_a_mac_adds_is_left_out(tmp_path: Path) -> None:
    added = {"__MACOSX/._model.onnx": b"x", "._model.onnx": b"x", "m/.DS_Store": b"x"}
    assert open_bytes(tmp_path, pack({"model.onnx": MODEL, **added}, "zip")) == {"model.onnx": MODEL}


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_too_many_files(tmp_path: Path, kind: str) -> None:
    files = {f"{number}.data": b"" for number in range(MAX_FILES + 1)}
    assert f"more than {MAX_FILES} files" in refusal(tmp_path, pack(files, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_beyond_the_cap(tmp_path: Path, kind: str) -> None:
    said = refusal(tmp_path, pack(FILES, kind), replace(LIMITS, max_file_bytes=6999))
    assert "'m/model.onnx' in the archive has 7000 bytes; the limit is 6999" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_stops_at_its_budget(tmp_path: Path, kind: str) -> None:
    files = {f"{number}.data": bytes(1 << 20) for number in range(5)}
    assert "unpacks to more than 4194304 bytes" in refusal(tmp_path, pack(files, kind))


def test_the_budget_grows_with_the_archive_but_small_ones_are_free(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.write_bytes(bytes(1000))
    assert UnpackLimits.of(archive, 1 << 40, 0.0).max_expanded_bytes == HARMLESS_BYTES
    assert UnpackLimits.of(archive, 5000, 0.0).max_expanded_bytes == 5000
    archive.write_bytes(bytes(10_000_000))
    assert UnpackLimits.of(archive, 1 << 40, 0.0).max_expanded_bytes == 200_000_000


def test_single_files_may_compress_to_almost_nothing(tmp_path: Path) -> None:
    content = {"zeros.data": bytes(1 << 20)}
    for kind in ("zip", "tar.gz", "tar.zst"):
        folder = tmp_path / kind
        folder.mkdir()
        packed = pack(content, kind)
        assert len(packed) < (1 << 20) / 200
        assert open_bytes(folder, packed) == content


def test_zip_entries_that_share_their_bytes(tmp_path: Path) -> None:
    archive = overlapping_zip(100, 1 << 20)
    assert len(archive) < 10_000
    assert "share their bytes" in refusal(tmp_path, archive)
    (tmp_path / "single").mkdir()
    assert open_bytes(tmp_path / "single", overlapping_zip(1, 1000)) == {"zeros": bytes(1000)}


@pytest.mark.parametrize("promised", [10, 6999, 7001, 0xFFFFFFF0])
def test_a_size_that_lies(tmp_path: Path, promised: int) -> None:
    honest, lie = (7000).to_bytes(4, "little"), promised.to_bytes(4, "little")
    archive = make_zip(("model.onnx", MODEL)).replace(honest, lie)
    said = refusal(tmp_path, archive)
    assert "archive" in said


def test_an_encrypted_zip(tmp_path: Path) -> None:
    said = refusal(tmp_path, make_zip(("model.onnx", MODEL), flags=1))
    assert said == "The file 'model.onnx' in the archive is encrypted: pack it without a password."


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions(tmp_path: Path, method: int) -> None:
    assert "pack it with deflate" in refusal(tmp_path, make_zip(("model.onnx", MODEL), method=method))


@pytest.mark.parametrize(
    ("start", "name"),
    [(b"\xfd7zXZ\x00", "xz"), (b"BZh9", "bzip2"), (b"7z\xbc\xaf\x27\x1c", "7-Zip"), (b"Rar!", "RAR")],
)
def test_other_archives_are_called_by_their_names(tmp_path: Path, start: bytes, name: str) -> None:
    said = refusal(tmp_path, start + bytes(100))
    assert said == f"The archive is {name}: pack it as tar, tar.gz, tar.zst or zip."


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive at all" * 100,
        gzip.compress(MODEL),
        zstandard.compress(MODEL),
        make_zip(),
        make_tar(),
        make_tar(special("m", tarfile.DIRTYPE)),
        make_zip(("model.onnx", MODEL)) + b"PK\x05\x06" + bytes(18),
    ],
    ids=["empty", "text", "gzip of a file", "zstd of a file", "empty zip", "empty tar", "folder", "two ends"],
)
def test_what_holds_no_files(tmp_path: Path, content: bytes) -> None:
    refusal(tmp_path, content)


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_that_breaks_off_anywhere(tmp_path: Path, kind: str) -> None:
    whole = pack(FILES, kind)
    # What follows the end mark of a plain tar is padding.
    needed = whole.rstrip(b"\0") if kind == "tar" else whole
    for number, length in enumerate(range(0, len(needed), max(1, len(needed) // 50))):
        folder = tmp_path / str(number)
        folder.mkdir()
        refusal(folder, whole[:length])


def test_a_tar_that_is_cut_between_files_is_no_shorter_tar(tmp_path: Path) -> None:
    whole = make_tar(("a.onnx", bytes(512)), ("b.data", bytes(512)))
    assert refusal(tmp_path, whole[:1024]) == "The archive breaks off: it has no end mark."
    garbled = whole[:1024] + b"\xff" * 512 + whole[1536:]
    assert "breaks off" in refusal(tmp_path, garbled)


def test_a_damaged_checksum_at_the_end_counts(tmp_path: Path) -> None:
    damaged = bytearray(gzip.compress(make_tar(("model.onnx", MODEL))))
    damaged[-8] ^= 1
    assert "no archive that can be read" in refusal(tmp_path, bytes(damaged))


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_of_gigabytes_are_not_read_into_memory(tmp_path: Path, kind: bytes) -> None:
    header = special("long", kind)
    header.size = 1 << 26
    archive = gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 26))
    tracemalloc.start()
    try:
        said = refusal(tmp_path, archive, replace(LIMITS, max_expanded_bytes=1 << 30))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "A header in the archive has 67108864 bytes" in said
    assert peak < 8 << 20


@pytest.mark.parametrize("form", ["gnu", "oldgnu", "posix"])
@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_sparse_files(tmp_path: Path, form: str, version: str) -> None:
    with (tmp_path / "model.onnx").open("wb") as file:
        file.write(b"head")
        file.seek(1 << 20)
        file.write(b"tail")
    made = subprocess.run(
        ["tar", f"--format={form}", "--sparse", f"--sparse-version={version}", "-cf", "-", "model.onnx"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert len(made.stdout) < 1 << 16
    (tmp_path / "in").mkdir()
    assert "which is a sparse file" in refusal(tmp_path / "in", made.stdout)


def test_millions_of_entries_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "layer").write_bytes(make_tar(*((f"{number}.txt", b"") for number in range(20_000))))
    tracemalloc.start()
    try:
        assert extract_file(tmp_path / "layer", lambda name: False, tmp_path / "out", ROOMY) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_global_headers_without_end(tmp_path: Path) -> None:
    one = tarfile.TarInfo.create_pax_global_header
    blocks = b"".join(
        one({f"key{number}": "x"}) + make_tar((f"{number}", b""))[:512] for number in range(1001)
    )
    assert "too many global headers" in refusal(tmp_path, blocks, replace(LIMITS, max_files=10_000))


def test_long_names_that_name_long_names_end(tmp_path: Path) -> None:
    header = special("long", tarfile.GNUTYPE_LONGNAME)
    header.size = 4
    link = header.tobuf(tarfile.GNU_FORMAT) + b"name" + bytes(508)
    assert "can be read" in refusal(tmp_path, link * 3000)


def test_a_table_of_contents_of_megabytes_is_not_read(tmp_path: Path) -> None:
    files = tuple((f"{number:04}-{'x' * 200}.data", b"") for number in range(5000))
    assert "table of contents" in refusal(tmp_path, make_zip(*files))


@pytest.mark.parametrize("kind", KINDS)
def test_time_runs_out(tmp_path: Path, kind: str) -> None:
    assert "too long" in refusal(tmp_path, pack(FILES, kind), replace(LIMITS, deadline=time.monotonic() - 1))


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(pack({"model.onnx": bytes(1 << 20)}, "tar"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            unpack(tmp_path / "archive", tmp_path / "out", LIMITS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in tmp_path.iterdir()} == {"archive"}


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6),
    min_size=1,
    max_size=3,
).map("/".join)
PARTS = st.sampled_from(
    ["a", "A", "b.onnx", "..", ".", "", "m", "M", "\ufb01", "fi", "é", "e\u0301", "/", "\\"]
)
TRICKY = st.lists(PARTS, min_size=1, max_size=4).map("/".join).filter(bool)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES | TRICKY, st.binary(max_size=40), min_size=1, max_size=5), st.sampled_from(KINDS)
)
def test_what_is_opened_is_what_was_packed_and_stays_inside(files: dict[str, bytes], kind: str) -> None:
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "inner"
        folder.mkdir()
        try:
            archive = pack(files, kind)
        except ValueError:
            return  # no packer writes such a name
        try:
            found = open_bytes(folder, archive)
        except InvalidArchive:
            assert {path.name for path in folder.iterdir()} == {"archive"}
        else:
            assert set(found.values()) <= set(files.values())
            folded = [name.casefold() for name in found]
            assert len(folded) == len(set(folded))
        assert {path.name for path in Path(outer).iterdir()} == {"inner"}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(KINDS), st.data())
def test_damage_is_refused_or_harmless(kind: str, data: st.DataObject) -> None:
    archive = bytearray(pack(FILES, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        archive[data.draw(st.integers(0, len(archive) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "inner"
        folder.mkdir()
        try:
            found = open_bytes(folder, bytes(archive))
        except InvalidArchive:
            found = {}
        assert sum(map(len, found.values())) <= LIMITS.max_expanded_bytes
        assert {path.name for path in Path(outer).iterdir()} == {"inner"}


def test_the_order_is_that_of_the_archive(tmp_path: Path) -> None:
    for number, order in enumerate(itertools.permutations(["a", "b", "c"])):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "archive").write_bytes(make_tar(*((name, b"") for name in order)))
        assert unpack(folder / "archive", folder / "out", LIMITS) == order
