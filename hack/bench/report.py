"""What is printed: the bars with their figures, and everybody's best window."""

from __future__ import annotations

from collections.abc import Sequence

from bench.bars import LIMITS, Figure
from bench.measure import Load, Results, Window

_VERDICTS = {True: "reached", False: "**missed**", None: "not measured"}


def bars_table(results: Results, bars: Sequence[int]) -> str:
    """Return one row per limit of the chosen bars."""
    rows = [
        (str(limit.bar), limit.what, _bound(limit.at_least, limit.at_most), _figure(limit.figure, results),
         _figure(limit.ceiling, results), _VERDICTS[limit.holds(results)])
        for limit in LIMITS if limit.bar in bars
    ]  # fmt: skip
    return _table(("bar", "figure", "limit", "measured", "ceiling", ""), rows)


def windows_table(results: Results) -> str:
    """Return one row per contender and load: its best window."""
    rows = []
    for label, load in sorted(
        results.windows, key=lambda key: (_order(key[1]), key[0] != "edgemodel-server")
    ):
        window = results.best(label, load)
        assert window is not None  # noqa: S101 - the keys are those of measured windows
        rows.append((str(load), label, *_cells(window)))
    return _table(
        ("load", "server", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "x raw", "CPU x raw"), rows
    )


def _order(load: Load) -> tuple[int, Load]:
    return ("iris", "ad", "mbv2").index(load.model), load


def _cells(window: Window) -> tuple[str, ...]:
    answered = window.answered
    speed = (window.per_second, answered.p50_ms, answered.p99_ms)
    figures = (*speed, window.cpu_us, window.ratio, window.cpu_ratio)
    return tuple(map(_number, figures))


def _bound(at_least: float | None, at_most: float | None) -> str:
    return f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"


def _figure(figure: Figure | None, results: Results) -> str:
    value = figure(results) if figure else None
    return "" if value is None else _number(value)


def _number(value: float) -> str:
    """Write a figure with three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
