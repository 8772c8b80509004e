"""How windows become figures, and figures verdicts."""

from pathlib import Path

import pytest

from bench.bars import AD_BINARY_1, AD_BINARY_8, LIMITS, jobs_for
from bench.contenders import ECHO, OURS
from bench.loadgen import Answered
from bench.misses import REASONS, missed_list
from bench.raw import RawWindow
from bench.report import bars_table, footprint_table, verdict, windows_table
from bench.results import Results, Window, batch_share


def window(per_second, *, cpu_us=10.0, p50_ms=0.1, p99_ms=1.0, raw=(100.0, 100.0)):
    around = tuple(RawWindow(calls, 1e6 / calls, 1e6 / calls) for calls in raw)
    return Window(Answered(per_second * 2, 2.0, p50_ms, p99_ms), cpu_us, (around[0], around[1]))


def limit(bar, words):
    return next(one for one in LIMITS if one.bar == bar and words in one.what)


def test_the_better_raw_window_counts():
    assert window(100, raw=(200.0, 50.0)).ratio == 0.5


def test_a_disturbed_raw_loop_flatters_nobody():
    disturbed = RawWindow(per_second=10.0, median_us=1e4, cpu_us=1e4)

    assert Window(Answered(100, 2.0, 0.1, 1.0), 10.0, (disturbed, disturbed)).ratio == 0.5


def test_windows_are_chosen_by_what_ran_next_to_them():
    results = Results()
    results.windows[OURS, AD_BINARY_8] = [window(300, raw=(300.0, 300.0)), window(160, raw=(80.0, 80.0))]

    best = results.best(OURS, AD_BINARY_8)

    assert best is not None
    assert best.per_second == 160
    assert limit(1, "x raw").holds(results) is True
    assert limit(1, "p99").holds(results) is True
    assert results.best("kserve", AD_BINARY_8) is None


def test_what_was_not_measured_is_neither_reached_nor_missed():
    results = Results()

    assert {one.holds(results) for one in LIMITS} == {None}
    assert verdict(results, [1, 2]) == "0 of 2 bars are reached."


def test_peers_are_compared_by_the_raw_windows_around_them():
    results = Results()
    results.windows[OURS, AD_BINARY_8] = [window(200, raw=(100.0, 100.0))]
    results.windows["fastapi", AD_BINARY_8] = [window(100, raw=(400.0, 400.0))]

    assert limit(2, "FastAPI").figure(results) == pytest.approx(8)


def test_the_ceiling_is_what_http_and_the_runtime_leave():
    results = Results(facts={batch_share("ad"): 0.08})
    results.windows[ECHO, AD_BINARY_8] = [window(1000, cpu_us=8.0, raw=(40_000.0, 40_000.0))]
    results.windows[ECHO, AD_BINARY_1] = [window(1000, p50_ms=0.075, raw=(40_000.0, 40_000.0))]
    eight, one = limit(1, "x raw").ceiling, limit(3, "x raw").ceiling

    assert eight is not None
    assert one is not None
    assert eight(results) == pytest.approx(25 / (8 + 2))
    assert one(results) == pytest.approx(25 / (75 + 25))


def test_a_missed_limit_misses_its_bar():
    results = Results()
    results.windows[OURS, AD_BINARY_8] = [window(200, p99_ms=1.6)]

    assert verdict(results, [1]) == "0 of 1 bars are reached; missed: 1."
    assert "| ≤ 1.5 | 1.6 " in bars_table(results, [1])
    assert "200" in windows_table(results)


def test_footprints_are_one_row_per_server_and_model():
    results = Results(
        facts={
            f"cold.{OURS}.ad.seconds": 0.25,
            f"memory.{OURS}.ad.load_mb": 64.5,
            "cold.kserve.ad.seconds": 2.5,
        }
    )

    rows = footprint_table(results).splitlines()[2:]

    assert [row.split()[1] for row in rows] == [OURS, "kserve"]
    assert "0.25" in rows[0]
    assert "64.5" in rows[0]


def test_only_the_loads_of_the_chosen_bars_are_measured():
    assert {(contender.label, str(load)) for contender, load in jobs_for([1], ["kserve"])} == {
        (OURS, "ad binary c=8"), (ECHO, "ad binary c=8"), ("kserve", "ad binary c=8")
    }  # fmt: skip


def test_what_was_missed_is_said_with_how_much_and_why():
    results = Results(facts={batch_share("ad"): 0.25})
    results.windows[OURS, AD_BINARY_8] = [window(30_000, cpu_us=30.0, raw=(40_000.0, 40_000.0))]
    results.windows[ECHO, AD_BINARY_8] = [window(100_000, cpu_us=8.0, raw=(40_000.0, 40_000.0))]

    said = " ".join(missed_list(results, [1]).split())

    assert said.startswith("- **1**, `ad` binary c=8, x raw: 0.75, 50 % below 1.5.")
    assert "the echo takes 8 and the runtime in its best batch 6.25; the other 15.8 are ours" in said
    assert said.endswith("the limit leaves 2.42.")


def test_a_limit_above_the_ceiling_is_called_out_of_reach():
    results = Results()
    results.windows[OURS, AD_BINARY_1] = [window(4_000, raw=(40_000.0, 40_000.0))]
    results.windows[ECHO, AD_BINARY_1] = [window(10_000, p50_ms=0.075, raw=(40_000.0, 40_000.0))]

    assert "x raw: 0.1, 80 % below 0.5. It is out of reach on this machine: the ceiling is 0.25." in (
        missed_list(results, [3])
    )


def test_where_no_figure_tells_why_that_is_said():
    assert missed_list(Results(facts={"image.unpacked_mb": 190.0}), [12]) == (
        "- **12**, Python in the ONNX image, unpacked MB: 190, 100 % above 95. Why was not measured."
    )
    assert missed_list(Results(), [12]) == "Nothing was missed."


def test_every_reason_belongs_to_a_limit():
    assert set(REASONS) <= {(one.bar, one.what) for one in LIMITS}


def test_the_page_names_every_limit_that_its_run_missed():
    page = (Path(__file__).parents[2] / "docs/benchmarks.md").read_text()
    table, _, reasons = page.partition("## Every load")[0].partition("## What was missed")
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines() if "**missed**" in line]
    assert rows
    for _, bar, what, _, measured, *_ in rows:
        assert f"- **{bar}**, {what}: {measured}, " in reasons
