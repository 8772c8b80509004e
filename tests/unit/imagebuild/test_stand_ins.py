"""Libraries that stand in for others: made from what is asked of them, and taken by the dynamic linker."""

from __future__ import annotations

import ctypes
import platform
import subprocess
from pathlib import Path

import pytest

from imagebuild.linked import is_library, read_linked
from imagebuild.stand_ins import elf_hash, make_library, write_stand_ins

MACHINE = {"x86_64": 62, "aarch64": 183}[platform.machine()]
DEVICE = """
int deviceCount(void) { return 3; }
int deviceReset(void) { return 0; }
"""
OTHER = "int otherThing(void) { return 7; }"
PROGRAM = """
int deviceCount(void); int deviceReset(void); int otherThing(void);
int ask(void) { return deviceCount() + deviceReset() + otherThing(); }
int own(void) { return 5; }
"""


def compile_library(folder: Path, name: str, source: str, *options: str) -> Path:
    path = folder / name
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path), f"-Wl,-soname,{name}", *options]
    subprocess.run(command, input=source, text=True, check=True)
    return path


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A library that is linked against two others, one of them with versions; neither is there any more."""
    script = tmp_path / "versions"
    script.write_text("libdevice.so.13 { global: *; };")
    device = compile_library(tmp_path, "libdevice.so.13", DEVICE, f"-Wl,--version-script={script}")
    other = compile_library(tmp_path, "libdevother.so.1", OTHER)
    folder = tmp_path / "wheel" / "lib"
    folder.mkdir(parents=True)
    options = ["-x", "none", str(device), str(other), "-Wl,-rpath,$ORIGIN", "-Wl,-z,now"]
    compile_library(folder, "libuser.so", PROGRAM, *options)
    device.unlink()
    other.unlink()
    return tmp_path / "wheel"


def test_what_a_library_asks_for_is_read(wheel: Path) -> None:
    linked = read_linked((wheel / "lib" / "libuser.so").read_bytes())
    assert {"libdevice.so.13", "libdevother.so.1"} <= set(linked.needed)
    assert linked.machine == MACHINE
    assert {"ask", "own"} <= linked.given
    assert ("libdevice.so.13", "libdevice.so.13", "deviceCount") in linked.asked
    assert ("", "", "otherThing") in linked.asked


def test_a_library_is_loaded_with_stand_ins_and_hears_that_there_is_no_device(wheel: Path) -> None:
    with pytest.raises(OSError, match=r"libdev.*cannot open shared object"):
        ctypes.CDLL(str(wheel / "lib" / "libuser.so"))
    assert write_stand_ins(wheel, ["libdev*"]) == ["libdevice.so.13", "libdevother.so.1"]
    user = ctypes.CDLL(str(wheel / "lib" / "libuser.so"))
    assert (user.own(), user.ask()) == (5, 300)


def test_what_fits_no_pattern_is_left_alone(wheel: Path) -> None:
    assert write_stand_ins(wheel, []) == []
    assert write_stand_ins(wheel, ["libcu*"]) == []
    assert [path.name for path in (wheel / "lib").iterdir()] == ["libuser.so"]


def test_a_library_that_is_there_is_never_replaced(wheel: Path) -> None:
    real = make_library("libdevother.so.1", {"": {"otherThing"}}, MACHINE) + b"real"
    (wheel / "libdevother.so.1").write_bytes(real)
    assert write_stand_ins(wheel, ["libdev*"]) == ["libdevice.so.13"]
    assert write_stand_ins(wheel, ["libdev*"]) == []
    assert (wheel / "libdevother.so.1").read_bytes() == real


def test_stand_ins_are_the_same_bytes_each_time() -> None:
    symbols = {"v2": {"b", "a"}, "v1": {"d"}, "": {"c"}}
    turned = {"": {"c"}, "v1": {"d"}, "v2": {"a", "b"}}
    assert make_library("lib.so", symbols, MACHINE) == make_library("lib.so", turned, MACHINE)


def test_many_symbols_are_all_found(tmp_path: Path) -> None:
    names = {f"symbol{number}" for number in range(3000)}
    (tmp_path / "lib.so").write_bytes(make_library("lib.so", {"v": names}, MACHINE))
    library = ctypes.CDLL(str(tmp_path / "lib.so"))
    assert {getattr(library, name)() for name in names} == {100}
    with pytest.raises(AttributeError):
        _ = library.another


def test_the_hash_is_that_of_the_abi() -> None:
    assert [elf_hash(name) for name in ("", "printf", "GLIBC_2.2.5")] == [0, 0x077905A6, 0x09691A75]


def test_links_and_other_files_are_no_libraries(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("GROUP ( libm.so.6 )")
    (tmp_path / "lib.so").write_bytes(make_library("lib.so", {}, MACHINE))
    (tmp_path / "link.so").symlink_to("lib.so")
    found = {path.name: is_library(path) for path in tmp_path.iterdir()}
    assert found == {"text.so": False, "lib.so": True, "link.so": False}
