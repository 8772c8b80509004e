"""Build contexts: what `.dockerignore` leaves, and the same tar for the same files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from edgemodel_operator.build.dockerfile.context import (
    LABELLED,
    keep_files,
    lay_out_context,
    open_context,
    write_context,
)
from edgemodel_operator.build.dockerfile.instructions import InvalidDockerfile
from support.dockerfiles import write_files

NAMES = ("Dockerfile", "README.md", "a/b.log", "a/deep/c.log", "docs/README.md", "node/x/y", "z.log")


@pytest.mark.parametrize(
    ("ignore_file", "left_out"),
    [
        ("", set()),
        ("# *.log\n\n", set()),
        ("*.log", {"z.log"}),
        ("**/*.log", {"a/b.log", "a/deep/c.log", "z.log"}),
        ("/a/\n", {"a/b.log", "a/deep/c.log"}),
        ("a/../node\n", {"node/x/y"}),
        ("*.md\n!README.md\n", set()),
        ("docs\n!docs/README.md", set()),
        ("!docs/README.md\ndocs", {"docs/README.md"}),
        ("**\n!Dockerfile", set(NAMES) - {"Dockerfile"}),
        ("?/deep", {"a/deep/c.log"}),
        ("\ufeffz.log\r\n", {"z.log"}),
        (".", set()),
    ],
)
def test_the_last_pattern_that_matches_decides(ignore_file: str, left_out: set[str]) -> None:
    assert set(NAMES) - set(keep_files(NAMES, ignore_file)) == left_out


def test_the_same_files_give_the_same_tar(tmp_path: Path) -> None:
    files = {"Dockerfile": "FROM x\n", "tool": "t", "b/c": "c", ".dockerignore": "d\n", "d": "d"}
    written = []
    for name, mode in (("one", 0o700), ("two", 0o755)):
        opened = write_files(tmp_path / name, files)
        opened["tool"].chmod(mode)
        opened["b/c"].chmod(0o600 if name == "one" else 0o664)
        context = open_context(dict(reversed(opened.items())), "Dockerfile")
        out = io.BytesIO()
        write_context(context, {"owner": "me"}, out)
        written.append(out.getvalue())
    assert written[0] == written[1]
    with tarfile.open(fileobj=io.BytesIO(written[0])) as archive:
        assert archive.getnames() == [LABELLED, ".dockerignore", "Dockerfile", "b", "b/c", "tool"]
        dockerfile = archive.extractfile(LABELLED)
        assert dockerfile is not None
        assert dockerfile.read() == b'FROM x\nLABEL owner="me"\n'
        assert {member.mtime for member in archive} == {0}
        assert archive.getmember("tool").mode == 0o755


def test_a_folder_holds_the_same_files(tmp_path: Path) -> None:
    opened = write_files(tmp_path / "in", {"Dockerfile": "FROM x\n", "b/tool": "t"})
    opened["b/tool"].chmod(0o711)
    tmp_path.chmod(0o2777)
    lay_out_context(open_context(opened, "Dockerfile"), tmp_path / "out")
    assert (tmp_path / "out/Dockerfile").read_text() == "FROM x\n"
    assert (tmp_path / "out/b/tool").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "out/b").stat().st_mode & 0o7777 == 0o755


@pytest.mark.parametrize(
    ("files", "dockerfile", "said"),
    [
        ({"docker/Dockerfile": "FROM x"}, "Dockerfile", "holds no 'Dockerfile'.*It holds docker/Dockerfile"),
        ({}, "Dockerfile", "It holds nothing"),
        ({"Dockerfile": "FROM x", "a/.wh.b": ""}, "Dockerfile", "would delete a file"),
        ({"Dockerfile": "FROM x", "../up": ""}, "Dockerfile", "not a plain relative path"),
    ],
)
def test_a_context_that_no_builder_can_take_is_refused(
    tmp_path: Path, files: dict[str, str], dockerfile: str, said: str
) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(InvalidDockerfile, match=said):
        open_context(write_files(tmp_path / "in", files), dockerfile)
