"""The metrics page: Prometheus' text format 0.0.4, or OpenMetrics 1.0 where the scraper asks for it.

Source: "Exposition formats" of Prometheus, and the OpenMetrics 1.0 specification. For what this server has
to say the two differ in three places: OpenMetrics names a counter's family without ``_total``, ends the page
with ``# EOF``, and has a content type of its own.
"""

import os
from collections.abc import Iterable, Mapping
from itertools import accumulate

from edgemodel_server.metrics import Histogram
from edgemodel_server.resident import read_resident_bytes

TEXT = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

Labels = Mapping[str, str]


class Page:
    """A metrics page under construction."""

    def __init__(self, *, openmetrics: bool = False) -> None:
        self._openmetrics = openmetrics
        self._lines: list[str] = []

    @property
    def content_type(self) -> bytes:
        """The media type of the page."""
        return OPENMETRICS if self._openmetrics else TEXT

    def add(self, name: str, kind: str, text: str, samples: Iterable[tuple[Labels, float]]) -> None:
        """Add a counter (its name ends with ``_total``) or gauge with all of its samples."""
        self._begin(name.removesuffix("_total") if self._openmetrics else name, kind, text)
        self._lines += (
            f"{name}{_format_labels(labels)} {_format_number(value)}" for labels, value in samples
        )

    def add_histograms(self, name: str, text: str, samples: Iterable[tuple[Labels, Histogram]]) -> None:
        """Add a histogram with all of its samples."""
        self._begin(name, "histogram", text)
        for labels, histogram in samples:
            running = list(accumulate(histogram.counts))
            for bound, count in zip((*map(repr, histogram.bounds), "+Inf"), running, strict=True):
                self._lines.append(f"{name}_bucket{_format_labels({**labels, 'le': bound})} {count}")
            self._lines.append(f"{name}_sum{_format_labels(labels)} {_format_number(histogram.total)}")
            self._lines.append(f"{name}_count{_format_labels(labels)} {running[-1]}")

    def add_process(self) -> None:
        """Add the memory and processor time of this process, under the names every Prometheus client uses."""
        times = os.times()
        self.add(
            "process_cpu_seconds_total", "counter", "Processor time used.", [({}, times.user + times.system)]
        )
        self.add(
            "process_resident_memory_bytes", "gauge", "Memory in use.", [({}, float(read_resident_bytes()))]
        )

    def render(self) -> bytes:
        """Return the page's text."""
        end = ("# EOF",) if self._openmetrics else ()
        return ("\n".join((*self._lines, *end)) + "\n").encode()

    def _begin(self, family: str, kind: str, text: str) -> None:
        self._lines += (f"# HELP {family} {text}", f"# TYPE {family} {kind}")


def wants_openmetrics(accept: bytes) -> bool:
    """Say whether an ``Accept`` header prefers OpenMetrics to plain text, as Prometheus' own does."""
    quality = dict.fromkeys((b"application/openmetrics-text", b"text/plain"), 0.0)
    for item in accept.lower().split(b","):
        kind, *parameters = (part.strip() for part in item.split(b";"))
        if kind in quality:
            quality[kind] = max(quality[kind], _read_quality(parameters))
    return 0 < quality[b"application/openmetrics-text"] >= quality[b"text/plain"]


def _read_quality(parameters: Iterable[bytes]) -> float:
    text = next((one[2:] for one in parameters if one.startswith(b"q=")), b"1")
    try:
        return float(text)
    except ValueError:
        return 0.0


def _format_labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _format_number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
