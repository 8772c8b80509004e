"""How much memory the kernel gives this container, read from its control groups."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgemodel_operator.build.inspect.__main__ import private_bytes
from edgemodel_operator.build.limits import container_memory

MIB = 1024**2
GIB = 1024**3
V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {f"{V2}/memory.max": str(GIB)}, GIB),
        ("0::/", {f"{V2}/memory.max": "max"}, None),
        ("0::/pods/a", {f"{V2}/pods/a/memory.max": "max", f"{V2}/pods/memory.max": str(GIB)}, GIB),
        ("0::/pods/a", {f"{V2}/pods/a/memory.max": "7", f"{V2}/pods/memory.max": str(GIB)}, 7),
        ("4:cpu:/\n3:memory:/pods/a", {f"{V1}/memory.limit_in_bytes": str(GIB)}, GIB),
        ("3:memory:/pods/a\n0::/", {f"{V1}/pods/a/memory.limit_in_bytes": str(GIB)}, GIB),
        ("3:memory:/", {f"{V1}/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("", {}, None),
    ],
    ids=["v2", "v2 none", "v2 parent", "v2 least", "v1 container", "v1 host", "v1 none", "nothing"],
)
def test_the_limit_is_the_least_of_all_groups(
    tmp_path: Path, groups: str, files: Mapping[str, str], expected: int | None
) -> None:
    for name, content in {"proc/self/cgroup": groups, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert container_memory(tmp_path) == expected


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    assert container_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("memory", "private"),
    [(None, GIB), (GIB, 256 * MIB), (256 * MIB, 128 * MIB), (64 * GIB, GIB)],
)
def test_a_reader_takes_a_quarter_of_the_container(memory: int | None, private: int) -> None:
    assert private_bytes(memory) == private
