"""Progress on standard error: lines in a log, bars on a terminal, or nothing."""

from __future__ import annotations

import io
import sys

import pytest

from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.request import Progress
from edgemodel_operator.cli.progress import Style, showing

SAID = [
    Progress(step=Step.DOWNLOAD),
    Progress(step=Step.DOWNLOAD, done=10_000_000, total=25_000_000),
    Progress(step=Step.DOWNLOAD, done=25_000_000, total=25_000_000),
    Progress(step=Step.ASSEMBLE),
    Progress(step=Step.PUSH, done=0, total=0),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(style: Style) -> None:
    with showing(style, "onnxruntime-cpu") as display:
        for progress in SAID:
            display.show(progress)


def shown_on_a_terminal(style: Style, patch: pytest.MonkeyPatch) -> str:
    screen = Terminal()
    patch.setattr(sys, "stderr", screen)
    patch.setenv("TERM", "xterm")
    patch.setenv("COLUMNS", "100")
    show(style)
    return screen.getvalue()


def test_a_log_gets_one_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    show(Style.AUTO)
    assert capsys.readouterr().err.splitlines() == [
        "onnxruntime-cpu: Download",
        "onnxruntime-cpu: Assemble",
        "onnxruntime-cpu: Push",
    ]


def test_a_terminal_gets_bars_with_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown_on_a_terminal(Style.AUTO, monkeypatch)
    assert "onnxruntime-cpu" in text
    assert "Download" in text
    assert "25.0 of 25.0 MB" in text
    assert "\x1b[" in text


def test_lines_can_be_had_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown_on_a_terminal(Style.PLAIN, monkeypatch).splitlines()
    assert lines[0] == "onnxruntime-cpu: Download"


def test_none_means_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_on_a_terminal(Style.NONE, monkeypatch) == ""
