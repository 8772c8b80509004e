"""The builder as the reconcile uses it: from a supply job to an image, by a build in a worker process."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pydantic import SecretStr, ValidationError

from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.build.failures import BuildError, Step
from edgemodel_operator.build.request import Adoption, BuildRequest, BuildResult, Login, Progress
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyError, SupplyJob
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.settings import BuildSettings, SourceSettings

SOURCE_STEPS = frozenset({Step.DOWNLOAD, Step.INSPECT})
MEGABYTE = 1_000_000

OnProgress = Callable[[SupplyStep, str], None]


@dataclass(frozen=True)
class WorkerBuilder:
    """Builds each image in a process of its own."""

    sources: SourceSettings
    plain_http: tuple[str, ...]
    upload_hosts: tuple[str, ...] = ()
    builds: BuildSettings = field(default_factory=BuildSettings)
    authorities: str = ""
    disk_bytes: int | None = None
    """What each build may have of temporary files; None: whatever the disk holds."""

    def build_key(self, job: SupplyJob) -> str:
        """Give the hash of everything that decides the bytes of the image."""
        return self.request(job, BuildAccess()).build_key

    def has_jobs(self, job: SupplyJob) -> bool:
        """Tell that no Job has a part in it."""
        return False

    async def build(
        self,
        job: SupplyJob,
        access: BuildAccess,
        on_progress: OnProgress,
        made_runtimes: tuple[str, ...] = (),
    ) -> BuiltImage:
        """Make the image, on the runtime images that Jobs have made, if any; raises SupplyError."""
        with supply_errors():
            request = self.request(job, access).model_copy(update={"made_runtimes": made_runtimes})
            result = await run_build(
                request, on_progress=progress_to(on_progress), disk_bytes=self.disk_bytes
            )
        return built_image(result)

    async def adopt(
        self,
        job: SupplyJob,
        access: BuildAccess,
        answer: BuildResult,
        made_runtimes: tuple[str, ...] = (),
    ) -> BuildResult:
        """Prove that the image which a Job answered with is the one that it was asked for.

        Gives what the proof found: of the answer nothing but the digest is believed. Raises BuildError.
        """
        adoption = Adoption(index_digest=answer.index_digest, fetched=answer.report.files)
        given = {"adoption": adoption, "made_runtimes": made_runtimes}
        request = self.request(job, access).model_copy(update=given)
        return await run_build(request, disk_bytes=self.disk_bytes)

    def request(self, job: SupplyJob, access: BuildAccess) -> BuildRequest:
        """Give what the worker is asked; raises ValidationError."""
        return BuildRequest(
            model_name=job.model_name,
            model=job.model,
            runtime=job.runtime,
            digests=job.digests,
            image=job.image,
            credentials=tuple(Login.of(host, item) for host, item in sorted(access.registries.items())),
            source_secret=_encoded(access.source_secret),
            context_secret=_encoded(access.context_secret),
            docker=self.builds.docker,
            buildah=self.builds.buildah,
            config_map=_encoded_entries(job, access),
            plain_http=self.plain_http,
            upload_hosts=self.upload_hosts,
            authorities=self.authorities,
            converter=self._converter(job.model),
            source_limits=self._limits(access.cluster_networks),
        )

    def _limits(self, cluster_networks: tuple[str, ...]) -> SourceSettings:
        denied = (*self.sources.denied_networks, *cluster_networks)
        return self.sources.model_copy(update={"denied_networks": denied})

    def _converter(self, model: ModelSpec) -> str:
        return self.builds.converters.get(model.convert.origin, "") if model.convert else ""


def progress_to(on_progress: OnProgress) -> Callable[[Progress], None]:
    """Give what tells the reconcile of a build's progress, in its words."""
    return lambda progress: on_progress(_step(progress.step), _sentence(progress))


def built_image(result: BuildResult) -> BuiltImage:
    """Give the result of a build as the reconcile knows it."""
    return BuiltImage(
        result.image,
        result.platforms,
        build_key=result.build_key,
        report=result.report,
        documents=result.documents,
    )


@contextmanager
def supply_errors() -> Iterator[None]:
    """Raise what fails in the block as SupplyError."""
    try:
        yield
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


def _encoded(fields: Mapping[str, bytes]) -> dict[str, SecretStr]:
    return {name: SecretStr(b64encode(value).decode()) for name, value in sorted(fields.items())}


def _encoded_entries(job: SupplyJob, access: BuildAccess) -> dict[str, str]:
    """Give the entries that the source names, no others."""
    source = job.model.source.config_map
    if source is None:
        return {}
    keys = {source.key, *([source.weights.key] if source.weights else ())}
    return {
        key: b64encode(access.config_map[key]).decode() for key in sorted(keys & access.config_map.keys())
    }


def _step(step: Step | None) -> SupplyStep:
    if step is Step.RESOLVE:
        return SupplyStep.PREPARE
    return SupplyStep.SOURCE if step in SOURCE_STEPS else SupplyStep.BUILD


def _sentence(progress: Progress) -> str:
    """Say what is being done, and how far it is: `fetching the model: 12.4 of 25.0 MB`."""
    doing = {
        Step.RESOLVE: "reading the runtime image",
        Step.DOCKERFILE: "building the Dockerfile",
        Step.DOWNLOAD: "fetching the model",
        Step.INSPECT: "inspecting the model",
        Step.CONVERT: "converting the model",
        Step.ASSEMBLE: "assembling the layers of the model",
        Step.PUSH: "pushing the image",
        Step.DESCRIBE: "attaching bills of materials and provenance",
    }[progress.step]
    if not progress.done:
        return doing
    of = f" of {progress.total / MEGABYTE:.1f}" if progress.total else ""
    return f"{doing}: {progress.done / MEGABYTE:.1f}{of} MB"
