"""Following the log of a build's pod for its progress: whatever becomes of the log decides nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import aclosing

from edgemodel_operator.adapters.jobs import Jobs
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.jobs.answer import LongAnswer, is_answer, read_line, read_note
from edgemodel_operator.build.request import Progress

RETRY_SECONDS = 1.0
MAX_SHOWN = 2000

_log = logging.getLogger("edgemodel.build")


class LogReader:
    """Reads one pod's log in the background, from where a broken stream ended."""

    def __init__(self, jobs: Jobs, namespace: str, on_progress: Callable[[Progress], None]) -> None:
        self._jobs = jobs
        self._namespace = namespace
        self._on_progress = on_progress
        self._task: asyncio.Task[None] | None = None
        self.step: Step | None = None
        """The step that was told last."""

    def start(self, pod: str) -> None:
        """Begin to read, unless begun."""
        if self._task is None:
            self._task = asyncio.create_task(self._read(pod), name=f"log of {pod}")

    def stop(self) -> None:
        """End reading."""
        if self._task is not None:
            self._task.cancel()

    async def _read(self, pod: str) -> None:
        last = ""
        while True:
            try:
                async with aclosing(self._jobs.follow(self._namespace, pod, last)) as lines:
                    async for line in lines:
                        last = line.stamp
                        self._take(line.text, pod)
            except KubeError as error:
                _log.debug("the log of %s/%s broke off: %s", self._namespace, pod, error)
            await asyncio.sleep(RETRY_SECONDS)

    def _take(self, text: bytes, pod: str) -> None:
        message = read_line(text)
        if isinstance(message, Progress):
            self.step = message.step
            self._on_progress(message)
        elif message is None:
            _log.debug("%s (pod %s)", text[:MAX_SHOWN].decode(errors="replace"), pod)


async def find_long_answer(jobs: Jobs, namespace: str, pod: str, wanted: LongAnswer) -> object:
    """Look an answer up in the log of a pod that has ended; None if it is not there any more."""
    try:
        async with aclosing(jobs.follow(namespace, pod, follow=False)) as lines:
            async for line in lines:
                if is_answer(line.text, wanted):
                    return read_note(line.text.decode())
    except KubeError as error:
        _log.warning("the log of %s/%s cannot be read: %s", namespace, pod, error)
    return None
