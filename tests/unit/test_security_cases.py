"""The table of cases in docs/security.md is complete and true: each number has its tests, by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "security.md"
CASES = (*range(1, 44), 67, 68)
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"def test_case_(\d\d)[a-z]?_")


def rows() -> dict[int, str]:
    """Give the last column of the table by number."""
    return {int(number): proof for number, _, proof in ROW.findall(PAGE.read_text(encoding="utf-8"))}


def proofs() -> dict[int, set[str]]:
    """Give the test files that prove each case."""
    found: dict[int, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for number in TEST.findall(path.read_text(encoding="utf-8")):
            found.setdefault(int(number), set()).add(str(path.relative_to(ROOT / "tests")))
    return found


def test_the_table_names_every_case() -> None:
    assert tuple(sorted(rows())) == CASES


def test_no_test_has_a_number_that_is_no_case() -> None:
    assert set(proofs()) <= set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_a_case_is_proved_where_the_table_says_or_the_table_says_why_not(case: int) -> None:
    row, files = rows()[case], proofs().get(case, set())
    named = set(re.findall(r"`([\w/]+\.py)`", row))
    assert named == files
    assert files or row.startswith("does not apply: ")
