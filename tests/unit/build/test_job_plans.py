"""Builds in Jobs: which they are, in which image, and how the manifests look."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_extensions import override

from edgemodel_operator.adapters.kube import KubeError
from edgemodel_operator.build.failures import BuildError, Reason
from edgemodel_operator.build.jobs.manifest import make_job
from edgemodel_operator.build.jobs.mounts import complete_request
from edgemodel_operator.build.jobs.plan import JobPlan, JobStep, plan_job
from edgemodel_operator.core.supply import BuildAccess, SupplyError
from edgemodel_operator.oci.auth import Credential
from edgemodel_operator.settings import BuildMode, BuildSettings
from support.build_jobs import (
    BUILDAH,
    CONTEXT,
    CONVERTER,
    IMAGE,
    PVC,
    SETTINGS,
    WITH_BUILDAH,
    FakeJobs,
    job_plan,
    on_volume,
    placed,
    plan_of,
    request_of,
    runtime_plans,
    supply,
    with_dockerfile,
)
from support.builders import Json, make_model
from support.dockerfiles import write_files

PASSWORD = "not-for-anybody"


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


def test_docker_engines_are_asked_by_the_operator_itself() -> None:
    settings = SETTINGS.model_copy(update={"mode": BuildMode.JOB})
    assert plan_of(with_dockerfile("Docker", CONTEXT), settings) is None
    with pytest.raises(BuildError, match="builder: Docker"):
        plan_of(with_dockerfile("Docker", CONTEXT).with_("model.source", PVC), settings)


def test_the_secret_of_a_context_is_lent_like_that_of_the_model(tmp_path: Path) -> None:
    s3 = {"bucket": "contexts", "key": "c.tar", "sha256": "c" * 64, "credentialsSecret": {"name": "s3"}}
    builder = with_dockerfile("Buildah", {"s3": s3}).with_("model.source", PVC)
    assert job_plan(builder).secrets == ("s3",)
    write_files(tmp_path, {"secrets/s3/AWS_ACCESS_KEY_ID": "plant"})
    request = complete_request(request_of(supply(builder)), tmp_path)
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
    request = request_of(job).model_copy(update={"plain_http": ("x" * 300_000,)})
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
        @override
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
