"""Time that passes only where everybody sleeps: minutes of waiting take none, and their length is exact."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from typing_extensions import override

_Result = TypeVar("_Result")


class _Loop(asyncio.SelectorEventLoop):
    """Goes on to the next timer instead of waiting for it. Nothing from outside is waited for: no threads."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    @override
    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        # Both are what the loop itself looks at when it decides how long to wait.
        timers = [one.when() for one in self._scheduled if not one.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and timers:  # type: ignore[attr-defined]
            self._now = max(self._now, min(timers))
        super()._run_once()  # type: ignore[misc]


def run_in_virtual_time(main: Coroutine[Any, Any, _Result]) -> _Result:
    """Run to the end, as `asyncio.run` does; `loop.time()` begins at zero seconds."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main)


def seconds() -> float:
    """Tell how much of it has passed."""
    return asyncio.get_running_loop().time()
