"""A processor budget, held by waiting: heat and battery set the limit, not the number of cores."""

import threading
import time
from collections.abc import Callable

_SHORTEST_REST_SECONDS = 0.001
_BURST_SECONDS = 0.1
"""How much processor time may be saved up while there is nothing to do."""


class Pacer:
    """Keeps the processor time of this process at ``processors`` seconds a second, on average.

    A computation is begun only when the process owes nothing; so a long one is followed by a long rest.
    ``clock`` and ``used`` tell the time and the processor time used, in seconds.
    """

    def __init__(
        self,
        processors: float,
        clock: Callable[[], float] = time.monotonic,
        used: Callable[[], float] = time.process_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._processors = processors
        self._clock = clock
        self._used = used
        self._sleep = sleep
        self._lock = threading.Lock()
        self._seen = clock(), used()
        self._credit = _BURST_SECONDS * processors

    def wait(self) -> float:
        """Block until the budget allows another computation; returns the seconds that this took."""
        waited = 0.0
        while (seconds := self._settle()) > 0:
            rest = max(seconds, _SHORTEST_REST_SECONDS)
            self._sleep(rest)
            waited += rest
        return waited

    def _settle(self) -> float:
        """Bring the account up to date; returns the seconds until nothing is owed any more."""
        with self._lock:
            now, used = self._clock(), self._used()
            earned = (now - self._seen[0]) * self._processors
            spent = used - self._seen[1]
            self._seen = now, used
            self._credit = min(self._credit + earned - spent, _BURST_SECONDS * self._processors)
            return max(0.0, -self._credit / self._processors)
