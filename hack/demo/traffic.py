"""Steady requests from every node to the model on it, counting what fails and what is wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from demo.pictures import Picture, binary_request, orientation_of

Ask = Callable[[bytes, dict[str, str]], tuple[int, bytes]]
"""Sends one inference request from a node; gives status and body, raises OSError without an answer."""


@dataclass
class Tally:
    """What the requests from one node came to."""

    sent: int = 0
    failed: int = 0
    wrong: int = 0
    last_failure: str = ""
    longest_gap: float = 0.0
    """The longest time (seconds) between the last answer before a failure and the first one after it."""
    failing: bool = False
    """Whether the last request failed: its gap is not over."""
    answered_at: float = field(default=0.0, repr=False)

    def answered(self, now: float, *, right: bool) -> None:
        """Count an answer."""
        self.sent += 1
        self.wrong += not right
        if self.failing:
            self.longest_gap = max(self.longest_gap, now - self.answered_at)
            self.failing = False
        self.answered_at = now

    def missed(self, why: str) -> None:
        """Count a request that got no answer, or not this one."""
        self.sent += 1
        self.failed += 1
        self.failing = True
        self.last_failure = why


class Traffic:
    """Requests from several nodes at once, one after the other on each; stops when the block ends."""

    def __init__(self, asks: dict[str, Ask], pictures: tuple[Picture, ...], pause: float = 0.1) -> None:
        self._asks = asks
        self._pictures = pictures
        self._pause = pause
        self._stop = threading.Event()
        self.tallies = {node: Tally() for node in asks}
        self._threads = [
            threading.Thread(target=self._run, args=(node,), name=f"traffic-{node}", daemon=True)
            for node in asks
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def settle(self, timeout_s: float) -> None:
        """Wait until every node answers, as long as a gap may last."""
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends and any(tally.failing for tally in self.tallies.values()):
            time.sleep(0.05)

    def _run(self, node: str) -> None:
        ask, tally = self._asks[node], self.tallies[node]
        requests = [(picture, *binary_request(picture)) for picture in self._pictures]
        tally.answered_at = time.monotonic()
        number = 0
        while not self._stop.is_set():
            picture, body, headers = requests[number % len(requests)]
            number += 1
            try:
                status, answer = ask(body, headers)
            except OSError as error:
                tally.missed(f"{type(error).__name__}: {error}")
            else:
                if status == 200:
                    right = orientation_of(answer)[0] == picture.orientation
                    tally.answered(time.monotonic(), right=right)
                else:
                    tally.missed(f"HTTP {status}: {answer[:200]!r}")
            self._stop.wait(self._pause)
