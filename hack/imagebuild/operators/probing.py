"""Asking a native library that was not made to be asked: by nonsense, which may crash it."""

from __future__ import annotations

import faulthandler
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Question = TypeVar("Question")


def ask_all(questions: Sequence[Question], knows: Callable[[Question], bool]) -> list[bool]:
    """Ask every question in child processes; one that crashes knew what it was asked, or it had said no."""
    answers: list[bool] = []
    while len(answers) < len(questions):
        said, crashed = _ask_in_child(questions[len(answers) :], knows)
        answers += said + [True] * crashed
    return answers


def _ask_in_child(
    questions: Sequence[Question], knows: Callable[[Question], bool]
) -> tuple[list[bool], bool]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        faulthandler.disable()  # crashes are answers here
        try:
            for question in questions:
                os.write(writer, b"1" if knows(question) else b"0")
        finally:
            os._exit(0)  # no exit handlers of the parent, no flushing of its buffers
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        said = answers.read()
    _, status = os.waitpid(child, 0)
    if status == 0 and len(said) < len(questions):
        raise RuntimeError(f"nothing was said of {questions[len(said)]!r}")
    return [answer == ord("1") for answer in said], os.WIFSIGNALED(status)


def find_names(library: Path, pattern: bytes) -> set[str]:
    """Give what the groups of a pattern match in the bytes of a library."""
    return {match.decode() for match in re.findall(pattern, library.read_bytes())}
