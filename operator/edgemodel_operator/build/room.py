"""How much disk a build may use: its folder is measured while it runs, for no quota bounds a folder.

The kubelet measures the volume of a pod as well, every ten seconds, and evicts the whole pod: with it the
operator and every other build.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Never, TypeVar

from edgemodel_operator.build.failures import Reason, fail

PAUSE_SECONDS = 0.5
_BLOCK_BYTES = 512
"""The unit of `st_blocks`, whatever the file system."""

Result = TypeVar("Result")


async def within_room(
    folder: Path, most_bytes: int, doing: Coroutine[Any, Any, Result], *, pause: float = PAUSE_SECONDS
) -> Result:
    """Give what `doing` gives; cancel it once the folder holds more than `most_bytes` on disk.

    Then raises BuildError(NoSpace). `pause` is in seconds, between two measurements.
    """
    work = asyncio.ensure_future(doing)
    watch = asyncio.ensure_future(_overflow(folder, most_bytes, pause))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else watch.result()
    finally:
        work.cancel()
        watch.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _overflow(folder: Path, most_bytes: int, pause: float) -> Never:
    while True:
        if await asyncio.to_thread(used_bytes, folder) > most_bytes:
            raise fail(
                Reason.NO_SPACE,
                f"The build needs more than {most_bytes >> 20} MiB of disk, its share of "
                "`operator.tmpSizeLimit` of the operator's chart: raise that, or lower "
                "`operator.maxConcurrentBuilds`.",
            )
        await asyncio.sleep(pause)


def used_bytes(folder: Path) -> int:
    """Give how many bytes the files below the folder take on disk; files that go meanwhile count nothing.

    Several names of one file count once. Blocking.
    """
    return sum({(one.st_dev, one.st_ino): one.st_blocks * _BLOCK_BYTES for one in _stats(folder)}.values())


def _stats(folder: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield os.lstat(os.path.join(parent, name))  # noqa: PTH118 - half the cost of a Path
