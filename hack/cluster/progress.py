"""Progress lines with elapsed time, so that a long step never looks like a hang."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

HEARTBEAT_S = 15.0


class Progress:
    """Writes one line per step to standard error, each with the seconds since the start."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._started = time.monotonic()
        self._quiet = quiet
        self._write_lock = threading.Lock()

    def say(self, text: str) -> None:
        """Write one line."""
        if self._quiet:
            return
        with self._write_lock:
            sys.stderr.write(f"[{time.monotonic() - self._started:6.1f} s] {text}\n")
            sys.stderr.flush()

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step, repeat that it still runs every 15 s, and say how long it took."""
        self.say(f"{text} ...")
        began = time.monotonic()
        ended = threading.Event()
        beat = threading.Thread(target=self._beat, args=(text, began, ended), daemon=True)
        beat.start()
        try:
            yield
        except BaseException:
            self.say(f"{text}: failed after {time.monotonic() - began:.1f} s")
            raise
        else:
            self.say(f"{text}: {time.monotonic() - began:.1f} s")
        finally:
            ended.set()
            beat.join()

    def _beat(self, text: str, began: float, ended: threading.Event) -> None:
        while not ended.wait(HEARTBEAT_S):
            self.say(f"{text}: still running after {time.monotonic() - began:.0f} s")
