"""Running a build as a Job: made or found again, listened to, and deleted when nobody wants it.

Nothing is remembered between two operators. The Job's name follows from what is to be built: an operator that
starts again makes the same Job, is told that it exists, and listens on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus

from edgemodel_operator.adapters.jobs import Jobs, JobSeen, Raw
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step, fail
from edgemodel_operator.build.jobs.answer import LongAnswer, read_note
from edgemodel_operator.build.jobs.log_reader import LogReader, find_long_answer
from edgemodel_operator.build.jobs.manifest import make_job
from edgemodel_operator.build.jobs.plan import JobPlan
from edgemodel_operator.build.jobs.trouble import (
    has_ended,
    is_running,
    termination_message,
    why_ended,
    why_not_started,
    why_refused,
)
from edgemodel_operator.build.request import BuildResult, Progress
from edgemodel_operator.settings import BuildSettings

LOOK_SECONDS = 1.0
REPLACE_SECONDS = 30.0
"""How long a finished Job may take to go before the new one of its name."""
MAX_REMEMBERED = 1024

_REFUSALS = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN, HTTPStatus.UNPROCESSABLE_ENTITY})
_log = logging.getLogger("edgemodel.build")


class JobRunner:
    """Runs builds as Jobs; safe to be killed at any moment."""

    def __init__(
        self, jobs: Jobs, settings: BuildSettings, *, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        """`is_stopping` tells whether the operator itself ends: then Jobs go on, for the next one to hear."""
        self._jobs = jobs
        self._settings = settings
        self._is_stopping = is_stopping
        self._heard: dict[tuple[str, str], str] = {}
        """The UID of the Job whose answer was taken, by namespace and name: another try needs another Job."""

    async def run(
        self,
        plan: JobPlan,
        *,
        on_progress: Callable[[Progress], None],
        on_waiting: Callable[[str], None],
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> BuildResult:
        """Build, and give the result. Raises BuildError, and KubeError when the API cannot be asked.

        A Job that cannot start is a failure at once, but it stays: what is mended lets it start, and the next
        try listens to the same one. Cancellation deletes it unless it `is_wanted` all the same.
        """
        reader = LogReader(self._jobs, plan.namespace, on_progress)
        try:
            await self.remove_jobs(plan.namespace, plan.labels, lambda job: name_of(job) != plan.name)
            await self._ensure(plan)
            seen = await self._wait(plan, reader, on_waiting)
            return await self._take_answer(plan, seen, reader.step)
        except asyncio.CancelledError:
            if not (self._is_stopping() or is_wanted()):
                await self._forget(plan)
            raise
        finally:
            reader.stop()

    async def remove_jobs(
        self, namespace: str, labels: Mapping[str, str], is_old: Callable[[Raw], bool] = lambda _: True
    ) -> None:
        """Delete the Jobs with these labels that are old; none where we may not look for Jobs."""
        selector = ",".join(f"{key}={value}" for key, value in labels.items())
        for job in await self._jobs.find(namespace, selector):
            if is_old(job):
                await self._jobs.delete(namespace, name_of(job))

    async def _ensure(self, plan: JobPlan) -> None:
        """Make the Job unless it is there; one whose answer was taken is made anew."""
        document = make_job(plan, self._settings)
        try:
            async with asyncio.timeout(REPLACE_SECONDS):
                while not await self._jobs.create(document):
                    job = await self._jobs.get(plan.namespace, plan.name)
                    if job is not None and not self._is_used(plan, job["metadata"]):
                        return
                    await self._jobs.delete(plan.namespace, plan.name)
                    await asyncio.sleep(LOOK_SECONDS / 4)
        except KubeError as error:
            if error.status in _REFUSALS:
                raise why_refused(plan, str(error)) from error
            raise
        except TimeoutError as error:
            what = f"{plan.where}, which has ended, could not be replaced in {REPLACE_SECONDS:g} seconds."
            raise fail(Reason.JOB_NOT_STARTED, what) from error

    def _is_used(self, plan: JobPlan, metadata: dict[str, str]) -> bool:
        heard = self._heard.get((plan.namespace, plan.name))
        return "deletionTimestamp" in metadata or metadata["uid"] == heard

    async def _wait(self, plan: JobPlan, reader: LogReader, on_waiting: Callable[[str], None]) -> JobSeen:
        begun = time.monotonic()
        while True:
            seen = await self._jobs.look(plan.namespace, plan.name)
            if seen is None:
                raise fail(Reason.JOB_INTERRUPTED, f"{plan.where} was deleted; the build starts again.")
            if has_ended(seen):
                return seen
            if is_running(seen) and seen.pod is not None:
                reader.start(seen.pod["metadata"]["name"])
            else:
                trouble = why_not_started(plan, seen, time.monotonic() - begun)
                if trouble is not None:
                    raise trouble
                on_waiting(f"waiting for {plan.where} to start")
            await asyncio.sleep(LOOK_SECONDS)

    async def _take_answer(self, plan: JobPlan, seen: JobSeen, step: Step | None) -> BuildResult:
        self._remember(plan, seen.job["metadata"]["uid"])
        answer: object = read_note(termination_message(seen))
        if isinstance(answer, LongAnswer) and seen.pod is not None:
            pod = seen.pod["metadata"]["name"]
            answer = await find_long_answer(self._jobs, plan.namespace, pod, answer)
        if isinstance(answer, BuildResult):
            return answer
        if isinstance(answer, BuildFailure):
            raise BuildError(answer)
        failure = why_ended(plan, seen, self._settings).failure
        raise BuildError(failure.model_copy(update={"step": step or failure.step}))

    def _remember(self, plan: JobPlan, uid: str) -> None:
        self._heard[plan.namespace, plan.name] = uid
        while len(self._heard) > MAX_REMEMBERED:
            del self._heard[next(iter(self._heard))]

    async def _forget(self, plan: JobPlan) -> None:
        with suppress(KubeError):
            await asyncio.shield(self._jobs.delete(plan.namespace, plan.name))
            _log.info("%s is not wanted any more and was deleted", plan.where)


def name_of(job: Raw) -> str:
    """Give the name of a Job."""
    return str(job["metadata"]["name"])
