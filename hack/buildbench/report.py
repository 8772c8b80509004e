"""The tables: bars with their figures, and what every contender took."""

from __future__ import annotations

from collections.abc import Sequence

from buildbench.bars import LIMITS
from buildbench.samples import Samples

SCENARIOS = {
    "change": "all weights changed",
    "head": "head retrained",
    "cold": "nothing built before",
    "big": "a model of 1 GiB",
}
CONTENDERS = {
    "ours": "ours",
    "assembled": "ours, and the runtime image built",
    "graft": "buildah, COPY on our runtime image",
    "copy": "buildah, COPY on the base",
    "run": "buildah, RUN on the base, qemu",
}
_FIGURES = ("wall_s", "cpu_s", "largest_mb", "sum_mb", "pushed_mb")
_HEAD = (
    "build",
    "contender",
    "wall s",
    "CPU s",
    "largest process MB",
    "all processes MB",
    "pushed MB",
    "rounds",
)
_VERDICTS = {True: "reached", False: "**missed**", None: "not measured"}


def bars_table(samples: Samples) -> str:
    """Give one row per limit."""
    rows = [
        (
            str(limit.bar),
            limit.what,
            limit.bound,
            number(limit.figure(samples)),
            _VERDICTS[limit.holds(samples)],
        )
        for limit in LIMITS
    ]
    return _table(("bar", "figure", "limit", "measured", ""), rows)


def builds_table(samples: Samples) -> str:
    """Give one row per build and contender: the least of each figure."""
    rows = []
    for scenario, build in SCENARIOS.items():
        for contender, name in CONTENDERS.items():
            taken = samples.values.get(f"{scenario}.{contender}.wall_s")
            if taken:
                cells = [number(samples.best(f"{scenario}.{contender}.{figure}")) for figure in _FIGURES]
                rows.append((build, name, *cells, str(len(taken))))
    return _table(_HEAD, rows)


def other_figures(samples: Samples) -> str:
    """Give what is in no build: the least and the greatest."""
    rows = [
        (name, number(min(values)), number(max(values)), str(len(values)))
        for name, values in sorted(samples.values.items())
        if name.partition(".")[0] not in SCENARIOS
    ]
    return _table(("figure", "least", "greatest", "samples"), rows)


def verdict(samples: Samples) -> str:
    """Say in one sentence how many bars were reached."""
    bars = sorted({limit.bar for limit in LIMITS})
    held = {bar: [limit.holds(samples) for limit in LIMITS if limit.bar == bar] for bar in bars}
    reached = sum(1 for values in held.values() if all(values))
    missed = [str(bar) for bar, values in held.items() if False in values]
    sentence = f"{reached} of {len(held)} bars are reached"
    return sentence + (f"; missed: {', '.join(missed)}." if missed else ".")


def number(value: float | None) -> str:
    """Write a figure with three digits that mean something."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    padded = ([cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in padded)
