"""The benchmark of admission: quantiles, its table, and its place on the page beside the others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from admissionbench import document
from admissionbench.agenda import Figures
from admissionbench.asking import Answer, Tally
from admissionbench.report import table, verdict
from bench.document import ADMISSION, BUILDING, written_by_others


def test_quantiles_are_of_all_answers_in_milliseconds() -> None:
    tally = Tally([Answer(number / 1000, allowed=number > 1) for number in range(100, 0, -1)], seconds=2.0)
    assert (tally.quantile(0.5), tally.quantile(0.99), tally.quantile(1)) == (51, 100, 100)
    assert tally.per_second == 50
    assert tally.count(lambda answer: not answer.allowed) == 1


@pytest.mark.parametrize(("rounds", "said"), [((7.0, 4.9), "reached"), ((5.1, 9.0), "**missed**")])
def test_the_best_round_is_held_against_the_bar(rounds: tuple[float, ...], said: str) -> None:
    figures = Figures({"cached.p99_ms": list(rounds)})
    assert f"is {said}: {min(rounds):g} ms" in verdict(figures)
    assert f"| … p99 ms | {min(rounds):g} | {rounds[0]:g}, {rounds[1]:g} |" in table(figures)
    assert verdict(Figures()) == "The bar was not measured."


def test_the_sections_of_the_page_leave_each_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["admissionbench"])
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Serving\n\n{BUILDING}\n# Building\n")
    for p99 in (4.0, 3.0):
        document.write_section(page, Figures({"cached.p99_ms": [p99]}))
    text = page.read_text()
    assert text.startswith("# Serving\n")
    assert text.endswith(f"{BUILDING}\n# Building\n")
    assert text.count(ADMISSION) == 1
    assert "is reached: 3 ms" in text
    assert written_by_others(page) == f"\n{text[text.index(ADMISSION) :]}"
