"""What the server counts. Plain numbers, changed on the loop's thread, rendered when scraped.

Prometheus' own client costs more per request than the rest of this server; its text format is simple. Every
series exists from the start, at zero: a rate over a series that is born with its first error hides it.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import accumulate
from pathlib import Path

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

BUCKETS = (
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


class Result(StrEnum):
    """How an inference request ended."""

    OK = "ok"
    REFUSED = "refused"
    NOT_READY = "not_ready"
    OVERLOADED = "overloaded"
    FAILED = "failed"


class Histogram:
    """Counts of observed seconds per bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class ModelMetrics:
    """The numbers of one model; ``requests``, ``queue`` and ``compute`` are its durations."""

    __slots__ = ("compute", "inputs_bytes", "outputs_bytes", "queue", "queued", "requests", "results")

    def __init__(self) -> None:
        self.results = dict.fromkeys(Result, 0)
        self.requests = Histogram()
        self.queue = Histogram()
        self.compute = Histogram()
        self.inputs_bytes = 0
        self.outputs_bytes = 0
        self.queued = 0


Labels = Mapping[str, str]


class Page:
    """A metrics page under construction, in Prometheus' text format 0.0.4."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """Add a counter or gauge with all of its samples."""
        self._lines += (f"# HELP {name} {text}", f"# TYPE {name} {kind}")
        self._lines += (
            f"{name}{_format_labels(labels)} {_format_number(value)}" for labels, value in samples
        )

    def add_histograms(self, name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> None:
        """Add a histogram in seconds with all of its samples."""
        self._lines += (f"# HELP {name} {text}", f"# TYPE {name} histogram")
        for labels, histogram in samples:
            running = list(accumulate(histogram.counts))
            for bound, count in zip((*map(repr, BUCKETS), "+Inf"), running, strict=True):
                self._lines.append(f"{name}_bucket{_format_labels({**labels, 'le': bound})} {count}")
            self._lines.append(f"{name}_sum{_format_labels(labels)} {_format_number(histogram.total)}")
            self._lines.append(f"{name}_count{_format_labels(labels)} {running[-1]}")

    def render(self) -> bytes:
        """Return the page's text."""
        return ("\n".join(self._lines) + "\n").encode()


def _format_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def add_process(page: Page) -> None:
    """Add the memory and processor time of this process, under the names every Prometheus client uses."""
    times = os.times()
    page.add(
        "process_cpu_seconds_total", "counter", "Processor time used.", [({}, times.user + times.system)]
    )
    page.add("process_resident_memory_bytes", "gauge", "Memory in use.", [({}, _read_resident_bytes())])


def _read_resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except OSError:
        return 0
