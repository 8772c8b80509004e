"""Builds in Jobs: which, how their manifests look, how they answer, and what is said when they do not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.adapters.jobs import Jobs, JobSeen, LogLine
from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.api.model import Origin
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason, Step
from edgemodel_operator.build.jobs import log_reader
from edgemodel_operator.build.jobs import runner as runner_module
from edgemodel_operator.build.jobs.answer import LongAnswer, is_answer, read_line, read_note, write_note
from edgemodel_operator.build.jobs.manifest import make_job
from edgemodel_operator.build.jobs.mounts import complete_request
from edgemodel_operator.build.jobs.plan import LABEL_STEP, JobPlan, JobStep, plan_job, plan_runtime_jobs
from edgemodel_operator.build.jobs.runner import JobRunner
from edgemodel_operator.build.jobs.trouble import why_ended, why_not_started
from edgemodel_operator.build.placement import PlacedBuilder
from edgemodel_operator.build.protocol import encode_message
from edgemodel_operator.build.request import BuildResult, Progress
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.core.supply import BuildAccess, SupplyError, SupplyJob, supply_jobs
from edgemodel_operator.core.world import Model, SupplyStep
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.settings import BuildahSettings, BuildMode, BuildSettings, SourceSettings
from support.builders import ModelBuilder, make_model

Json = dict[str, Any]
DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.plant-a.local:5000/edgemodel/operator@{DIGEST}"
CONVERTER = f"registry.plant-a.local:5000/edgemodel/converter@{DIGEST}"
SETTINGS = BuildSettings(image=IMAGE, converters={Origin.PYTORCH_EXPORT: CONVERTER})


@dataclass(frozen=True)
class Worker(WorkerBuilder):
    """A worker that takes every answer for proved, and remembers it."""

    proved: list[BuildResult] = field(default_factory=list)

    @override
    async def adopt(self, job: SupplyJob, access: BuildAccess, answer: BuildResult) -> None:
        self.proved.append(answer)


WORKER = Worker(SourceSettings(), ())
BUILDAH = f"registry.plant-a.local:5000/edgemodel/buildah@{DIGEST}"
WITH_BUILDAH = SETTINGS.model_copy(update={"buildah": BuildahSettings(image=BUILDAH)})
CONTEXT = {"http": {"url": "https://files.plant-a.local/context.tar", "sha256": "c" * 64}}
PVC = {"pvc": {"claimName": "models", "path": "line/model.onnx", "sha256": "b" * 64}}
PASSWORD = "not-for-anybody"


def supply(builder: ModelBuilder, **status: Any) -> SupplyJob:
    model = Model("plant-a", "line", "uid-1", 1, builder.build(), **status)
    (job,) = supply_jobs(
        model, {"onnxruntime-cpu": f"registry.plant-a.local/rt@{DIGEST}"}, ("onnxruntime-cpu",)
    )
    return job


def on_volume() -> ModelBuilder:
    return make_model().with_("model.source", PVC)


def plan_of(builder: ModelBuilder, settings: BuildSettings = SETTINGS) -> JobPlan | None:
    job = supply(builder)
    return plan_job(job, WORKER.request(job, BuildAccess()), settings)


def job_plan(builder: ModelBuilder | None = None, settings: BuildSettings = SETTINGS) -> JobPlan:
    plan = plan_of(builder or on_volume(), settings)
    assert plan is not None
    return plan


def runtime_plans(builder: ModelBuilder, settings: BuildSettings = WITH_BUILDAH) -> tuple[JobPlan, ...]:
    job = supply(builder)
    return plan_runtime_jobs(job, WORKER.request(job, BuildAccess()), settings)


# --- which builds run in a Job, and in which image ----------------------------------------------------------


def test_a_build_runs_in_the_operator_unless_it_needs_a_job() -> None:
    assert plan_of(make_model()) is None
    assert job_plan().image == IMAGE
    assert job_plan(make_model(), SETTINGS.model_copy(update={"mode": BuildMode.JOB})).image == IMAGE


def test_a_conversion_runs_in_the_image_that_is_configured_for_it() -> None:
    builder = make_model().with_("model.convert", {"origin": "PyTorchExport"})
    assert job_plan(builder).image == CONVERTER

    with pytest.raises(BuildError, match=r"builds\.converters\.PyTorchExport") as refused:
        plan_of(builder, BuildSettings(image=IMAGE))
    assert refused.value.failure.reason is Reason.CONVERTER_NOT_CONFIGURED
    assert not refused.value.failure.retryable


def with_dockerfile(builder: str, context: Json) -> ModelBuilder:
    dockerfile = {"context": {**context, "archive": {}}}
    return make_model().with_("image.builder", builder).with_("image.dockerfile", dockerfile)


def test_docker_engines_are_asked_by_the_operator_itself() -> None:
    settings = SETTINGS.model_copy(update={"mode": BuildMode.JOB})
    assert plan_of(with_dockerfile("Docker", CONTEXT), settings) is None
    with pytest.raises(BuildError, match="builder: Docker"):
        plan_of(with_dockerfile("Docker", CONTEXT).with_("model.source", PVC), settings)


def test_the_secret_of_a_context_is_lent_like_that_of_the_model(tmp_path: Path) -> None:
    s3 = {"bucket": "contexts", "key": "c.tar", "sha256": "c" * 64, "credentialsSecret": {"name": "s3"}}
    builder = with_dockerfile("Buildah", {"s3": s3}).with_("model.source", PVC)
    assert job_plan(builder).secrets == ("s3",)
    write(tmp_path, {"secrets/s3/AWS_ACCESS_KEY_ID": "plant"})
    request = complete_request(WORKER.request(supply(builder), BuildAccess()), tmp_path)
    assert request.context_fields() == {"AWS_ACCESS_KEY_ID": b"plant"}
    assert request.source_fields() == {}


def test_buildah_makes_the_runtime_of_each_platform_on_a_node_of_its_architecture() -> None:
    builder = with_dockerfile("Buildah", CONTEXT)
    assert [plan.architecture for plan in runtime_plans(builder)] == ["amd64", "arm64"]
    (plan,) = runtime_plans(builder.with_("image.platforms", ["linux/arm64"]))
    assert (plan.step, plan.image, plan.claims) == (JobStep.RUNTIME, BUILDAH, ())
    assert runtime_plans(make_model()) == ()
    # What is put on top of it is built where it would be built without a Dockerfile.
    assert plan_of(builder) is None

    with pytest.raises(BuildError, match=r"builds\.buildah\.image") as refused:
        runtime_plans(builder, BuildSettings(image=IMAGE))
    assert not refused.value.failure.retryable


def test_without_a_digest_of_the_operators_image_there_are_no_jobs() -> None:
    with pytest.raises(BuildError, match=r"image\.digest") as refused:
        plan_of(on_volume(), BuildSettings())
    assert not refused.value.failure.retryable


def test_a_spec_that_fits_into_no_annotation_is_refused() -> None:
    job = supply(on_volume())
    request = WORKER.request(job, BuildAccess()).model_copy(update={"plain_http": ("x" * 300_000,)})
    with pytest.raises(BuildError, match="too large"):
        plan_job(job, request, SETTINGS)


def test_the_name_follows_from_what_is_built() -> None:
    name = job_plan().name
    assert name == job_plan().name
    assert name.startswith("line-build-")
    changed = [
        on_volume().version("v2"),
        on_volume().with_("model.source.pvc.path", "line/other.onnx"),
        on_volume().with_("image.pullSecrets", [{"name": "site"}]),
    ]
    others = [job_plan(builder).name for builder in changed]
    others += [replace(job_plan(), uid="uid-2").name, replace(job_plan(), architecture="arm64").name]
    assert len({name, *others}) == 6


@settings(max_examples=50, deadline=None)
@given(st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,120}[a-z0-9])?", fullmatch=True))
def test_every_name_fits_where_kubernetes_wants_it(model_name: str) -> None:
    plan = replace(job_plan(), model_name=model_name)
    document = make_job(plan, SETTINGS)
    assert len(plan.name) <= 57
    assert all(len(value) <= 63 for value in document["metadata"]["labels"].values())


# --- the manifest -------------------------------------------------------------------------------------------


def full_plan() -> JobPlan:
    builder = make_model().with_(
        "model.source", {"oci": {"reference": "r.plant-a.local/a:1", "sha256": "b" * 64}}
    )
    builder = builder.with_("model.source.oci.credentialsSecret", {"name": "models"})
    builder = builder.with_("image.pullSecrets", [{"name": "pull-1"}, {"name": "pull-2"}])
    builder = builder.with_("image.pushSecret", {"name": "push"})
    settings = SETTINGS.model_copy(update={"mode": BuildMode.JOB, "image_pull_secrets": ("site", "pull-1")})
    plan = job_plan(builder, settings)
    return replace(plan, secrets=("s3",), config_maps=("entries",), claims=("volume",), architecture="arm64")


@pytest.mark.parametrize("plan", [job_plan(), full_plan()], ids=["small", "full"])
def test_the_manifest_is_valid_and_keeps_the_restricted_standard(plan: JobPlan) -> None:
    document = make_job(plan, SETTINGS)
    kubernetes_validate.validate(document, "1.36", strict=True)
    pod = document["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert "hostPath" not in json.dumps(document)
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    assert container["resources"]["limits"]["memory"] == "4Gi"
    assert document["spec"]["backoffLimit"] == 0


def test_only_the_commands_of_a_dockerfile_get_the_rights_that_buildah_needs() -> None:
    plan = runtime_plans(with_dockerfile("Buildah", CONTEXT))[0]
    document = make_job(plan, WITH_BUILDAH)
    kubernetes_validate.validate(document, "1.36", strict=True)
    spec = document["spec"]["template"]["spec"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "Unconfined"}
    assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["containers"][0]["args"][-2:] == ["--make", "runtime"]
    assert document["metadata"]["labels"]["edgemodel.dev/build-step"] == "runtime-amd64"


def test_all_that_is_lent_is_mounted_read_only_and_later_logins_come_later() -> None:
    pod = make_job(full_plan(), SETTINGS)["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    lent = {path: mount["name"] for path, mount in mounts.items() if mount.get("readOnly")}
    assert set(mounts) - set(lent) == {"/work", "/tmp"}
    order = [volumes[lent[f"/mnt/edgemodel/registries/{n}"]]["secret"]["secretName"] for n in range(4)]
    assert order == ["models", "pull-1", "pull-2", "push"]
    assert volumes[lent["/mnt/edgemodel/secrets/s3"]]["secret"]["secretName"] == "s3"
    claim = volumes[lent["/mnt/edgemodel/claims/volume"]]["persistentVolumeClaim"]
    assert claim == {"claimName": "volume", "readOnly": True}
    assert [item["name"] for item in pod["imagePullSecrets"]] == ["pull-1", "pull-2", "site"]
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}


def test_jobs_keep_to_the_nodes_that_are_named_and_to_their_architecture() -> None:
    settings = SETTINGS.model_copy(
        update={"node_selector": {"plant": "server-room", "kubernetes.io/arch": "amd64"}}
    )
    selectors = [
        make_job(plan, settings)["spec"]["template"]["spec"]["nodeSelector"]
        for plan in (job_plan(), replace(job_plan(), architecture="arm64"))
    ]
    assert [one["kubernetes.io/arch"] for one in selectors] == ["amd64", "arm64"]
    assert {one["plant"] for one in selectors} == {"server-room"}


def test_no_pod_of_a_build_passes_for_one_of_the_model() -> None:
    labels = make_job(job_plan(), SETTINGS)["spec"]["template"]["metadata"]["labels"]
    assert "edgemodel.dev/model" not in labels
    assert labels["app.kubernetes.io/managed-by"] == "edgemodel-operator"


async def test_no_secret_that_the_operator_read_gets_into_a_job() -> None:
    created: list[Json] = []

    class Watching(FakeJobs):
        async def create(self, document: Any) -> bool:
            created.append(document)
            raise KubeError(403, "denied the request: no")

    access = BuildAccess(
        registries={"registry.plant-a.local": Credential("plant", PASSWORD)},
        source_secret={"token": PASSWORD.encode()},
        config_map={"model.onnx": PASSWORD.encode()},
    )
    with pytest.raises(SupplyError, match="refuses"):
        await placed(Watching()).build(supply(on_volume()), access, lambda *_: None)
    assert len(created) == 1
    assert PASSWORD not in json.dumps(created)


# --- the request, inside ------------------------------------------------------------------------------------


def docker_config(**logins: str) -> str:
    auths = {host: {"username": "plant", "password": password} for host, password in logins.items()}
    return json.dumps({"auths": auths})


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def test_what_is_mounted_completes_the_request(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "registries/0/.dockerconfigjson": docker_config(a="old", b="1"),
            "registries/2/.dockerconfigjson": docker_config(c="2"),
            "registries/10/.dockerconfigjson": docker_config(a="new"),
            "secrets/s3/AWS_SECRET_ACCESS_KEY": "key",
            "secrets/s3/..data": "of the kubelet",
        },
    )
    s3 = {"bucket": "models", "key": "m.onnx", "sha256": "b" * 64, "credentialsSecret": {"name": "s3"}}
    request = WORKER.request(supply(make_model().with_("model.source", {"s3": s3})), BuildAccess())
    completed = complete_request(request, tmp_path)
    passwords = {host: login.password for host, login in completed.logins().items()}
    assert passwords == {"a": "new", "b": "1", "c": "2"}
    assert completed.source_fields() == {"AWS_SECRET_ACCESS_KEY": b"key"}
    assert completed.build_key == request.build_key


def test_volumes_and_entries_are_found_by_their_names(tmp_path: Path) -> None:
    request = WORKER.request(supply(on_volume()), BuildAccess())
    assert complete_request(request, tmp_path).volume == str(tmp_path / "claims" / "models")
    write(tmp_path, {"config-maps/entries/m.onnx": "model"})
    source = {"configMap": {"name": "entries", "key": "m.onnx", "sha256": "b" * 64}}
    request = WORKER.request(supply(make_model().with_("model.source", source)), BuildAccess())
    assert complete_request(request, tmp_path).config_entries() == {"m.onnx": b"model"}


@pytest.mark.parametrize("content", ["{", None], ids=["broken", "missing"])
def test_a_broken_login_is_named_without_its_content(tmp_path: Path, content: str | None) -> None:
    write(tmp_path, {"registries/0/.dockerconfigjson": content} if content else {"registries/0/x": ""})
    request = WORKER.request(supply(on_volume()), BuildAccess())
    with pytest.raises(BuildError) as refused:
        complete_request(request, tmp_path)
    assert refused.value.failure.reason is Reason.REGISTRY_DENIED


# --- the answer ---------------------------------------------------------------------------------------------


def result(operators: int = 1, **changes: Any) -> BuildResult:
    files = (ModelFile(name="model.onnx", sha256="b" * 64, size=1),)
    names = tuple(f"com.example.plant-a:Operator{number}" for number in range(operators))
    fields: Json = {
        "index_digest": DIGEST,
        "image": f"registry.example.com:5000/models/line@{DIGEST}",
        "platforms": ("linux/amd64",),
        "report": ModelReport(files=files, operators=names),
        "build_key": WORKER.request(supply(on_volume()), BuildAccess()).build_key,
        "bytes_pushed": 1,
        "seconds": {},
    }
    return BuildResult(**{**fields, **changes})


FAILURE = BuildFailure(reason=Reason.SOURCE_NOT_FOUND, message="line/model.onnx does not exist.")


@pytest.mark.parametrize("answer", [result(), FAILURE], ids=["result", "failure"])
def test_an_answer_comes_back_from_the_termination_message(answer: BuildResult | BuildFailure) -> None:
    assert read_note(write_note(answer).decode()) == answer


def test_of_a_long_answer_the_note_names_the_line_in_the_log() -> None:
    answer = result(operators=200)
    note = write_note(answer)
    assert len(note) <= 4096
    named = read_note(note.decode())
    assert isinstance(named, LongAnswer)
    line = encode_message(answer).rstrip()
    assert is_answer(line, named)
    assert not is_answer(line[:-1], named)


@given(st.text())
def test_what_no_worker_wrote_is_no_answer(text: str) -> None:
    assert read_note(text) is None
    assert read_line(text.encode()) is None


def test_progress_is_no_answer() -> None:
    assert read_note(encode_message(Progress(step=Step.PUSH)).decode()) is None


# --- what is said when a Job does not get on ----------------------------------------------------------------


def pod(phase: str = "Pending", **status: Any) -> Json:
    return {"metadata": {"name": "line-build-x", "uid": "pod-1"}, "status": {"phase": phase, **status}}


def seen(pod: Json | None = None, *events: Json, conditions: tuple[Json, ...] = ()) -> JobSeen:
    job = {"metadata": {"uid": "job-1", "name": job_plan().name}, "status": {"conditions": list(conditions)}}
    return JobSeen(job, pod, events)


def unscheduled(message: str) -> JobSeen:
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    return seen(pod(conditions=[condition]))


def waiting(reason: str, message: str) -> JobSeen:
    return seen(pod(containerStatuses=[{"state": {"waiting": {"reason": reason, "message": message}}}]))


def event(reason: str, message: str) -> Json:
    return {"reason": reason, "message": message, "metadata": {}}


NOT_STARTED = {
    "claim": (
        unscheduled('0/3 nodes are available: persistentvolumeclaim "models" not found. preemption: no'),
        Reason.CLAIM_NOT_FOUND,
        "PersistentVolumeClaim plant-a/models does not exist",
    ),
    "claim unbound": (
        unscheduled("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."),
        Reason.CLAIM_NOT_BOUND,
        "PersistentVolumeClaim models in namespace plant-a",
    ),
    "no node": (unscheduled("0/3 nodes: Insufficient memory."), Reason.JOB_UNSCHEDULABLE, "memory"),
    "no image": (
        waiting("ImagePullBackOff", "Back-off pulling image"),
        Reason.JOB_IMAGE_UNAVAILABLE,
        f"cannot pull {IMAGE}",
    ),
    "no container": (waiting("CreateContainerError", "no such user"), Reason.JOB_NOT_STARTED, "no such user"),
    "no secret": (
        seen(pod(), event("FailedMount", 'MountVolume.SetUp failed: secret "site" not found')),
        Reason.SECRET_NOT_FOUND,
        "Secret plant-a/site does not exist",
    ),
    "no entries": (
        seen(pod(), event("FailedMount", 'MountVolume.SetUp failed: configmap "entries" not found')),
        Reason.SOURCE_NOT_FOUND,
        "ConfigMap plant-a/entries does not exist",
    ),
    "no volume": (
        seen(pod(), event("FailedAttachVolume", "Multi-Attach error for volume")),
        Reason.VOLUME_NOT_MOUNTED,
        "Multi-Attach error",
    ),
    "quota": (
        seen(None, event("FailedCreate", 'pods "x" is forbidden: exceeded quota: small')),
        Reason.JOB_QUOTA_EXCEEDED,
        "exceeded quota: small",
    ),
    "admission": (
        seen(None, event("FailedCreate", 'webhook "pods.edgemodel.dev" denied the request: no TrustPolicy')),
        Reason.JOB_REFUSED,
        "no TrustPolicy",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_STARTED)
def test_what_keeps_a_pod_from_starting_is_said(name: str) -> None:
    looked, reason, words = NOT_STARTED[name]
    trouble = why_not_started(job_plan(), looked, waited=11)
    assert trouble is not None
    assert trouble.failure.reason is reason
    assert words in trouble.failure.message
    assert trouble.failure.step in {Step.RESOLVE, Step.DOWNLOAD}


@pytest.mark.parametrize("name", ["claim unbound", "no node", "no volume"])
def test_what_is_usual_for_a_moment_is_waited_for(name: str) -> None:
    assert why_not_started(job_plan(), NOT_STARTED[name][0], waited=1) is None


@pytest.mark.parametrize(
    "looked",
    [
        seen(),
        seen(pod()),
        waiting("ContainerCreating", ""),
        seen(None, event("SuccessfulCreate", "Created pod")),
        seen(pod(), event("FailedMount", "configmap not found"), event("Pulling", "Pulling image")),
    ],
    ids=["nothing yet", "pending", "creating", "created", "mended"],
)
def test_a_pod_on_its_way_is_no_trouble(looked: JobSeen) -> None:
    assert why_not_started(job_plan(), looked, waited=60) is None


def ended(reason: str, code: int = 1, **status: Any) -> JobSeen:
    state = {"terminated": {"reason": reason, "exitCode": code, "message": status.pop("said", "")}}
    return seen(pod("Failed", containerStatuses=[{"state": state}], **status))


ENDED = {
    "memory": (ended("OOMKilled", 137), Reason.OUT_OF_MEMORY, "4Gi"),
    "disk": (
        seen(
            pod(
                "Failed", reason="Evicted", message='Usage of EmptyDir volume "work" exceeds the limit "8Gi".'
            )
        ),
        Reason.NO_SPACE,
        "builds.workSizeLimit",
    ),
    "eviction": (
        seen(pod("Failed", reason="Evicted", message="The node was low on resource: memory.")),
        Reason.JOB_INTERRUPTED,
        "low on resource: memory",
    ),
    "start": (ended("StartError", 128, said="exec: not found"), Reason.JOB_NOT_STARTED, "exec: not found"),
    "silence": (ended("Error", 3), Reason.WORKER_DIED, "status 3"),
    "no pod": (seen(None), Reason.JOB_INTERRUPTED, "deleted"),
    "deadline": (
        seen(None, conditions=({"type": "Failed", "status": "True", "reason": "DeadlineExceeded"},)),
        Reason.BUILD_TIMEOUT,
        "3600 seconds",
    ),
}


@pytest.mark.parametrize("name", ENDED)
def test_why_there_is_no_answer_is_said(name: str) -> None:
    looked, reason, words = ENDED[name]
    failure = why_ended(job_plan(), looked, SETTINGS).failure
    assert failure.reason is reason
    assert words in failure.message


# --- the conversation ---------------------------------------------------------------------------------------


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
        found = [
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


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(log_reader, "RETRY_SECONDS", 0.001)


RUNNING = seen(pod("Running"))


def answered(answer: BuildResult | BuildFailure, phase: str = "Succeeded") -> JobSeen:
    state = {"terminated": {"exitCode": 0, "message": write_note(answer).decode()}}
    return seen(pod(phase, containerStatuses=[{"state": state}]))


def make_runner(jobs: FakeJobs, *, stopping: bool = False) -> JobRunner:
    return JobRunner(cast("Jobs", jobs), SETTINGS, is_stopping=lambda: stopping)


def placed(jobs: FakeJobs) -> PlacedBuilder:
    return PlacedBuilder(WORKER, make_runner(jobs), WITH_BUILDAH)


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
    jobs = FakeJobs([NOT_STARTED["claim"][0]])
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
    jobs = FakeJobs([RUNNING] * 50 + [ENDED["memory"][0]], [encode_message(Progress(step=Step.ASSEMBLE))])
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
        async def create(self, document: Any) -> bool:
            raise KubeError(status, f"/apis/batch/v1/namespaces/plant-a/jobs: {status} {message}")

    with pytest.raises(SupplyError, match=words) as failed:
        await placed(Refusing()).build(supply(on_volume()), BuildAccess(), lambda *_: None)
    assert failed.value.reason == reason
    assert "/apis/" not in str(failed.value)
    assert failed.value.step is SupplyStep.PREPARE


async def test_an_api_server_that_is_away_is_not_the_builds_fault() -> None:
    class Away(FakeJobs):
        async def create(self, document: Any) -> bool:
            raise KubeError(0, "no answer")

    with pytest.raises(KubeError):
        await run(make_runner(Away()))


# --- placing ------------------------------------------------------------------------------------------------


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

    async def create(self, document: Any) -> bool:
        name = document["metadata"]["name"]
        fresh = name not in self.documents
        self.documents.setdefault(name, document)
        return fresh

    async def get(self, namespace: str, name: str) -> Json | None:
        return {"metadata": {"uid": name, "name": name}}

    async def delete(self, namespace: str, name: str) -> None:
        self.deleted.append(self.step(name))

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


async def test_the_image_is_built_on_the_runtimes_that_the_jobs_made() -> None:
    job = supply(with_dockerfile("Buildah", CONTEXT).with_("model.source", PVC))
    key = WORKER.request(job, BuildAccess()).build_key
    plant = FakePlant(
        {
            "runtime-amd64": answered(runtime_result("1", key)),
            "runtime-arm64": answered(runtime_result("2", key)),
            "image": answered(result(build_key=key)),
        }
    )
    built = await placed(plant).build(job, BuildAccess(), lambda *_: None)
    assert built.image == result().image
    (document,) = [one for name, one in plant.documents.items() if plant.step(name) == "image"]
    annotations = document["spec"]["template"]["metadata"]["annotations"]
    made = json.loads(annotations["edgemodel.dev/build-request"])["madeRuntimes"]
    assert made == [runtime_result(digit, key).image for digit in ("1", "2")]


async def test_a_runtime_that_cannot_be_made_is_told_at_once_and_the_other_goes_on() -> None:
    job = supply(with_dockerfile("Buildah", CONTEXT))
    plant = FakePlant({"runtime-amd64": RUNNING, "runtime-arm64": NOT_STARTED["no image"][0]})
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
