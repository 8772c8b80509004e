"""The builder as the reconcile uses it: from a supply job to an image, by a build in a worker process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import SecretStr, ValidationError

from edgemodel_operator.build.failures import BuildError, Step
from edgemodel_operator.build.request import BuildRequest, Login, Progress
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.supply import BuiltImage, SupplyError, SupplyJob
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.settings import SourceSettings

SOURCE_STEPS = frozenset({Step.DOWNLOAD, Step.INSPECT})
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class WorkerBuilder:
    """Builds each image in a process of its own."""

    sources: SourceSettings
    plain_http: tuple[str, ...]

    def build_key(self, job: SupplyJob) -> str:
        """Give the hash of everything that decides the bytes of the image."""
        return self._request(job, {}).build_key

    async def build(
        self,
        job: SupplyJob,
        credentials: Mapping[str, Credential],
        on_progress: Callable[[SupplyStep, str], None],
    ) -> BuiltImage:
        """Make the image, or find it under its build key; raises SupplyError."""

        def report(progress: Progress) -> None:
            on_progress(_step(progress.step), _sentence(progress))

        try:
            request = self._request(job, credentials)
            result = await run_build(request, on_progress=report)
        except BuildError as error:
            failure = error.failure
            raise SupplyError(
                _step(failure.step),
                failure.reason.value,
                failure.message,
                needs_person=not failure.retryable,
                retry_after=failure.retry_after,
            ) from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise SupplyError(
                SupplyStep.SOURCE, "InvalidSpec", f"{where}: {first['msg']}", needs_person=True
            ) from error
        return BuiltImage(result.image, result.platforms, result.reused)

    def _request(self, job: SupplyJob, credentials: Mapping[str, Credential]) -> BuildRequest:
        return BuildRequest(
            model_name=job.model_name,
            model=job.model,
            runtime=job.runtime,
            repository=job.repository,
            platforms=job.platforms,
            credentials=tuple(
                Login(host=host, username=item.username, password=SecretStr(item.password))
                for host, item in sorted(credentials.items())
            ),
            push_secret=job.push_secret,
            plain_http=self.plain_http,
            source_limits=self.sources,
        )


def _step(step: Step | None) -> SupplyStep:
    if step is Step.RESOLVE:
        return SupplyStep.PREPARE
    return SupplyStep.SOURCE if step in SOURCE_STEPS else SupplyStep.BUILD


def _sentence(progress: Progress) -> str:
    """Say the step alone: a figure that changes each second would write the status each second."""
    return {
        Step.RESOLVE: "looking for an image under the build key",
        Step.DOWNLOAD: "fetching the model file",
        Step.INSPECT: "inspecting the model file",
        Step.ASSEMBLE: "assembling the model layer",
        Step.PUSH: "pushing the image",
    }[progress.step]
