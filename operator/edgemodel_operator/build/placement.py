"""Where a build runs: in a process of the operator, or in a Job; nobody above needs to know."""

from __future__ import annotations

from dataclasses import dataclass

from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.jobs.plan import job_labels, plan_job
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

    async def build(self, job: SupplyJob, access: BuildAccess, on_progress: OnProgress) -> BuiltImage:
        """Make the image; raises SupplyError, and KubeError when the API cannot be asked."""
        with supply_errors():
            request = self.worker.request(job, BuildAccess())
            plan = plan_job(job, request, self.settings)
            if plan is None:
                await self.runner.remove_jobs(
                    job.namespace, job_labels(job.namespace, job.model_name, job.variant)
                )
                return await self.worker.build(job, access, on_progress)
            result = await self.runner.run(
                plan,
                on_progress=progress_to(on_progress),
                on_waiting=lambda text: on_progress(SupplyStep.PREPARE, text),
            )
            _check(request, result, plan.image)
        return built_image(result)


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
