"""File locks that die with their holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def exclusive(path: Path, *, patience_s: float) -> Iterator[IO[str]]:
    """Hold the lock file for the length of the block.

    The file's text is a note about its holder for whoever waits. Raises TimeoutError, with that note, when
    somebody else still holds the lock after `patience_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + patience_s
    with path.open("a+", encoding="utf-8") as file:
        while not try_lock(file, shared=False):
            if time.monotonic() > deadline:
                file.seek(0)
                raise TimeoutError(file.read().strip() or "unknown")
            time.sleep(0.2)
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield file


def try_lock(file: IO[str], *, shared: bool) -> bool:
    """Take the lock (or change how it is held) if that is possible at once, and say whether it was."""
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
