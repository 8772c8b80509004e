"""What was missed, by how much, and why: as far as the samples of the run itself say so, and no farther."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from buildbench.bars import LIMITS, Limit
from buildbench.report import number
from buildbench.samples import Samples

UNKNOWN = "Why was not measured."

Reason = Callable[[Samples, Limit], str]
"""Says why a limit was missed; empty where the run does not hold the samples for it."""


def missed_list(samples: Samples) -> str:
    """Give one line for each limit that was missed."""
    missed = [limit for limit in LIMITS if limit.holds(samples) is False]
    return "\n".join(_line(limit, samples) for limit in missed) or "Nothing was missed."


def _line(limit: Limit, samples: Samples) -> str:
    measured, bound = limit.figure(samples), _bound(limit)
    assert measured is not None  # noqa: S101 - what was not measured is not missed
    percent = abs(measured - bound) / bound * 100
    how = "below" if limit.at_least is not None else "above"
    reason = REASONS.get((limit.bar, limit.what))
    why = reason(samples, limit) if reason else ""
    what = f"- **{limit.bar}**, {_named(limit)}: {number(measured)}, {percent:.0f} % {how} {bound:g}."
    text = f"{what} {why or UNKNOWN}"
    return textwrap.fill(text, 128, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _named(limit: Limit) -> str:
    """Name a limit where the row above it is not there to say what `…` stands for."""
    above = [one.what for one in LIMITS[: LIMITS.index(limit) + 1] if not one.what.startswith("…")]
    return limit.what.replace("…", f"{above[-1].partition(',')[0]},")


def _bound(limit: Limit) -> float:
    bound = limit.at_least if limit.at_least is not None else limit.at_most
    assert bound is not None  # noqa: S101 - a limit has one of them
    return bound


def _more_is_done(samples: Samples, limit: Limit) -> str:
    ours, theirs = samples.best("change.ours.wall_s"), samples.best("change.copy.wall_s")
    if ours is None or theirs is None:
        return ""
    return (
        f"The Dockerfile takes {number(theirs)} s and ours {number(ours)}; the limit leaves "
        f"{number(theirs / _bound(limit))}. Ours fetches, inspects, splits, compares outputs and documents, "
        "the Dockerfile copies. What each step takes was not measured in this run."
    )


def _runtime_image(samples: Samples, _limit: Limit) -> str:
    whole, ours = samples.best("cold.assembled.wall_s"), samples.best("cold.ours.wall_s")
    if whole is None or ours is None:
        return ""
    return (
        f"Of {number(whole)} s the runtime image takes {number(whole - ours)}, which is built once for all "
        "models. What its steps take was not measured in this run."
    )


def _loop(samples: Samples, _limit: Limit) -> str:
    computing = samples.best("loop.longest_cpu_ms")
    if computing is None:
        return ""
    return (
        f"The operator computed for {number(computing)} ms at most without a pause; what else held it up "
        "was not measured. Other work on the machine counts here: see the load average."
    )


REASONS: dict[tuple[int, str], Reason] = {
    (3, "… times less wall than COPY on the base"): _more_is_done,
    (6, "… with its runtime image built too"): _runtime_image,
    (9, "50 models at once, longest block of the loop, ms"): _loop,
}
"""By bar and figure."""
