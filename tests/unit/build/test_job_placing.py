"""Where builds run: Jobs of one build together, and the proof of what they answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
from typing_extensions import override

from edgemodel_operator.adapters.jobs import JobSeen
from edgemodel_operator.build import supplier
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.jobs.plan import LABEL_STEP
from edgemodel_operator.build.request import Adoption, BuildRequest, BuildResult
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.core.supply import BuildAccess, SupplyError, SupplyJob
from edgemodel_operator.core.world import SupplyStep
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.settings import SourceSettings
from support.build_jobs import (
    CONTEXT,
    DIGEST,
    PROVED_DOCUMENTS,
    PVC,
    RUNNING,
    FakeJobs,
    Proof,
    Worker,
    answered,
    job_plan,
    look_often,
    on_volume,
    placed,
    pod,
    request_of,
    result,
    seen,
    supply,
    waiting,
    with_dockerfile,
)
from support.builders import Json, ModelBuilder, make_model

ACCESS = BuildAccess(registries={"registry.example.com:5000": Credential("plant", "not-for-anybody")})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    look_often(monkeypatch)


async def test_jobs_of_other_builds_of_the_model_are_deleted() -> None:
    others = {"older": "image", job_plan().name: "image", "of a Dockerfile": "runtime-amd64"}
    jobs = FakeJobs([answered(result())], others=others)
    built = await placed(jobs).build(supply(on_volume()), BuildAccess(), lambda *_: None)
    assert built.image == result().image
    assert sorted(jobs.deleted) == ["of a Dockerfile", "older"]


class FakePlant(FakeJobs):
    """Many Jobs at once: each has its own state, by the last argument of its worker and its architecture."""

    def __init__(self, outcomes: dict[str, JobSeen]) -> None:
        super().__init__()
        self.outcomes = outcomes
        self.documents: dict[str, Json] = {}

    @override
    async def create(self, document: Any) -> bool:
        name = document["metadata"]["name"]
        fresh = name not in self.documents
        self.documents.setdefault(name, document)
        return fresh

    @override
    async def get(self, namespace: str, name: str) -> Json | None:
        return {"metadata": {"uid": name, "name": name}}

    @override
    async def delete(self, namespace: str, name: str) -> None:
        self.deleted.append(self.step(name))

    @override
    async def look(self, namespace: str, name: str) -> JobSeen | None:
        looked = self.outcomes[self.step(name)]
        return replace(looked, job={**looked.job, "metadata": {"uid": name, "name": name}})

    def step(self, name: str) -> str:
        step: str = self.documents[name]["metadata"]["labels"][LABEL_STEP]
        return step


def runtime_result(digit: str, build_key: str) -> BuildResult:
    digest = f"sha256:{digit * 64}"
    image = f"registry.example.com:5000/models/line@{digest}"
    return result(index_digest=digest, image=image, build_key=build_key)


def made_runtimes(job: SupplyJob) -> list[BuildResult]:
    return [runtime_result(digit, request_of(job).build_key) for digit in ("1", "2")]


def plant_of(job: SupplyJob) -> FakePlant:
    """Make a cluster in which all Jobs of a build with Buildah succeed."""
    amd64, arm64 = made_runtimes(job)
    image = result(build_key=request_of(job).build_key)
    return FakePlant(
        {"runtime-amd64": answered(amd64), "runtime-arm64": answered(arm64), "image": answered(image)}
    )


async def test_the_image_is_built_on_the_runtimes_that_the_jobs_made() -> None:
    job = supply(with_dockerfile("Buildah", CONTEXT).with_("model.source", PVC))
    plant = plant_of(job)
    built = await placed(plant).build(job, BuildAccess(), lambda *_: None)
    assert built.image == result().image
    (document,) = [one for name, one in plant.documents.items() if plant.step(name) == "image"]
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    made = json.loads(annotations["edgemodel.dev/build-request"])["madeRuntimes"]
    assert made == [runtime.image for runtime in made_runtimes(job)]


async def test_a_runtime_that_cannot_be_made_is_told_at_once_and_the_other_goes_on() -> None:
    job = supply(with_dockerfile("Buildah", CONTEXT))
    plant = FakePlant({"runtime-amd64": RUNNING, "runtime-arm64": waiting("ImagePullBackOff", "Back-off")})
    with pytest.raises(SupplyError, match="cannot pull"):
        await placed(plant).build(job, BuildAccess(), lambda *_: None)
    assert plant.deleted == []


async def test_a_cancelled_build_takes_all_its_jobs_with_it() -> None:
    job = supply(with_dockerfile("Buildah", CONTEXT))
    plant = FakePlant({"runtime-amd64": RUNNING, "runtime-arm64": RUNNING})
    task = asyncio.create_task(placed(plant).build(job, BuildAccess(), lambda *_: None))
    async with asyncio.timeout(5):
        while len(plant.documents) < 2:
            await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(plant.deleted) == ["runtime-amd64", "runtime-arm64"]


@pytest.mark.parametrize(
    "change",
    [
        {"image": f"registry.example.com:5000/models/another@{DIGEST}"},
        {"index_digest": f"sha256:{'c' * 64}"},
        {"build_key": "0" * 64},
    ],
    ids=["repository", "digest", "key"],
)
async def test_an_answer_to_another_question_is_not_signed(change: Json) -> None:
    jobs = FakeJobs([answered(result(**change))])
    with pytest.raises(SupplyError, match="something else") as failed:
        await placed(jobs).build(supply(on_volume()), BuildAccess(), lambda *_: None)
    assert failed.value.needs_person


async def test_while_a_job_waits_the_model_says_so() -> None:
    told: list[tuple[SupplyStep, str]] = []
    jobs = FakeJobs([seen(pod()), answered(result())])
    await placed(jobs).build(supply(on_volume()), BuildAccess(), lambda *step: told.append(step))
    assert told == [(SupplyStep.PREPARE, f"waiting for Job plant-a/{job_plan().name} to start")]


# --- the proof of what Jobs answer --------------------------------------------------------------------------


async def test_what_a_job_answers_is_proved_with_the_logins_that_no_job_gets() -> None:
    job, worker = supply(on_volume()), Worker()
    built = await placed(FakeJobs([answered(result())]), worker).build(job, ACCESS, lambda *_: None)
    assert worker.proved == [Proof(job, ACCESS, result(), made_runtimes=())]
    assert built.image == result().image


async def test_documents_that_a_job_names_are_never_attested() -> None:
    claimed = result(documents=(f"sha256:{'e' * 64}",))
    built = await placed(FakeJobs([answered(claimed)])).build(supply(on_volume()), ACCESS, lambda *_: None)
    assert built.documents == PROVED_DOCUMENTS


async def test_what_a_job_put_on_made_runtimes_is_proved_to_lie_on_them() -> None:
    job, worker = supply(with_dockerfile("Buildah", CONTEXT).with_("model.source", PVC)), Worker()
    await placed(plant_of(job), worker).build(job, ACCESS, lambda *_: None)
    answer = result(build_key=request_of(job).build_key)
    made = tuple(runtime.image for runtime in made_runtimes(job))
    assert worker.proved == [Proof(job, ACCESS, answer, made)]


@pytest.mark.parametrize(
    "builder",
    [on_volume(), with_dockerfile("Buildah", CONTEXT).with_("model.source", PVC)],
    ids=["published runtime", "made runtimes"],
)
async def test_an_answer_that_is_not_proved_is_not_given_back(builder: ModelBuilder) -> None:
    forged = BuildFailure(reason=Reason.JOB_RESULT_INVALID, message="It is not what was asked for.")
    job, worker = supply(builder), Worker(refusal=BuildError(forged))
    with pytest.raises(SupplyError, match="not what was asked for") as failed:
        await placed(plant_of(job), worker).build(job, ACCESS, lambda *_: None)
    assert failed.value.reason == Reason.JOB_RESULT_INVALID.value
    assert len(worker.proved) == 1


async def test_what_the_operator_builds_itself_needs_no_proof() -> None:
    job, worker, jobs = supply(make_model()), Worker(), FakeJobs()
    built = await placed(jobs, worker).build(job, ACCESS, lambda *_: None)
    assert built.image == result().image
    assert (worker.built, worker.proved, jobs.created) == ([()], [], 0)


async def test_what_the_operator_puts_on_made_runtimes_needs_no_proof() -> None:
    job, worker = supply(with_dockerfile("Buildah", CONTEXT)), Worker()
    plant = plant_of(job)
    await placed(plant, worker).build(job, ACCESS, lambda *_: None)
    assert worker.built == [tuple(runtime.image for runtime in made_runtimes(job))]
    assert worker.proved == []
    assert sorted(map(plant.step, plant.documents)) == ["runtime-amd64", "runtime-arm64"]


async def test_a_proof_is_asked_of_a_worker_of_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BuildRequest] = []

    async def run_build(request: BuildRequest, *, disk_bytes: int | None) -> BuildResult:
        assert disk_bytes == 7
        asked.append(request)
        return result()

    monkeypatch.setattr(supplier, "run_build", run_build)
    worker, answer = WorkerBuilder(SourceSettings(), (), disk_bytes=7), result()
    await worker.adopt(supply(on_volume()), ACCESS, answer, ("runtime-1", "runtime-2"))
    (request,) = asked
    assert request.adoption == Adoption(index_digest=DIGEST, fetched=answer.report.files)
    assert request.made_runtimes == ("runtime-1", "runtime-2")
    assert set(request.logins()) == set(ACCESS.registries)
