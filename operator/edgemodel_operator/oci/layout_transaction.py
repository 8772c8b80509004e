"""Writing to an image layout so that an attempt which fails leaves nothing behind.

One writer at a time has the folder. What a killed one left half-written goes with the next.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .image_layout import PARTIAL

_BLOBS = Path("blobs", "sha256")


class LayoutBusy(Exception):  # noqa: N818 - reads as the fact it states
    """Somebody else writes to the folder."""


class NotALayout(Exception):  # noqa: N818 - reads as the fact it states
    """The folder is there and holds other things than images."""


@contextmanager
def layout_transaction(folder: Path) -> Iterator[None]:
    """Hold the folder while the block writes images to it; makes it where it is missing.

    When the block raises, every file that it added goes again, but for those of an `index.json` that it
    completed. Raises LayoutBusy, NotALayout, OSError.
    """
    made = _make(folder)
    _require_layout(folder)
    holder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _hold(holder, folder)
        for left in folder.glob(f"{PARTIAL}*"):
            left.unlink()
        before, listed = _blobs(folder), _listing(folder)
        try:
            yield
        except BaseException:
            if _listing(folder) == listed:
                _undo(folder, before, made)
            raise
    finally:
        os.close(holder)


def _make(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        return False
    return True


def _require_layout(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    others = [name for name in names - {"blobs"} if not name.startswith(PARTIAL)]
    if others and "oci-layout" not in names:
        raise NotALayout(f"{folder} holds other files and no image layout: name a new or an empty folder")


def _hold(holder: int, folder: Path) -> None:
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LayoutBusy(f"another build writes to {folder}: wait for it, or name another folder") from error


def _blobs(folder: Path) -> set[Path]:
    return set((folder / _BLOBS).glob("*"))


def _listing(folder: Path) -> bytes | None:
    try:
        return (folder / "index.json").read_bytes()
    except FileNotFoundError:
        return None


def _undo(folder: Path, before: set[Path], made: bool) -> None:
    for added in (*(_blobs(folder) - before), *folder.glob(f"{PARTIAL}*")):
        added.unlink(missing_ok=True)
    if not made:
        return
    (folder / "oci-layout").unlink(missing_ok=True)
    for empty in (folder / _BLOBS, folder / "blobs", folder):
        with suppress(OSError):  # somebody put something there meanwhile
            empty.rmdir()
