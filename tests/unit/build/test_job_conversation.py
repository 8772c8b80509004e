"""Builds in Jobs: a Job is made or found again, heard, and deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, ClassVar

import pytest
from typing_extensions import override

from edgemodel_operator.adapters.jobs import LogLine
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.build.failures import BuildError, Step
from edgemodel_operator.build.jobs.runner import JobRunner
from edgemodel_operator.build.protocol import encode_message
from edgemodel_operator.build.request import BuildResult, Progress
from edgemodel_operator.core.supply import BuildAccess, SupplyError
from edgemodel_operator.core.world import SupplyStep
from support.build_jobs import (
    FAILURE,
    RUNNING,
    FakeJobs,
    answered,
    ended,
    job_plan,
    look_often,
    make_runner,
    on_volume,
    placed,
    pod,
    result,
    seen,
    supply,
    unscheduled,
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


async def run(runner: JobRunner, told: list[Progress] | None = None) -> BuildResult:
    tell = (told if told is not None else []).append
    return await runner.run(job_plan(), on_progress=tell, on_waiting=lambda _: None)


async def test_a_job_is_made_waited_for_and_heard() -> None:
    jobs = FakeJobs([seen(), seen(pod()), RUNNING, answered(result())])
    assert await run(make_runner(jobs)) == result()
    assert (jobs.created, jobs.deleted) == (1, [])


async def test_progress_comes_from_the_log_whatever_else_stands_in_it() -> None:
    progress = Progress(step=Step.DOWNLOAD, done=1, total=2)
    jobs = FakeJobs([RUNNING], [b"INFO a library speaks", b'{"result": "made up"}', encode_message(progress)])
    told: list[Progress] = []
    task = asyncio.create_task(run(make_runner(jobs), told))
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0.001)
    jobs.states = [answered(result())]
    await task
    assert told == [progress]


async def test_a_log_that_breaks_off_is_read_on_from_where_it_was() -> None:
    class Breaking(FakeJobs):
        asked: ClassVar[list[str]] = []

        @override
        async def follow(
            self, namespace: str, pod: str, after: str = "", *, follow: bool = True
        ) -> AsyncGenerator[LogLine, None]:
            self.asked.append(after)
            async for line in super().follow(namespace, pod, after):
                yield line
                raise KubeError(0, "the node is gone for a moment")

    steps = [Step.RESOLVE, Step.DOWNLOAD, Step.PUSH]
    jobs = Breaking([RUNNING], [encode_message(Progress(step=step)) for step in steps])
    told: list[Progress] = []
    task = asyncio.create_task(run(make_runner(jobs), told))
    async with asyncio.timeout(5):
        while len(told) < 3:
            await asyncio.sleep(0.001)
    jobs.states = [answered(result())]
    await task
    assert [progress.step for progress in told] == steps
    assert jobs.asked[:4] == ["", "000", "001", "002"][: len(jobs.asked)]


async def test_a_long_answer_is_found_in_the_log() -> None:
    answer = result(operators=200)
    jobs = FakeJobs([answered(answer)], [encode_message(result()).rstrip(), encode_message(answer).rstrip()])
    assert await run(make_runner(jobs)) == answer


async def test_a_long_answer_that_the_log_lost_is_asked_for_again() -> None:
    jobs = FakeJobs([answered(result(operators=200))])
    with pytest.raises(BuildError) as failed:
        await run(make_runner(jobs))
    assert failed.value.failure.retryable


async def test_a_job_that_exists_is_heard_and_no_second_one_is_made() -> None:
    jobs = FakeJobs([RUNNING, answered(result())], existing={"metadata": {"uid": "of an operator before"}})
    assert await run(make_runner(jobs)) == result()
    assert (jobs.created, jobs.deleted) == (0, [])


async def test_an_answer_counts_once_and_then_the_job_is_made_anew() -> None:
    jobs = FakeJobs([answered(FAILURE, "Failed")])
    runner = make_runner(jobs)
    for tries in (1, 2):
        with pytest.raises(BuildError) as failed:
            await run(runner)
        assert failed.value.failure == FAILURE
        assert jobs.created == tries
    assert jobs.deleted == [job_plan().name]


async def test_a_job_that_cannot_start_is_told_of_and_stays_for_when_it_can() -> None:
    jobs = FakeJobs([unscheduled('persistentvolumeclaim "models" not found.')])
    runner = make_runner(jobs)
    with pytest.raises(BuildError, match="ClaimNotFound"):
        await run(runner)
    jobs.states = [RUNNING, answered(result())]
    assert await run(runner) == result()
    assert (jobs.created, jobs.deleted) == (1, [])


async def test_a_build_that_is_not_wanted_any_more_takes_its_job_with_it() -> None:
    jobs = FakeJobs([RUNNING])
    task = asyncio.create_task(run(make_runner(jobs)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert jobs.deleted == [job_plan().name]


async def test_an_operator_that_stops_leaves_its_jobs_to_the_next() -> None:
    jobs = FakeJobs([RUNNING])
    task = asyncio.create_task(run(make_runner(jobs, stopping=True)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert jobs.deleted == []


async def test_a_job_that_somebody_deletes_is_a_failure_that_passes() -> None:
    jobs = FakeJobs([RUNNING, None])
    with pytest.raises(BuildError, match="was deleted") as failed:
        await run(make_runner(jobs))
    assert failed.value.failure.retryable


async def test_the_step_that_was_told_last_is_the_one_that_failed() -> None:
    jobs = FakeJobs(
        [RUNNING] * 50 + [ended("OOMKilled", 137)], [encode_message(Progress(step=Step.ASSEMBLE))]
    )
    with pytest.raises(BuildError) as failed:
        await run(make_runner(jobs))
    assert failed.value.failure.step is Step.ASSEMBLE


@pytest.mark.parametrize(
    ("status", "message", "reason", "words"),
    [
        (403, 'User "x" cannot create resource "jobs" in API group "batch"', "JobRefused", "modelNamespaces"),
        (403, "jobs is forbidden: exceeded quota: few", "JobQuotaExceeded", "few"),
        (403, 'admission webhook "workloads.edgemodel.dev" denied the request: x', "JobRefused", "denied"),
        (422, "Job is invalid: spec", "JobRefused", "spec"),
    ],
)
async def test_what_the_api_server_refuses_is_said(
    status: int, message: str, reason: str, words: str
) -> None:
    class Refusing(FakeJobs):
        @override
        async def create(self, document: Any) -> bool:
            raise KubeError(status, f"/apis/batch/v1/namespaces/plant-a/jobs: {status} {message}")

    with pytest.raises(SupplyError, match=words) as failed:
        await placed(Refusing()).build(supply(on_volume()), BuildAccess(), lambda *_: None)
    assert failed.value.reason == reason
    assert "/apis/" not in str(failed.value)
    assert failed.value.step is SupplyStep.PREPARE


async def test_an_api_server_that_is_away_is_not_the_builds_fault() -> None:
    class Away(FakeJobs):
        @override
        async def create(self, document: Any) -> bool:
            raise KubeError(0, "no answer")

    with pytest.raises(KubeError):
        await run(make_runner(Away()))
