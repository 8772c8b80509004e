"""Asking libraries for their operators: ranges of versions, and questions that crash who is asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from imagebuild.operators.probing import ask_all, find_names
from imagebuild.operators.ranges import join_versions


def test_versions_are_joined_to_ranges() -> None:
    assert join_versions([]) == []
    assert join_versions([3, 1, 2, 7, 7, 9, 10]) == [[1, 3], [7, 7], [9, 10]]


def test_who_crashes_knew_what_it_was_asked() -> None:
    def knows(question: str) -> bool:
        return os.abort() if question == "crash" else question == "known"

    asked = ["known", "crash", "unknown", "crash", "known", "crash"]
    assert ask_all(asked, knows) == [True, True, False, True, True, True]


def test_a_question_that_raises_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match="nothing was said of 0"):
        ask_all([1, 0], lambda question: 1 // question > 0)


def test_names_are_found_in_a_library(tmp_path: Path) -> None:
    (tmp_path / "lib.so").write_bytes(b"\x7fELF\0Name\0na me\0Other\0")
    assert find_names(tmp_path / "lib.so", rb"(?<=\0)([A-Z][a-z]+)(?=\0)") == {"Name", "Other"}
