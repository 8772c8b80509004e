"""The bars of building: read from samples, written as tables, kept in their section of the page."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from bench.document import BUILDING, written_by_others
from bench.machine import BenchError
from buildbench import document
from buildbench.bars import LIMITS
from buildbench.meter import Cost, meter
from buildbench.misses import REASONS, missed_list
from buildbench.report import bars_table, builds_table, verdict
from buildbench.samples import Samples


def cost(wall: float, memory: float = 60.0) -> Cost:
    return Cost(wall, wall / 2, memory, memory * 2)


@pytest.fixture
def samples() -> Samples:
    taken = Samples()
    for wall, pushed in ((1.6, 22_000_000), (1.2, 22_100_000)):
        taken.add_cost("change", "ours", cost(wall), pushed)
    for wall in (20.0, 15.6):
        taken.add_cost("change", "copy", cost(wall), 23_000_000)
    taken.add_cost("head", "ours", cost(1.1), 1_300_000)
    return taken


def row(samples: Samples, bar: int) -> list[str]:
    line = next(line for line in bars_table(samples).splitlines() if line.startswith(f"| {bar} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_best_is_held_against_the_best(samples: Samples) -> None:
    assert row(samples, 1)[3:] == ["1.2", "reached"]
    assert row(samples, 3)[3:] == ["13", "reached"]


def test_bytes_and_memory_count_at_their_worst(samples: Samples) -> None:
    samples.add_cost("change", "ours", cost(1.0, memory=130.0), 22_000_000)
    assert row(samples, 2)[3:] == ["130", "**missed**"]
    assert row(samples, 4)[3:] == ["22.1", "reached"]


def test_a_missed_bar_is_said_and_one_that_was_not_measured_too(samples: Samples) -> None:
    assert row(samples, 5)[3:] == ["1.3", "**missed**"]
    assert row(samples, 9)[3:] == ["", "not measured"]
    bars = {limit.bar for limit in LIMITS}
    assert verdict(samples) == f"4 of {len(bars)} bars are reached; missed: 5."


def test_a_bar_with_two_limits_needs_both(samples: Samples) -> None:
    for contender, wall in (("run", 100.0), ("ours", 5.0), ("assembled", 20.0)):
        samples.add_cost("cold", contender, cost(wall), 1)
    rows = [line for line in bars_table(samples).splitlines() if line.startswith("| 6 ")]
    assert ["reached" in line for line in rows] == [True, False]
    assert verdict(samples).endswith("missed: 5, 6.")


def test_what_was_missed_is_said_with_how_much_and_why(samples: Samples) -> None:
    assert missed_list(samples) == (
        "- **5**, retrained head, MB pushed: 1.3, 8 % above 1.2. Why was not measured."
    )
    samples.add_cost("change", "copy", cost(6.0), 23_000_000)
    said = " ".join(missed_list(samples).split())
    assert said.startswith(
        "- **3**, model-only change, times less wall than COPY on the base: 5, 58 % below 12. "
        "The Dockerfile takes 6 s and ours 1.2; the limit leaves 0.5."
    )


def test_every_reason_belongs_to_a_limit() -> None:
    assert set(REASONS) <= {(limit.bar, limit.what) for limit in LIMITS}


def test_every_build_has_a_row_with_the_least_of_each_figure(samples: Samples) -> None:
    rows = builds_table(samples).splitlines()[2:]
    assert len(rows) == 3
    assert [cell.strip() for cell in rows[0].strip("|").split("|")] == [
        "all weights changed", "ours", "1.2", "0.6", "60", "120", "22", "2",
    ]  # fmt: skip


def test_the_section_takes_the_place_of_the_one_of_before(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "benchmarks.md"
    page.write_text("# Serving\n\ntables\n")
    assert written_by_others(page) == ""
    monkeypatch.setattr(document, "describe_run", lambda samples: {"date": "today"})
    document.write_section(page, samples)
    once = page.read_text()
    document.write_section(page, samples)
    assert page.read_text() == once
    assert once.startswith(f"# Serving\n\ntables\n\n{BUILDING}\n# Benchmarks of building\n")
    assert written_by_others(page) == once.removeprefix("# Serving\n\ntables\n")
    assert "{" not in once


def test_the_meter_sees_time_memory_and_output() -> None:
    code = "import sys; data = bytearray(80_000_000); print(sys.stdin.read()); sum(range(3_000_000))"
    taken, said = meter([sys.executable, "-c", code], stdin=b"hello")
    assert said == "hello\n"
    assert taken.wall_s > 0
    assert taken.cpu_s > 0
    assert taken.largest_mb > 80
    assert taken.sum_mb > 80


def test_the_meter_says_what_a_command_said_that_failed() -> None:
    with pytest.raises(BenchError, match=r"ended with 3: .*broken"):
        meter([sys.executable, "-c", "import sys; sys.exit(print('broken', file=sys.stderr) or 3)"])


def test_an_interrupted_meter_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(pid: int, options: int) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    monkeypatch.setattr("buildbench.meter.os.wait4", interrupt)
    with pytest.raises(KeyboardInterrupt):
        meter(["sleep", "600"])
    assert time.monotonic() - began < 300  # it was waited for, and did not sleep to its end
