"""What the demo says while it runs: each claim as one line with the measured time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


class ClaimBroken(Exception):  # noqa: N818 - reads as the fact it states
    """Something that the demo promises did not hold; the message says what was seen instead."""


class Report:
    """Prints claims as they come true."""

    def __init__(self, total: int) -> None:
        self._begun = time.monotonic()
        self._total = total
        self._number = 0

    @contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Run one step; the lines that the block appends are printed under it."""
        self._number += 1
        sys.stdout.write(f"[{self._number}/{self._total}] {title} …\n")
        sys.stdout.flush()
        begun = time.monotonic()
        lines: list[str] = []
        yield lines
        for line in lines:
            sys.stdout.write(f"      {line}\n")
        sys.stdout.write(f"      done in {time.monotonic() - begun:.1f} s\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Print text as it is."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    @property
    def elapsed(self) -> float:
        """Give the seconds since the beginning."""
        return time.monotonic() - self._begun


def claim(holds: bool, text: str) -> None:
    """Raise ClaimBroken unless the claim holds."""
    if not holds:
        raise ClaimBroken(text)
