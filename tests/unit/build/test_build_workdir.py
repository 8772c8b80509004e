"""Temporary folders of builds: gone in every case, but never under a running build."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgemodel_operator.build.workdir import PREFIX, remove_stale, work_folder


async def test_the_folder_is_removed_even_after_an_error(tmp_path: Path) -> None:
    async def fail_inside() -> None:
        async with work_folder(tmp_path) as folder:
            (folder / "model").write_bytes(b"weights")
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await fail_inside()
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_in_use_survives_the_sweep(tmp_path: Path) -> None:
    async with work_folder(tmp_path) as first, work_folder(tmp_path) as second:
        assert remove_stale(tmp_path) == 0
        assert first.is_dir()
        assert second.is_dir()


async def test_the_folder_of_a_dead_operator_is_swept(tmp_path: Path) -> None:
    stale = tmp_path / f"{PREFIX}left"
    stale.mkdir()
    (stale / ".lock").touch()
    (stale / "model").write_bytes(b"weights")
    other = tmp_path / "somebody-elses"
    other.mkdir()
    async with work_folder(tmp_path):
        assert not stale.exists()
    assert other.is_dir()
