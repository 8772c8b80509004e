"""Taking over what a builder made: both of its formats, layers without chance, the contract, its log."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import zstandard

from edgemodel_operator.build.dockerfile.build_log import MAX_LINE, BuildLog
from edgemodel_operator.build.dockerfile.contract import broken_promises
from edgemodel_operator.build.dockerfile.foreign_layer import rewrite_layer
from edgemodel_operator.build.dockerfile.saved_image import open_saved_image
from edgemodel_operator.oci.compression import ZSTD
from edgemodel_operator.oci.descriptor import OCI_LAYER_TAR, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.image import InvalidImage, make_index, make_manifest
from edgemodel_operator.oci.layer import Layer
from support.images import AMD64

Entries = list[tuple[tarfile.TarInfo, bytes]]


def entry(name: str, content: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    for field, value in fields.items():
        setattr(header, field, value)
    return header, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for header, content in entries:
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def rewrite(content: bytes, diff_id: str = "", max_bytes: int = 1 << 20) -> tuple[Layer, bytes]:
    out = io.BytesIO()
    layer = rewrite_layer(
        io.BytesIO(content), diff_id or digest(content), out, compressor=ZSTD, max_bytes=max_bytes
    )
    return layer, out.getvalue()


def unpacked(blob: bytes) -> list[tarfile.TarInfo]:
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return archive.getmembers()


# --- layers ---


def test_times_and_names_of_owners_leave_no_trace() -> None:
    capability = {"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\udcff"}
    first = tar(
        entry("./opt", type=tarfile.DIRTYPE, mode=0o755, mtime=1, uname="a"),
        entry(
            "opt/x", b"x", mode=0o4750, uid=7, gid=8, mtime=2.5, pax_headers={"mtime": "2.5", **capability}
        ),
        entry("opt/y", type=tarfile.LNKTYPE, linkname="opt/x"),
        entry("opt/.wh.z"),
    )
    second = tar(
        entry("opt/", type=tarfile.DIRTYPE, mode=0o755, mtime=9, gname="b"),
        entry("opt/x", b"x", mode=0o4750, uid=7, gid=8, mtime=9, pax_headers={**capability, "atime": "3"}),
        entry("opt/y", type=tarfile.LNKTYPE, linkname="opt/x", mtime=4),
        entry("opt/.wh.z", mtime=1.25),
    )
    (layer, blob), (again, _) = rewrite(first), rewrite(second)
    assert layer == again
    folder, file, link, deletion = unpacked(blob)
    assert (folder.name, folder.mode, deletion.name) == ("opt", 0o755, "opt/.wh.z")
    assert (file.mode, file.uid, file.gid, file.mtime, file.uname) == (0o4750, 7, 8, 0, "")
    assert file.pax_headers["SCHILY.xattr.security.capability"] == "\x01\x00\x00\x02\udcff"
    assert link.linkname == "opt/x"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tar(entry("dev/x", type=tarfile.CHRTYPE)), "/dev/x is a device or a pipe"),
        (tar(entry("x", type=tarfile.FIFOTYPE)), "/x is a device or a pipe"),
        (tar(entry("a/../../b")), "a file outside of it"),
        (tar(entry("/etc/passwd")), "a file outside of it"),
        (tar(entry("models/m/model.onnx", b"x")), "The Dockerfile writes /models/m/model.onnx"),
        (tar(entry("x", b"x" * 100_000))[:4096], "cannot be read|hashes to"),
        (b"x" * 1024, "cannot be read"),
        (tar(entry("x", b"x" * (1 << 20))), "larger than 1048576 bytes"),
    ],
)
def test_what_no_model_image_may_hold_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(InvalidImage, match=said):
        rewrite(content)


def test_what_builders_make_to_mount_on_is_left_out() -> None:
    _, blob = rewrite(tar(entry("etc/hosts"), entry("./etc/resolv.conf"), entry("etc/hostname", b"x")))
    assert [member.name for member in unpacked(blob)] == ["etc/hostname"]


def test_a_layer_is_the_one_that_the_configuration_names() -> None:
    with pytest.raises(InvalidImage, match="hashes to"):
        rewrite(tar(entry("x")), digest(b"another"))
    trailed = tar(entry("x")) + bytes(512)
    assert rewrite(trailed)[0] == rewrite(tar(entry("x")))[0]


# --- formats ---


def config_of(*layers: bytes) -> bytes:
    diff_ids = [digest(layer) for layer in layers]
    return canonical_json({"config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}})


LAYERS = (tar(entry("a", b"a")), tar(entry("b", b"b")))


def old_archive(folder: Path) -> Path:
    """What `docker save` wrote before version 25; the second layer is a link to another image's."""
    listed = [{"Config": "c.json", "RepoTags": None, "Layers": ["1/layer.tar", "2/layer.tar"]}]
    content = tar(
        entry("c.json", config_of(*LAYERS)),
        entry("1/layer.tar", LAYERS[0]),
        entry("3/layer.tar", LAYERS[1]),
        entry("2/layer.tar", type=tarfile.SYMTYPE, linkname="../3/layer.tar"),
        entry("manifest.json", json.dumps(listed).encode()),
    )
    (folder / "saved.tar").write_bytes(content)
    return folder / "saved.tar"


