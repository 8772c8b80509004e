"""Libraries are cut behind what is loaded of them, and work as before."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagebuild.elf import strip_library

SOURCE = """
static int table[1000] = {1};
int twice(int number) { return 2 * number * table[0]; }
"""


@pytest.fixture
def library(tmp_path: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("making a library needs gcc")
    path = tmp_path / "libtwice.so"
    (tmp_path / "twice.c").write_text(SOURCE)
    subprocess.run([compiler, "-g", "-shared", "-fPIC", "-o", path, tmp_path / "twice.c"], check=True)
    return path


def test_a_library_loses_what_is_not_loaded(library: Path) -> None:
    before, inode = library.read_bytes(), library.stat().st_ino
    other = library.with_name("linked.so")
    os.link(library, other)
    library.chmod(0o755)
    saved = strip_library(library)
    assert saved > 1000
    assert library.stat().st_size == len(before) - saved
    assert library.stat().st_mode & 0o777 == 0o755
    assert other.read_bytes() == before
    assert other.stat().st_ino == inode  # the package cache that the file was linked from
    assert ctypes.CDLL(str(library)).twice(21) == 42


def test_nothing_is_left_to_strip(library: Path) -> None:
    strip_library(library)
    content = library.read_bytes()
    assert strip_library(library) == 0
    assert library.read_bytes() == content


def test_a_file_of_another_kind_is_left_alone(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    assert strip_library(program) == 0
    assert program.read_text() == "#!/bin/sh\n"


@given(st.binary(max_size=80), st.integers(0, 80))
def test_any_other_file_stays_as_it_is_or_gets_shorter(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, size: int
) -> None:
    path = tmp_path_factory.mktemp("any") / "file.so"
    path.write_bytes((b"\x7fELF\x02\x01" + content)[:size])
    before = path.read_bytes()
    assert strip_library(path) == len(before) - path.stat().st_size
