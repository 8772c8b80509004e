"""The threads that compute what is too slow for the loop: as many as there are processors to use."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from edgemodel_server.datatypes import Tensor
from edgemodel_server.inference import InferRequest
from edgemodel_server.runtimes import Model


class Job:
    """One computation: what to run, and afterwards either ``outputs`` or ``error``, with monotonic times."""

    __slots__ = ("done", "error", "finished", "model", "outputs", "queued", "request", "started")

    def __init__(self, model: Model, request: InferRequest, done: "Callable[[Job], None]") -> None:
        self.model = model
        self.request = request
        self.done = done
        self.queued = self.started = self.finished = time.monotonic()
        self.outputs: list[Tensor] = []
        self.error: Exception | None = None

    def run(self) -> None:
        """Compute, and keep the outcome; never raises."""
        self.started = time.monotonic()
        try:
            self.outputs = self.model.run(self.request.inputs, self.request.output_names)
        except Exception as error:
            self.error = error
        self.finished = time.monotonic()


class Workers:
    """Threads that take jobs in turn and report each on the loop's thread. They start with the first job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self._loop = loop
        self._count = count
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._started = False

    def submit(self, job: Job) -> None:
        """Queue a job; ``job.done(job)`` is called on the loop's thread when it ended."""
        if not self._started:
            self._started = True
            for number in range(self._count):
                threading.Thread(target=self._work, name=f"worker-{number}", daemon=True).start()
        self._jobs.put(job)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            job.run()
            try:
                self._loop.call_soon_threadsafe(job.done, job)
            except RuntimeError:  # the loop is closed: the process is about to exit
                return