def layout_files(compress: Callable[[bytes], bytes] = bytes) -> dict[str, bytes]:
    config, blobs = config_of(*LAYERS), [compress(layer) for layer in LAYERS]
    manifest = make_manifest(config, [Descriptor.of(OCI_LAYER_TAR, blob) for blob in blobs])
    index = make_index([Descriptor.of(OCI_MANIFEST, manifest)])
    named = {f"blobs/{digest(blob).replace(':', '/')}": blob for blob in (config, manifest, *blobs)}
    return {"oci-layout": b"{}", "index.json": index, **named}


def new_archive(folder: Path) -> Path:
    """What `docker save` writes since version 25: an OCI layout, and `manifest.json` for older readers."""
    files = layout_files()
    names = {digest(content): name for name, content in files.items()}
    listed = [
        {
            "Config": names[digest(config_of(*LAYERS))],
            "RepoTags": None,
            "Layers": [names[digest(layer)] for layer in LAYERS],
        }
    ]
    files["manifest.json"] = json.dumps(listed).encode()
    (folder / "saved.tar").write_bytes(tar(*(entry(name, content) for name, content in files.items())))
    return folder / "saved.tar"


def archived_layout(folder: Path) -> Path:
    content = tar(*(entry(name, content) for name, content in layout_files(gzip.compress).items()))
    (folder / "saved.tar").write_bytes(content)
    return folder / "saved.tar"


def layout(folder: Path) -> Path:
    for name, content in layout_files(zstandard.ZstdCompressor().compress).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("save", [old_archive, new_archive, archived_layout, layout])
def test_every_format_of_builders_is_read(save: Callable[[Path], Path], tmp_path: Path) -> None:
    with open_saved_image(save(tmp_path)) as saved:
        assert saved.diff_ids == tuple(map(digest, LAYERS))
        for diff_id, content in zip(saved.diff_ids, LAYERS, strict=True):
            with saved.open_layer(diff_id) as layer:
                assert layer.read() == content


def test_what_another_tool_writes_is_read(tmp_path: Path) -> None:
    layout(tmp_path / "layout")
    archive = tmp_path / "by-skopeo.tar"
    subprocess.run(
        ["skopeo", "copy", f"oci:{tmp_path}/layout", f"docker-archive:{archive}"],
        check=True,
        capture_output=True,
    )
    with open_saved_image(archive) as saved:
        assert saved.diff_ids == tuple(map(digest, LAYERS))
        with saved.open_layer(saved.diff_ids[1]) as layer:
            assert layer.read() == LAYERS[1]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "no file 'index.json'"),
        ({"manifest.json": b"{"}, "not JSON"),
        ({"manifest.json": b"[]"}, "exactly one image"),
        ({"manifest.json": b'[{"Config":"c","Layers":"x"}]'}, "no list of layers"),
        ({"manifest.json": b'[{"Config":"c","Layers":["x"]}]', "c": b"{}"}, "no rootfs.diff_ids"),
        ({"manifest.json": b'[{"Config":"c","Layers":["x"]}]', "c": config_of()}, "has 1 layers"),
        ({"manifest.json": b'[{"Config":"../c","Layers":[]}]'}, "no file '../c'"),
        ({"index.json": make_index([])}, "holds no image"),
    ],
)
def test_a_broken_archive_is_refused(files: Mapping[str, bytes], said: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar(*(entry(name, content) for name, content in files.items())))
    with pytest.raises(InvalidImage, match=said), open_saved_image(tmp_path / "x.tar"):
        pass


