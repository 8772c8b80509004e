"""The table of the figures, and whether the bar was reached."""

from __future__ import annotations

from collections.abc import Callable

from admissionbench.agenda import Figures
from buildbench.report import number

BAR_P99_MS = 5.0
"""p99 of a known image at 100 reviews per second on one core."""

_ROWS: tuple[tuple[str, str, Callable[[Figures, str], float | None]], ...] = (
    ("known image, 100 reviews/s, p50 ms", "cached.p50_ms", Figures.best),
    ("… p99 ms", "cached.p99_ms", Figures.best),
    ("… largest ms", "cached.largest_ms", Figures.best),
    ("… share of the core", "cached.cpu_share", Figures.best),
    ("known images, 8 connections, reviews/s", "fastest.per_second", Figures.most),
    ("known image, review of 3 MB, p50 ms", "large.p50_ms", Figures.best),
    ("100 known images in one pod, p50 ms", "many.p50_ms", Figures.best),
    ("new image, p50 ms", "uncached.p50_ms", Figures.best),
    ("… p99 ms", "uncached.p99_ms", Figures.best),
    ("… one manifest of it from the registry, p50 ms", "registry.manifest_p50_ms", Figures.best),
    ("100 new images in one pod, ms", "many_uncached.ms", Figures.best),
    ("overload, 600 connections: answers", "overload.answers", Figures.most),
    ("… refused for lack of room", "overload.shed", Figures.most),
    ("… untrusted images admitted", "overload.untrusted_admitted", Figures.most),
    ("… without an answer", "overload.broken", Figures.most),
    ("… p50 ms", "overload.p50_ms", Figures.best),
    ("… p99 ms", "overload.p99_ms", Figures.best),
    ("largest memory of the program, MB", "program.memory_mb", Figures.most),
)


def table(figures: Figures) -> str:
    """Give one row per figure: the best of all rounds, and all of them."""
    lines = ["| figure | best | every round |", "| --- | --- | --- |"]
    for title, name, choose in _ROWS:
        values = figures.values.get(name, [])
        rounds = ", ".join(number(value) for value in values)
        lines.append(f"| {title} | {number(choose(figures, name))} | {rounds if len(values) > 1 else ''} |")
    return "\n".join(lines)


def verdict(figures: Figures) -> str:
    """Say in one sentence whether the bar was reached, and what a new image costs beside its registry."""
    p99 = figures.best("cached.p99_ms")
    if p99 is None:
        return "The bar was not measured."
    reached = "reached" if p99 <= BAR_P99_MS else "**missed**"
    new, manifest = figures.best("uncached.p50_ms"), figures.best("registry.manifest_p50_ms")
    ratio = f" A new image takes {new / manifest:.1f} manifests of its registry." if new and manifest else ""
    return f"The bar, p99 ≤ {BAR_P99_MS:g} ms with a known image, is {reached}: {number(p99)} ms.{ratio}"
