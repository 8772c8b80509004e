"""A processor budget, held by waiting: heat and battery set the limit, not the number of cores."""

import threading
import time

_BURST_SECONDS = 0.1
"""How much processor time may be saved up while there is nothing to do."""


class Pacer:
    """Keeps the processor time of this process at ``processors`` seconds a second, on average.

    A computation is begun only when the process owes nothing; so a long one is followed by a long rest.
    ``clock`` and ``used`` are replaced in tests.
    """

    def __init__(self, processors: float) -> None:
        self.waited_seconds = 0.0
        self._processors = processors
        self._lock = threading.Lock()
        self._seen = time.monotonic()
        self._used = time.process_time()
        self._credit = _BURST_SECONDS * processors

    def wait(self) -> None:
        """Block until the budget allows another computation."""
        while (seconds := self._debt_seconds()) > 0:
            time.sleep(seconds)
            with self._lock:
                self.waited_seconds += seconds

    def _debt_seconds(self) -> float:
        with self._lock:
            now, used = time.monotonic(), time.process_time()
            earned = (now - self._seen) * self._processors
            self._credit = min(self._credit + earned - (used - self._used), _BURST_SECONDS * self._processors)
            self._seen, self._used = now, used
            return max(0.0, -self._credit / self._processors)
