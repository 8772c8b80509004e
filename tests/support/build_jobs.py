"""What tests of builds in Jobs need: plans, answers, how a cluster shows Jobs, a fake one, a fake worker."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from typing_extensions import override

from edgemodel_operator.adapters.jobs import Jobs, JobSeen, LogLine
from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.model import Origin
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.jobs import log_reader
from edgemodel_operator.build.jobs import runner as runner_module
from edgemodel_operator.build.jobs.answer import write_note
from edgemodel_operator.build.jobs.plan import LABEL_STEP, JobPlan, plan_job, plan_runtime_jobs
from edgemodel_operator.build.jobs.runner import JobRunner
from edgemodel_operator.build.placement import PlacedBuilder
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.supplier import OnProgress, WorkerBuilder, built_image
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyJob, supply_jobs
from edgemodel_operator.core.world import Model
from edgemodel_operator.settings import BuildahSettings, BuildSettings, SourceSettings
from support.builders import Json, ModelBuilder, make_model

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.plant-a.local:5000/edgemodel/operator@{DIGEST}"
CONVERTER = f"registry.plant-a.local:5000/edgemodel/converter@{DIGEST}"
BUILDAH = f"registry.plant-a.local:5000/edgemodel/buildah@{DIGEST}"
SETTINGS = BuildSettings(image=IMAGE, converters={Origin.PYTORCH_EXPORT: CONVERTER})
WITH_BUILDAH = SETTINGS.model_copy(update={"buildah": BuildahSettings(image=BUILDAH)})

PVC = {"pvc": {"claimName": "models", "path": "line/model.onnx", "sha256": "b" * 64}}
CONTEXT = {"http": {"url": "https://files.plant-a.local/context.tar", "sha256": "c" * 64}}
FAILURE = BuildFailure(reason=Reason.SOURCE_NOT_FOUND, message="line/model.onnx does not exist.")


# --- what is asked ------------------------------------------------------------------------------------------


def on_volume() -> ModelBuilder:
    """Begin a model that only a Job can read."""
    return make_model().with_("model.source", PVC)


def with_dockerfile(builder: str, context: Json) -> ModelBuilder:
    """Begin a model whose runtime this builder makes from the Dockerfile of a context."""
    dockerfile = {"context": {**context, "archive": {}}}
    return make_model().with_("image.builder", builder).with_("image.dockerfile", dockerfile)


def supply(builder: ModelBuilder, **status: Any) -> SupplyJob:
    """Give the one supply job of a model."""
    model = Model("plant-a", "line", "uid-1", 1, builder.build(), **status)
    (job,) = supply_jobs(
        model, {"onnxruntime-cpu": f"registry.plant-a.local/rt@{DIGEST}"}, ("onnxruntime-cpu",)
    )
    return job


def request_of(job: SupplyJob) -> BuildRequest:
    """Give what a worker is asked, without credentials."""
    return WorkerBuilder(SourceSettings(), ()).request(job, BuildAccess())


def plan_of(builder: ModelBuilder, settings: BuildSettings = SETTINGS) -> JobPlan | None:
    """Plan the Job that makes the image of a model, if one does."""
    job = supply(builder)
    return plan_job(job, request_of(job), settings)


def job_plan(builder: ModelBuilder | None = None, settings: BuildSettings = SETTINGS) -> JobPlan:
    """Plan the Job of a model that needs one; without a model: of that on a volume."""
    plan = plan_of(builder or on_volume(), settings)
    assert plan is not None
    return plan


def runtime_plans(builder: ModelBuilder, settings: BuildSettings = WITH_BUILDAH) -> tuple[JobPlan, ...]:
    """Plan the Jobs that make the runtime of a model."""
    job = supply(builder)
    return plan_runtime_jobs(job, request_of(job), settings)


# --- what is answered ---------------------------------------------------------------------------------------


def result(operators: int = 1, **changes: Any) -> BuildResult:
    """Give the right answer of the Job of `on_volume`; 200 operators make it too long for a note."""
    files = (ModelFile(name="model.onnx", sha256="b" * 64, size=1),)
    names = tuple(f"com.example.plant-a:Operator{number}" for number in range(operators))
    fields: Json = {
        "index_digest": DIGEST,
        "image": f"registry.example.com:5000/models/line@{DIGEST}",
        "platforms": ("linux/amd64",),
        "report": ModelReport(files=files, operators=names),
        "build_key": request_of(supply(on_volume())).build_key,
        "bytes_pushed": 1,
        "seconds": {},
    }
    return BuildResult(**{**fields, **changes})


# --- what a cluster shows -----------------------------------------------------------------------------------


def pod(phase: str = "Pending", **status: Any) -> Json:
    """Give the pod of a Job."""
    return {"metadata": {"name": "line-build-x", "uid": "pod-1"}, "status": {"phase": phase, **status}}


def seen(pod: Json | None = None, *events: Json, conditions: tuple[Json, ...] = ()) -> JobSeen:
    """Give a look at a Job, with its pod and what was told of it."""
    job = {"metadata": {"uid": "job-1", "name": job_plan().name}, "status": {"conditions": list(conditions)}}
    return JobSeen(job, pod, events)


def unscheduled(message: str) -> JobSeen:
    """Give a Job for whose pod there is no node."""
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return seen(pod(conditions=[condition]))


def waiting(reason: str, message: str) -> JobSeen:
    """Give a Job whose container does not start."""
    return seen(pod(containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}]))


def ended(reason: str, code: int = 1, **status: Any) -> JobSeen:
    """Give a Job that failed without an answer; its container `said` something, or nothing."""
    state = {"terminated": {"reason": reason, "exitCode": code, "message": status.pop("said", "")}}
    return seen(pod("Failed", containerStatuses=[{"state": state}], **status))


def answered(answer: BuildResult | BuildFailure, phase: str = "Succeeded") -> JobSeen:
    """Give a Job that ended with an answer."""
    state = {"terminated": {"exitCode": 0, "message": write_note(answer).decode()}}
    return seen(pod(phase, containerStatuses=[{"state": state}]))


RUNNING = seen(pod("Running"))


@dataclass
class FakeJobs:
    """A cluster in which Jobs go through what the test says: one state for each look, the last for ever."""

    states: list[JobSeen | None] = field(default_factory=list)
    log: list[bytes] = field(default_factory=list)
    existing: Json | None = None
    created: int = 0
    deleted: list[str] = field(default_factory=list)
    others: dict[str, str] = field(default_factory=dict)
    """Name → step of the Jobs that the model had before."""

    async def create(self, document: Any) -> bool:
        if self.existing is not None:
            return False
        self.created += 1
        self.existing = {"metadata": {"uid": f"job-{self.created}", "name": document["metadata"]["name"]}}
        return True

    async def get(self, namespace: str, name: str) -> Json | None:
        return self.existing

    async def find(self, namespace: str, labels: str) -> tuple[Json, ...]:
        asked = dict(pair.split("=") for pair in labels.split(","))
        found: list[Json] = [
            {"metadata": {"name": name, "labels": {LABEL_STEP: step}}} for name, step in self.others.items()
        ]
        step = asked.get(LABEL_STEP)
        return tuple(job for job in found if step in {None, job["metadata"]["labels"][LABEL_STEP]})

    async def delete(self, namespace: str, name: str) -> None:
        self.deleted.append(name)
        if name == job_plan().name:
            self.existing = None

    async def look(self, namespace: str, name: str) -> JobSeen | None:
        looked = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if looked is None or self.existing is None:
            return None
        return replace(looked, job={**looked.job, "metadata": self.existing["metadata"]})

    async def follow(
        self, namespace: str, pod: str, after: str = "", *, follow: bool = True
    ) -> AsyncGenerator[LogLine, None]:
        for number, text in enumerate(self.log):
            if (stamp := f"{number:03}") > after:
                yield LogLine(stamp, text)


# --- who builds ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proof:
    """What a worker was given to prove the answer of a Job."""

    job: SupplyJob
    access: BuildAccess
    answer: BuildResult
    made_runtimes: tuple[str, ...]


@dataclass(frozen=True)
class Worker(WorkerBuilder):
    """A worker that builds and proves whatever it is asked, at once, and remembers it."""

    sources: SourceSettings = field(default_factory=SourceSettings)
    plain_http: tuple[str, ...] = ()
    refusal: BuildError | None = None
    """Why it takes no answer for proved."""
    proved: list[Proof] = field(default_factory=list)
    built: list[tuple[str, ...]] = field(default_factory=list)
    """The made runtimes of each of its own builds."""

    @override
    async def build(
        self,
        job: SupplyJob,
        access: BuildAccess,
        on_progress: OnProgress,
        made_runtimes: tuple[str, ...] = (),
    ) -> BuiltImage:
        self.built.append(made_runtimes)
        return built_image(result(build_key=self.build_key(job)))

    @override
    async def adopt(
        self,
        job: SupplyJob,
        access: BuildAccess,
        answer: BuildResult,
        made_runtimes: tuple[str, ...] = (),
    ) -> BuildResult:
        self.proved.append(Proof(job, access, answer, made_runtimes))
        if self.refusal is not None:
            raise self.refusal
        return answer.model_copy(update={"documents": PROVED_DOCUMENTS})


PROVED_DOCUMENTS = (f"sha256:{'d' * 64}",)
"""What a proof finds to be the documents about an image."""


def make_runner(jobs: FakeJobs, *, stopping: bool = False) -> JobRunner:
    """Make what runs Jobs in the fake cluster."""
    return JobRunner(cast("Jobs", jobs), SETTINGS, is_stopping=lambda: stopping)


def placed(jobs: FakeJobs, worker: Worker | None = None) -> PlacedBuilder:
    """Make the builder of an operator that has this cluster and this worker."""
    return PlacedBuilder(worker or Worker(), make_runner(jobs), WITH_BUILDAH)


def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no test wait for the next look at a Job, or for the next try to read its log."""
    monkeypatch.setattr(runner_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(log_reader, "RETRY_SECONDS", 0.001)
