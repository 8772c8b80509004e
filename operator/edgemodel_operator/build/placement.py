"""Where a build runs: in a process of the operator, or in a Job; nobody above needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.jobs.plan import (
    LABEL_STEP,
    JobPlan,
    has_jobs,
    job_labels,
    plan_job,
    plan_runtime_jobs,
)
from edgemodel_operator.build.jobs.runner import JobRunner
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.supplier import (
    OnProgress,
    WorkerBuilder,
    built_image,
    progress_to,
    supply_errors,
)
from edgemodel_operator.core.pins import is_pinned
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyJob
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.settings import BuildSettings


@dataclass(frozen=True)
class PlacedBuilder:
    """Builds each image where it can be built."""

    worker: WorkerBuilder
    runner: JobRunner
    settings: BuildSettings

    def build_key(self, job: SupplyJob) -> str:
        """Give the hash of everything that decides the bytes of the image."""
        return self.worker.build_key(job)

    def has_jobs(self, job: SupplyJob) -> bool:
        """Tell whether Jobs have a part in the build."""
        return has_jobs(job, self.settings)

    async def build(self, job: SupplyJob, access: BuildAccess, on_progress: OnProgress) -> BuiltImage:
        """Make the image; raises SupplyError, and KubeError when the API cannot be asked."""
        with supply_errors():
            request = self.worker.request(job, BuildAccess())
            runtimes = plan_runtime_jobs(job, request, self.settings)
            plan = plan_job(job, request, self.settings)
            await self._remove_old(
                job, {step_of(one.labels) for one in (*runtimes, *([plan] if plan else []))}
            )
            made = await self._make_runtimes(runtimes, request, on_progress)
            if plan is None:
                return await self.worker.build(job, access, on_progress, made)
            if made:
                plan = (
                    plan_job(job, request.model_copy(update={"made_runtimes": made}), self.settings) or plan
                )
            result = await self._run(plan, request, on_progress)
            proven = await self.worker.adopt(job, access, result, made)
        return built_image(result.model_copy(update={"documents": proven.documents}))

    async def _make_runtimes(
        self, plans: Sequence[JobPlan], request: BuildRequest, on_progress: OnProgress
    ) -> tuple[str, ...]:
        """Have all runtime images made at the same time, and give them by digest.

        The first failure is told at once; the other Jobs go on, and the next try listens to them again.
        """
        failed = asyncio.Event()
        tasks = [
            asyncio.create_task(self._run(plan, request, on_progress, is_wanted=failed.is_set))
            for plan in plans
        ]
        try:
            return tuple(result.image for result in await asyncio.gather(*tasks))
        except (BuildError, KubeError):
            failed.set()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(
        self,
        plan: JobPlan,
        request: BuildRequest,
        on_progress: OnProgress,
        is_wanted: Callable[[], bool] = lambda: False,
    ) -> BuildResult:
        result = await self.runner.run(
            plan,
            on_progress=progress_to(on_progress),
            on_waiting=lambda text: on_progress(SupplyStep.PREPARE, text),
            is_wanted=is_wanted,
        )
        _check(request, result, plan.image)
        return result

    async def _remove_old(self, job: SupplyJob, steps: Collection[str]) -> None:
        """Delete the Jobs of steps that this build does not have any more."""
        labels = job_labels(job.namespace, job.model_name, job.variant)
        await self.runner.remove_jobs(
            job.namespace, labels, lambda found: step_of(found["metadata"].get("labels") or {}) not in steps
        )


def step_of(labels: Mapping[str, str]) -> str:
    """Give the step that a Job is for."""
    return labels.get(LABEL_STEP, "")


def _check(request: BuildRequest, result: BuildResult, image: str) -> None:
    """Refuse an answer to another question: what a Job answers is signed, and its image may be another's."""
    repository, _, digest = result.image.rpartition("@")
    right_place = repository == request.image.repository and digest == result.index_digest
    right_build = not is_pinned(request.source.digests) or result.build_key == request.build_key
    if not (right_place and right_build):
        raise fail(
            Reason.JOB_IMAGE_NOT_CONFIGURED,
            f"{image} built something else than was asked: configure an image of the operator's own version.",
        )
