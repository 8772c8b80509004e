"""A folder of its own for each build, gone afterwards, also when the operator was killed.

The operator holds a lock on a file in the folder; the kernel releases it with the process. A folder whose
lock can be taken belongs to nobody any more, whatever process ids have been given out since.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

PREFIX = "edgemodel-build-"
_LOCK = ".lock"


@asynccontextmanager
async def work_folder(root: Path | None = None) -> AsyncIterator[Path]:
    """Make a folder under `root` (default: the system's temporary folder) and remove it after the block."""
    root = root or Path(tempfile.gettempdir())
    await asyncio.to_thread(remove_stale, root)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    try:
        with _locked(folder / _LOCK):
            yield folder
    finally:
        # In a thread: deleting a model of gigabytes would hold up the event loop.
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def remove_stale(root: Path) -> int:
    """Remove the folders of builds whose operator has gone; gives their number."""
    removed = 0
    for folder in root.glob(f"{PREFIX}*"):
        # A folder without a lock file is being made, or was left in that very moment: too small to matter.
        with suppress(OSError), _locked(folder / _LOCK, create=False):
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed


@contextmanager
def _locked(path: Path, *, create: bool = True) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
