"""What is printed: the bars with their figures, and everybody's best window."""

from __future__ import annotations

from collections.abc import Sequence

from bench.bars import LIMITS, Figure
from bench.contenders import OURS
from bench.results import Load, Results, Window

_FOOTPRINTS = ("cold.", "memory.")
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
    for label, load in sorted(results.windows, key=lambda key: (_order(key[1]), key[0] != OURS)):
        window = results.best(label, load)
        assert window is not None  # noqa: S101 - the keys are those of measured windows
        rows.append((str(load), label, *_cells(window)))
    return _table(
        ("load", "server", "requests/s", "p50 ms", "p99 ms", "CPU µs/request", "x raw", "CPU x raw"), rows
    )


def footprint_table(results: Results) -> str:
    """Return one row per contender and model whose start and memory were measured."""
    kinds = {key.rpartition(".")[0].partition(".")[2] for key in results.facts if key.startswith(_FOOTPRINTS)}
    rows = []
    for kind in sorted(kinds, key=lambda kind: (not kind.startswith(OURS), kind)):
        label, _, model = kind.rpartition(".")
        names = (f"cold.{kind}.seconds", f"cold.{kind}.cpu_seconds", f"memory.{kind}.idle_mb",
                 f"memory.{kind}.load_mb", f"memory.{kind}.load_rss_mb", f"memory.{kind}.requests",
                 f"memory.{kind}.drift_percent")  # fmt: skip
        rows.append((label, model, *(_cell(results.facts.get(name)) for name in names)))
    head = ("start s", "start CPU s", "PSS idle MB", "PSS load MB", "RSS load MB", "requests", "drift %")
    return _table(("server", "model", *head), rows)


def other_facts(results: Results) -> str:
    """Return the figures that are in no table."""
    facts = sorted(results.facts.items())
    rows = [(name, number(value)) for name, value in facts if not name.startswith(_FOOTPRINTS)]
    return _table(("figure", "value"), rows)


def verdict(results: Results, bars: Sequence[int]) -> str:
    """Say in one sentence how many of the chosen bars were reached."""
    held = {bar: [limit.holds(results) for limit in LIMITS if limit.bar == bar] for bar in bars}
    reached = [bar for bar in bars if all(held[bar])]
    missed = [str(bar) for bar in bars if False in held[bar]]
    sentence = f"{len(reached)} of {len(bars)} bars are reached"
    return sentence + (f"; missed: {', '.join(missed)}." if missed else ".")


def _order(load: Load) -> tuple[int, Load]:
    return ("iris", "ad", "mbv2").index(load.model), load


def _cells(window: Window) -> tuple[str, ...]:
    answered = window.answered
    speed = (window.per_second, answered.p50_ms, answered.p99_ms)
    figures = (*speed, window.cpu_us, window.ratio, window.cpu_ratio)
    return tuple(map(number, figures))


def _bound(at_least: float | None, at_most: float | None) -> str:
    return f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"


def _figure(figure: Figure | None, results: Results) -> str:
    return _cell(figure(results) if figure else None)


def _cell(value: float | None) -> str:
    return "" if value is None else number(value)


def number(value: float) -> str:
    """Write a figure with three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
