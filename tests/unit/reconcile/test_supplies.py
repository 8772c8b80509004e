"""Supplies: made once, retried when it can help, cancelled when nobody wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from edgemodel_operator.adapters.cluster import Cluster
from edgemodel_operator.adapters.metrics import Metrics
from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.image import ImageSpec
from edgemodel_operator.core.supply import BuildAccess, BuiltImage, SupplyError, SupplyJob
from edgemodel_operator.core.world import SupplyStage, SupplyStep
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.reconcile.supplies import Supplies
from support.builders import make_model

REPORT = ModelReport(files=(ModelFile(name="line.onnx", sha256="b" * 64, size=3),))
NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = "registry.example.com/models/line@sha256:" + "a" * 64
JOB = SupplyJob(
    namespace="plant-a",
    model_name="line",
    uid="uid-of-line",
    model=make_model("1").build().model,
    image=ImageSpec(repository="registry.example.com/models/line"),
    variant="onnxruntime-cpu",
    runtime="registry.example.com/runtime@sha256:" + "c" * 64,
    digests=("b" * 64,),
)


BUILT = BuiltImage(IMAGE, ("linux/amd64",), build_key="1", report=REPORT)


@dataclass
class Builder:
    """A builder whose end the test decides."""

    finish: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    """A cancelled build ends only when this is set."""
    error: Exception | None = None
    builds: int = 0
    cancelled: int = 0

    def __post_init__(self) -> None:
        self.may_end.set()

    def build_key(self, job: SupplyJob) -> str:
        return job.model.version

    def has_jobs(self, job: SupplyJob) -> bool:
        return job.variant == "in-a-job"

    async def build(
        self,
        job: SupplyJob,
        access: BuildAccess,
        on_progress: Callable[[SupplyStep, str], None],
    ) -> BuiltImage:
        self.builds += 1
        on_progress(SupplyStep.BUILD, "pushing")
        try:
            await self.finish.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await self.may_end.wait()
            raise
        if self.error is not None:
            raise self.error
        return BUILT


@dataclass
class Signer:
    """A signer that remembers."""

    signed: list[str] = field(default_factory=list)
    there: BuiltImage | None = None
    sought: list[str] = field(default_factory=list)

    async def find(
        self, repository: str, build_key: str, credentials: Mapping[str, Credential]
    ) -> BuiltImage | None:
        self.sought.append(build_key)
        return self.there

    async def sign(self, built: BuiltImage, credentials: Mapping[str, Credential]) -> None:
        self.signed.append(built.image)


class FakeCluster:
    """A cluster without Secrets: the jobs here name none."""

    async def list_networks(self) -> tuple[str, ...]:
        return ()


@dataclass
class Bench:
    """Everything around the supplies."""

    builder: Builder = field(default_factory=Builder)
    signer: Signer = field(default_factory=Signer)
    woken: list[tuple[str, str]] = field(default_factory=list)
    concurrency: int = 1

    def __post_init__(self) -> None:
        self.supplies = Supplies(
            cast("Cluster", FakeCluster()),
            self.builder,
            self.signer,
            Metrics(),
            clock=lambda: NOW,
            wake=lambda *key: self.woken.append(key),
            concurrency=self.concurrency,
        )

    async def until(self, stage: SupplyStage, job: SupplyJob = JOB) -> Any:
        async with asyncio.timeout(5):
            while self.supplies.state(job).stage is not stage:
                await asyncio.sleep(0.005)
        return self.supplies.state(job)

    async def until_builds(self, number: int) -> None:
        async with asyncio.timeout(5):
            while self.builder.builds < number:
                await asyncio.sleep(0)


async def test_an_image_is_built_signed_and_its_model_woken() -> None:
    bench = Bench()
    assert bench.supplies.state(JOB).stage is SupplyStage.MISSING
    bench.supplies.start(JOB)
    bench.supplies.start(JOB)
    bench.builder.finish.set()
    state = await bench.until(SupplyStage.SIGNED)
    assert (state.image, bench.builder.builds, bench.signer.signed) == (IMAGE, 1, [IMAGE])
    assert ("plant-a", "line") in bench.woken


async def test_a_failure_says_why_and_when_to_try_again_with_growing_pauses() -> None:
    bench = Bench()
    bench.builder.error = SupplyError(SupplyStep.SOURCE, "SourceUnavailable", "no answer")
    bench.builder.finish.set()
    pauses = []
    for _ in range(3):
        bench.supplies.start(JOB)
        await asyncio.sleep(0)
        state = await bench.until(SupplyStage.FAILED)
        assert (state.step, state.reason, state.message) == (
            SupplyStep.SOURCE,
            "SourceUnavailable",
            "no answer",
        )
        assert state.retry_at is not None
        assert state.needs_person is False
        pauses.append((state.retry_at - NOW).total_seconds())
        await asyncio.sleep(0.01)
    assert pauses == sorted(set(pauses))


async def test_a_server_that_asks_for_a_pause_gets_it() -> None:
    bench = Bench()
    bench.builder.error = SupplyError(SupplyStep.BUILD, "RegistryUnavailable", "busy", retry_after=120)
    bench.builder.finish.set()
    bench.supplies.start(JOB)
    state = await bench.until(SupplyStage.FAILED)
    assert (state.retry_at - NOW).total_seconds() >= 120


async def test_what_a_person_must_mend_is_marked() -> None:
    bench = Bench()
    bench.builder.error = SupplyError(SupplyStep.SIGN, "SigningKeyNotFound", "make one", needs_person=True)
    bench.builder.finish.set()
    bench.supplies.start(JOB)
    assert (await bench.until(SupplyStage.FAILED)).needs_person is True


async def test_a_bug_in_the_builder_is_a_failure_too_and_not_the_end() -> None:
    bench = Bench()
    bench.builder.error = ZeroDivisionError("oops")
    bench.builder.finish.set()
    bench.supplies.start(JOB)
    assert (await bench.until(SupplyStage.FAILED)).reason == "InternalError"


async def test_a_build_that_nobody_wants_any_more_is_cancelled() -> None:
    bench = Bench()
    bench.supplies.start(JOB)
    await bench.until(SupplyStage.RUNNING)
    while not bench.builder.builds:
        await asyncio.sleep(0)
    newer = replace(JOB, model=make_model("2").build().model)
    bench.supplies.retain("plant-a", "line", (newer,))
    async with asyncio.timeout(5):
        while not bench.builder.cancelled:
            await asyncio.sleep(0.005)
    assert bench.supplies.state(JOB).stage is SupplyStage.MISSING


ELSEWHERE = replace(
    JOB,
    model=make_model("1")
    .with_("model.source.http.url", "https://mirror.example.com/line.onnx")
    .build()
    .model,
)
"""The same file from another place: that is no part of the build key."""


async def test_a_build_that_is_told_otherwise_begins_anew_when_the_old_one_has_ended() -> None:
    bench = Bench(concurrency=2)
    bench.builder.may_end.clear()
    bench.supplies.start(JOB)
    await bench.until_builds(1)
    bench.supplies.retain("plant-a", "line", (ELSEWHERE,))
    assert bench.supplies.state(ELSEWHERE).stage is SupplyStage.MISSING
    bench.supplies.start(ELSEWHERE)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (bench.builder.cancelled, bench.builder.builds) == (1, 1)
    bench.builder.may_end.set()
    await bench.until_builds(2)
    bench.builder.finish.set()
    await bench.until(SupplyStage.SIGNED, ELSEWHERE)


async def test_a_failure_is_tried_at_once_when_its_job_is_told_otherwise() -> None:
    bench = Bench()
    bench.builder.error = SupplyError(SupplyStep.BUILD, "RegistryDenied", "no", retry_after=3600)
    bench.builder.finish.set()
    bench.supplies.start(JOB)
    await bench.until(SupplyStage.FAILED)
    bench.supplies.retain("plant-a", "line", (JOB,))
    assert bench.supplies.state(JOB).stage is SupplyStage.FAILED
    bench.supplies.retain("plant-a", "line", (ELSEWHERE,))
    assert bench.supplies.state(ELSEWHERE).stage is SupplyStage.MISSING


async def test_what_becomes_of_images_later_is_no_reason_to_build_anew() -> None:
    bench = Bench()
    bench.supplies.start(JOB)
    await bench.until_builds(1)
    kept = replace(JOB, image=JOB.image.model_copy(update={"keep_images": 7}))
    bench.supplies.retain("plant-a", "line", (kept,))
    assert bench.supplies.state(JOB).stage is SupplyStage.RUNNING
    bench.builder.finish.set()
    await bench.until(SupplyStage.SIGNED)
    bench.supplies.retain("plant-a", "line", (ELSEWHERE,))
    assert bench.supplies.state(JOB).stage is SupplyStage.SIGNED


async def test_no_more_builds_run_at_once_than_allowed() -> None:
    bench = Bench()
    jobs = [replace(JOB, model=make_model(str(number)).build().model) for number in range(3)]
    for job in jobs:
        bench.supplies.start(job)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.builder.builds == 1
    bench.builder.finish.set()
    for job in jobs:
        await bench.until(SupplyStage.SIGNED, job)
    assert bench.builder.builds == 3


@pytest.mark.parametrize(("neighbour", "at_once"), [((), 2), ((replace(JOB, namespace="plant-b"),), 1)])
async def test_where_others_have_models_one_namespace_leaves_a_place_for_them(
    neighbour: tuple[SupplyJob, ...], at_once: int
) -> None:
    bench = Bench(concurrency=2)
    bench.supplies.retain("plant-b", "line", (replace(JOB, namespace="plant-b"),))
    bench.supplies.retain("plant-b", "line", neighbour)
    jobs = tuple(replace(JOB, model=make_model(str(number)).build().model) for number in range(3))
    bench.supplies.retain("plant-a", "line", jobs)
    for job in jobs:
        bench.supplies.start(job)
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.builder.builds == at_once


async def test_a_build_in_a_job_holds_up_none_that_runs_here() -> None:
    bench = Bench()
    slow = replace(JOB, variant="in-a-job", model=make_model("slow").build().model)
    bench.supplies.start(slow)
    bench.supplies.start(JOB)
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.builder.builds == 2
    bench.builder.finish.set()
    await bench.until(SupplyStage.SIGNED, slow)
    await bench.until(SupplyStage.SIGNED)


async def test_what_was_signed_before_is_not_built() -> None:
    """Another site, or we before a restart, built and signed the same."""
    bench = Bench()
    bench.signer.there = replace(BUILT, report=replace_files(REPORT, ()))
    bench.supplies.start(JOB)
    state = await bench.until(SupplyStage.SIGNED)
    assert (bench.builder.builds, bench.signer.sought) == (0, ["1"])
    assert state.image == IMAGE
    assert [file.sha256 for file in state.report.files] == list(JOB.digests)


async def test_a_source_that_is_not_pinned_has_no_key_to_look_for() -> None:
    bench = Bench()
    bench.signer.there = BUILT
    bench.builder.finish.set()
    unpinned = replace(JOB, digests=("",))
    bench.supplies.start(unpinned)
    state = await bench.until(SupplyStage.SIGNED, unpinned)
    assert (bench.builder.builds, bench.signer.sought) == (1, [])
    assert state.report == REPORT


async def test_what_is_lost_after_it_was_signed_is_made_again_and_stays_signed_until_then() -> None:
    bench = Bench()
    bench.supplies.start(JOB)
    bench.builder.finish.set()
    before = await bench.until(SupplyStage.SIGNED)
    assert before.retry_at > NOW
    bench.builder.finish.clear()
    bench.supplies.start(JOB)
    await bench.until_builds(2)
    during = bench.supplies.state(JOB)
    assert (during.stage, during.image, during.progress) == (SupplyStage.SIGNED, IMAGE, "pushing")
    bench.builder.finish.set()
    async with asyncio.timeout(5):
        while bench.signer.signed != [IMAGE, IMAGE]:
            await asyncio.sleep(0)
    assert bench.supplies.state(JOB) == before


async def test_what_is_lost_and_cannot_be_made_again_is_a_failure() -> None:
    bench = Bench()
    bench.supplies.start(JOB)
    bench.builder.finish.set()
    await bench.until(SupplyStage.SIGNED)
    bench.builder.error = SupplyError(SupplyStep.SOURCE, "SourceNotFound", "it is not there")
    bench.supplies.start(JOB)
    assert (await bench.until(SupplyStage.FAILED)).reason == "SourceNotFound"


async def test_a_long_step_is_told_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 3))
    monkeypatch.setattr("edgemodel_operator.reconcile.supplies.time.monotonic", lambda: float(next(seconds)))
    bench = Bench()
    bench.supplies.start(JOB)
    await bench.until(SupplyStage.RUNNING)
    for _ in range(3):
        await asyncio.sleep(0)
    run = next(iter(bench.supplies._runs.values()))
    bench.woken.clear()
    for done in range(10):
        bench.supplies._progress(run, SupplyStep.BUILD, f"pushing the image: {done} of 10 MB")
    # Three seconds pass from one to the next: every second one is told.
    assert len(bench.woken) == 5
    assert run.state.progress == "pushing the image: 9 of 10 MB"


def replace_files(report: ModelReport, files: tuple[ModelFile, ...]) -> ModelReport:
    return report.model_copy(update={"files": files})
