"""Telling how far a build is: bars on a terminal, lines in a log, or nothing. All of it on standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from typing_extensions import override

from edgemodel_operator.build.request import Progress

_MEGABYTE = 1_000_000


class Style(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    """Bars where standard error is a terminal, else lines."""
    PLAIN = "plain"
    NONE = "none"


class Display(Protocol):
    """Shows the progress of one build."""

    def show(self, progress: Progress) -> None:
        """Take what the worker says."""
        ...


@contextmanager
def showing(style: Style, title: str) -> Iterator[Display]:
    """Show the progress of a build of this title while the block lasts."""
    if style is Style.NONE:
        yield _Nothing()
    elif style is Style.PLAIN or not sys.stderr.isatty():
        yield _Lines(title)
    else:
        with Bars(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            TextColumn("{task.fields[moved]:>17}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        ) as bars:
            bars.console.print(title, highlight=False)
            shown = _Bars(bars)
            yield shown
            shown.finish()


class _Nothing(Display):
    @override
    def show(self, progress: Progress) -> None:
        pass


class _Lines(Display):
    """One line for each step."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._step: str | None = None

    @override
    def show(self, progress: Progress) -> None:
        if progress.step.value != self._step:
            self._step = progress.step.value
            print(f"{self._title}: {self._step}", file=sys.stderr, flush=True)


class _Bars(Display):
    """One bar for each step."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._step: str | None = None

    @override
    def show(self, progress: Progress) -> None:
        if self._task is None or progress.step.value != self._step:
            self.finish()
            self._step = progress.step.value
            self._task = self._bars.add_task(self._step, total=None, moved="")
        if progress.done:
            moved = f"{progress.done / _MEGABYTE:.1f}"
            moved += f" of {progress.total / _MEGABYTE:.1f} MB" if progress.total else " MB"
            self._bars.update(self._task, completed=progress.done, total=progress.total, moved=moved)

    def finish(self) -> None:
        """Fill the bar of a step that is over, also of one that counted no bytes."""
        if self._task is not None:
            self._bars.update(self._task, completed=1, total=1)
            self._bars.stop_task(self._task)
