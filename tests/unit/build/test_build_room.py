"""The disk that a build may use: measured while it runs, and what happens beyond it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.room import used_bytes, within_room

KIB = 1024


def write(path: Path, size: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


async def test_a_build_that_fills_more_than_its_share_is_cancelled(tmp_path: Path) -> None:
    cancelled = asyncio.Event()

    async def grow() -> None:
        try:
            number = 0
            while True:
                write(tmp_path / "source" / str(number), 256 * KIB)
                number += 1
                await asyncio.sleep(0.001)
        finally:
            cancelled.set()

    with pytest.raises(BuildError) as caught:
        await within_room(tmp_path, 1024 * KIB, grow(), pause=0.001)
    assert cancelled.is_set()
    assert caught.value.failure.reason is Reason.NO_SPACE
    assert "more than 1 MiB of disk" in caught.value.failure.message
    assert "raise that, or lower `operator.maxConcurrentBuilds`" in caught.value.failure.message


async def test_what_is_removed_in_time_counts_no_more(tmp_path: Path) -> None:
    async def replace() -> str:
        for _ in range(20):
            write(tmp_path / "layer", 512 * KIB)
            await asyncio.sleep(0.002)
            (tmp_path / "layer").unlink()
        return "done"

    assert await within_room(tmp_path, 1024 * KIB, replace(), pause=0.001) == "done"


async def test_the_error_of_a_build_is_its_own(tmp_path: Path) -> None:
    async def break_down() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await within_room(tmp_path, 0, break_down())


async def test_who_is_cancelled_cancels_the_build(tmp_path: Path) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def build() -> None:
        started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    running = asyncio.create_task(within_room(tmp_path, KIB, build()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


def test_two_names_of_a_file_count_once(tmp_path: Path) -> None:
    write(tmp_path / "source" / "model.onnx", 512 * KIB)
    (tmp_path / "copy").hardlink_to(tmp_path / "source" / "model.onnx")
    (tmp_path / "link").symlink_to("/nowhere")
    assert 512 * KIB <= used_bytes(tmp_path) < 1024 * KIB
