"""Which wheel of a lock a platform takes."""

from __future__ import annotations

import pytest

from edgemodel_operator.oci.descriptor import Platform
from imagebuild.locked import Lock, Requirement, parse_requirements

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
WHEELS = {
    "a" * 64: "fast-1.0-cp311-cp311-manylinux_2_28_x86_64.whl",
    "b" * 64: "fast-1.0-cp311-cp311-manylinux_2_28_aarch64.whl",
    "c" * 64: "fast-1.0-cp312-cp312-manylinux_2_28_x86_64.whl",
    "d" * 64: "fast-1.0-cp38-abi3-manylinux2014_x86_64.whl",
    "e" * 64: "fast-1.0-py3-none-any.whl",
    "f" * 64: "fast-1.0-cp311-cp311-musllinux_1_2_x86_64.whl",
}
REQUIREMENTS = (
    "a==1 \\\n    --hash=sha256:" + "1" * 64 + " \\\n    --hash=sha256:" + "2" * 64 + "\n"
    "b-c[x]==2 ; sys_platform == 'linux' \\\n    --hash=sha256:" + "3" * 64 + "\n"
)


def chosen(platform: Platform, hashes: str, glibc: str = "2.36") -> list[str]:
    wanted = Requirement("fast==1.0", tuple(letter * 64 for letter in hashes))
    (one,) = Lock((wanted,), WHEELS).for_platform(platform, glibc)
    return [each[0] for each in one.hashes]


@pytest.mark.parametrize(
    ("platform", "has", "takes"),
    [
        (AMD64, "abcdef", "a"),
        (ARM64, "abcdef", "b"),
        (AMD64, "cdef", "d"),
        (ARM64, "cdef", "e"),
        (AMD64, "ed", "d"),
    ],
)
def test_the_best_wheel_for_the_platform_is_taken(platform: Platform, has: str, takes: str) -> None:
    assert chosen(platform, has) == [takes]


def test_a_wheel_for_a_newer_c_library_is_not_taken() -> None:
    assert chosen(AMD64, "ad", glibc="2.27") == ["d"]


def test_what_has_no_wheel_keeps_its_hashes_for_uv_to_judge() -> None:
    assert chosen(ARM64, "acf") == ["a", "c", "f"]


def test_requirements_are_written_as_they_were_read() -> None:
    read = list(parse_requirements(REQUIREMENTS))
    assert [(one.name, one.version) for one in read] == [("a", "1"), ("b-c", "2")]
    assert [len(one.hashes) for one in read] == [2, 1]
    assert "".join(one.write() for one in read) == REQUIREMENTS


def test_comments_and_nothing_are_no_requirements() -> None:
    assert list(parse_requirements("\n")) == []
