"""How much is judged at once. What comes beyond is refused at once, clearly, and never let through."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from edgemodel_operator.admission.metrics import AdmissionMetrics

MAX_REVIEWS = 200
"""As many mutating requests as an API server handles at once by default; a few of those are for us."""
MAX_BYTES = 32 * 1024 * 1024
"""Of all bodies in memory: each may have 8 MiB."""


class TooBusy(Exception):  # noqa: N818 - reads as the fact it states
    """There is no room for one more request."""


class Load:
    """Counts the reviews under way and their bytes."""

    def __init__(
        self, metrics: AdmissionMetrics, *, max_reviews: int = MAX_REVIEWS, max_bytes: int = MAX_BYTES
    ) -> None:
        self._metrics = metrics
        self._max_reviews = max_reviews
        self._max_bytes = max_bytes
        self._reviews = 0
        self._bytes = 0

    @contextmanager
    def holding(self) -> Generator[Callable[[int], None], None, None]:
        """Give what makes room for so many more bytes of a body while the block runs; it raises TooBusy."""
        held = 0

        def take(size: int) -> None:
            nonlocal held
            if self._bytes + size > self._max_bytes:
                self._metrics.shed.inc()
                raise TooBusy
            self._bytes += size
            held += size

        try:
            yield take
        finally:
            self._bytes -= held

    @contextmanager
    def judging(self) -> Generator[None, None, None]:
        """Make room for one review while the block runs. Raises TooBusy."""
        if self._reviews >= self._max_reviews:
            self._metrics.shed.inc()
            raise TooBusy
        self._reviews += 1
        try:
            yield
        finally:
            self._reviews -= 1
