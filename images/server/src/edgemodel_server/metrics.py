"""What the server counts. Plain numbers, changed on the loop's thread, rendered when scraped.

Prometheus' own client costs more per request than the rest of this server; its text format is simple. Every
series exists from the start, at zero: a rate over a series that is born with its first error hides it.
"""

from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum

SECONDS = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
)
"""Upper bounds in seconds: from a request's own cost to a large model on an emulated processor."""

BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Upper bounds in requests that were computed together."""


class Result(StrEnum):
    """How an inference request ended: ``ok``, or why not."""

    OK = "ok"
    REFUSED = "refused"
    NOT_READY = "not_ready"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Histogram:
    """Counts of observed values per bucket, and their sum; ``bounds`` are the buckets' upper bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Count one value, or the same value ``count`` times: all requests of a batch in one step."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.total += value * count


class ModelMetrics:
    """The numbers of one model.

    ``requests`` (end to end), ``queue`` and ``compute`` are durations of requests in seconds, ``batch`` the
    sizes of the computations; ``queued`` is how many requests are waiting or being computed, ``loaded``
    whether the model is in memory, ``memory_bytes`` what it takes there, ``paced_seconds`` how long
    computations were held back to keep the processor budget.
    """

    __slots__ = (
        "batch", "compute", "inputs_bytes", "loaded", "memory_bytes", "outputs_bytes", "paced_seconds",
        "queue", "queued", "requests", "results",
    )  # fmt: skip

    def __init__(self) -> None:
        self.results = dict.fromkeys(Result, 0)
        self.requests = Histogram()
        self.queue = Histogram()
        self.compute = Histogram()
        self.batch = Histogram(BATCH_SIZES)
        self.inputs_bytes = 0
        self.outputs_bytes = 0
        self.queued = 0
        self.loaded = False
        self.memory_bytes = 0
        self.paced_seconds = 0.0
