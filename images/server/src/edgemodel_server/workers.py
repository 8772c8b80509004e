"""The threads that compute what is too slow for the loop: as many as there are processors to use."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

from edgemodel_server.pacing import Pacer


class Workers:
    """Threads that do work in the order in which it came. They start with the first of it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, pacer: Pacer | None = None) -> None:
        self.loop = loop
        self.pacer = pacer
        self._count = count
        self._work: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._started = False

    def submit(self, work: Callable[[], None]) -> None:
        """Have ``work`` done by the next free thread; it must not raise."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._run, name=f"worker-{number}", daemon=True).start()
        self._work.put(work)

    def _run(self) -> None:
        while True:
            work = self._work.get()
            try:
                work()
            except RuntimeError:  # the loop is closed: the process is about to exit
                return