def test_a_missing_layer_is_told_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(
        tar(
            entry("c", config_of(b"")),
            entry("manifest.json", b'[{"Config":"c","Layers":["a/layer.tar"]}]'),
            entry("a/layer.tar", type=tarfile.SYMTYPE, linkname="../../../etc/passwd"),
        )
    )
    with (
        open_saved_image(tmp_path / "x.tar") as saved,
        pytest.raises(InvalidImage, match=r"no file 'a/layer\.tar'"),
        saved.open_layer(saved.diff_ids[0]),
    ):
        pass


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(InvalidImage, match="cannot be read"), open_saved_image(tmp_path / "x.tar"):
        pass


# --- the contract ---

BASE = {
    "os": "linux",
    "architecture": "amd64",
    "config": {"User": "65532:65532", "Labels": {"dev.edgemodel.runtime": "r"}},
}
GOOD = {**BASE, "config": {**BASE["config"], "Entrypoint": ["/x"]}}  # type: ignore[dict-item]


@pytest.mark.parametrize("user", ["1", "65532", "65532:65532", "1000:1000"])
def test_a_numeric_user_keeps_the_contract(user: str) -> None:
    config = {**GOOD, "config": {**GOOD["config"], "User": user}}  # type: ignore[dict-item]
    assert broken_promises(config, BASE, AMD64) == ()


@pytest.mark.parametrize("user", ["", "0", "0:0", "root", "app", "65532:0", "65532:app", "00", "-1"])
def test_a_user_that_is_root_or_a_name_breaks_it(user: str) -> None:
    config = {**GOOD, "config": {**GOOD["config"], "User": user}}  # type: ignore[dict-item]
    (clause,) = broken_promises(config, BASE, AMD64)
    assert "end the Dockerfile with `USER 65532:65532`" in clause


def test_every_breach_is_told() -> None:
    config = {"os": "linux", "architecture": "arm64", "config": {"Volumes": {"/models/": {}, "/data": {}}}}
    clauses = broken_promises(config, BASE, AMD64)
    assert len(clauses) == 5
    assert "it is for linux/arm64" in clauses[0]
    assert "its volume /models/" in clauses[4]


# --- the log ---


def test_secrets_are_hidden_however_the_output_is_cut() -> None:
    lines: list[str] = []
    arguments = {"API_TOKEN": "abc", "long_password": "abcdef", "SITE": "north", "EMPTY_KEY": ""}
    log = BuildLog(arguments, lines.append)
    for piece in (
        "one ab",
        "c two abcdef\nnor",
        "th\n",
        "\x1b[31mred\x1b[0m 10%\r20%\n",
        "https://me:pw@host/x",
    ):
        log.feed(piece)
    log.end_line()
    assert lines == ["one *** two ***", "north", "20%", "https://***@host/x"]
    assert log.last_lines == " | ".join(lines)


def test_what_an_engine_says_of_its_own_affairs_is_no_reason() -> None:
    lines: list[str] = []
    log = BuildLog({}, lines.append)
    log.feed("Step 2/3 : RUN x\n ---> Running in 1\nwhy\nRemoving intermediate container 1\n")
    assert (len(lines), log.last_lines) == (4, "why")


def test_lines_are_bounded() -> None:
    lines: list[str] = []
    log = BuildLog({}, lines.append)
    log.feed("begin" + "x" * MAX_LINE + "end\n\n  \n")
    log.feed("y" * 100_000)
    assert [len(line) for line in lines] == [MAX_LINE + 3] * 2
    assert (lines[0][:5], lines[0][-3:]) == ("begin", "end")
    log.feed("\n".join(map(str, range(50))) + "\n")
    assert log.last_lines.split(" | ")[0] == "38"
