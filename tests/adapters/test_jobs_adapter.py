"""Jobs on a real API server: made once, looked at with pod and events, deleted with what belongs to them.

There may be no controller and no kubelet: the tests do what those would.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.base import Cluster as TestCluster
from edgemodel_operator.adapters.jobs import Jobs
from edgemodel_operator.adapters.kube import KubeApi, KubeError, connect
from edgemodel_operator.build.jobs.manifest import make_job
from edgemodel_operator.build.jobs.plan import JobPlan
from edgemodel_operator.build.jobs.trouble import why_refused
from edgemodel_operator.settings import BuildSettings

pytestmark = pytest.mark.needs("api")

Json = dict[str, Any]
IMAGE = f"registry.plant-a.local:5000/edgemodel/operator@sha256:{'a' * 64}"


@pytest.fixture
async def kube(edge_cluster: TestCluster) -> AsyncIterator[KubeApi]:
    async with connect(str(edge_cluster.kubeconfig)) as api:
        yield api


@pytest.fixture
def jobs(kube: KubeApi) -> Jobs:
    return Jobs(kube)


@pytest.fixture
def plan(edge_cluster: TestCluster) -> Iterator[JobPlan]:
    """Give the plan of a Job in a namespace of its own with the strictest rules for pods."""
    namespace = f"jobs-{secrets.token_hex(4)}"
    edge_cluster.kubectl("create", "namespace", namespace)
    edge_cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    yield JobPlan(
        namespace=namespace,
        model_name="line",
        uid="00000000-0000-0000-0000-000000000000",
        variant="onnxruntime-cpu",
        image=IMAGE,
        request='{"modelName": "line", "$": "$(HOME) $$"}',
        registries=("site-registry",),
        secrets=("s3",),
        config_maps=("entries",),
        claims=("models",),
    )
    edge_cluster.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def document(plan: JobPlan) -> Json:
    """Give the manifest of the Job, suspended and without an owner: nothing of the cluster moves it."""
    made = make_job(plan, BuildSettings(image=IMAGE))
    del made["metadata"]["ownerReferences"]
    made["spec"]["suspend"] = True
    return made


def as_pod(document: Json, job: Json, name: str) -> Json:
    """Give the pod that the controller would make."""
    template = document["spec"]["template"]
    labels = {**template["metadata"]["labels"], "batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
    metadata = {
        **template["metadata"],
        "name": name,
        "namespace": job["metadata"]["namespace"],
        "labels": labels,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


def an_event(subject: Json, kind: str, reason: str, minutes_ago: int) -> Json:
    metadata = subject["metadata"]
    told = (datetime.now(UTC) - timedelta(minutes=minutes_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    about = {
        "kind": kind,
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "x-", "namespace": metadata["namespace"]},
        "involvedObject": about,
        "reason": reason,
        "message": reason,
        "type": "Warning",
        "lastTimestamp": told,
    }


async def test_the_api_server_takes_the_job_once_and_finds_it_by_its_labels(
    jobs: Jobs, plan: JobPlan, document: Json
) -> None:
    assert await jobs.create(document) is True
    assert await jobs.create(document) is False
    (found,) = await jobs.find(plan.namespace, ",".join(f"{k}={v}" for k, v in plan.labels.items()))
    assert found["metadata"]["name"] == plan.name
    assert await jobs.find(plan.namespace, "edgemodel.dev/build-of=another") == ()


async def test_a_pod_of_it_keeps_the_restricted_standard_and_carries_the_request_as_it_is(
    kube: KubeApi, jobs: Jobs, plan: JobPlan, document: Json
) -> None:
    await jobs.create(document)
    job = await jobs.get(plan.namespace, plan.name)
    assert job is not None

    pod = await kube.create(f"/api/v1/namespaces/{plan.namespace}/pods", as_pod(document, dict(job), "one"))

    assert pod["metadata"]["annotations"]["edgemodel.dev/build-request"] == plan.request


async def test_a_look_shows_the_pod_and_what_was_told_of_it_last(
    kube: KubeApi, jobs: Jobs, plan: JobPlan, document: Json
) -> None:
    assert await jobs.look(plan.namespace, plan.name) is None
    await jobs.create(document)
    job = dict(await jobs.get(plan.namespace, plan.name) or {})
    events = f"/api/v1/namespaces/{plan.namespace}/events"
    await kube.create(events, an_event(job, "Job", "FailedCreate", 0))
    await kube.create(events, an_event(job, "Job", "Suspended", 9))

    seen = await jobs.look(plan.namespace, plan.name)
    assert seen is not None
    assert seen.pod is None
    assert [event["reason"] for event in seen.events][-1] == "FailedCreate"

    pods = f"/api/v1/namespaces/{plan.namespace}/pods"
    pod = await kube.create(pods, as_pod(document, job, "one"))
    await kube.create(events, an_event(pod, "Pod", "Pulling", 1))
    await kube.create(events, an_event(pod, "Pod", "FailedMount", 5))

    seen = await jobs.look(plan.namespace, plan.name)
    assert seen is not None
    assert seen.pod is not None
    assert seen.pod["metadata"]["name"] == "one"
    told = [event["reason"] for event in seen.events if event["reason"] in {"FailedMount", "Pulling"}]
    assert told == ["FailedMount", "Pulling"]


async def test_a_deleted_job_is_gone_and_deleting_it_again_is_fine(
    jobs: Jobs, plan: JobPlan, document: Json
) -> None:
    await jobs.create(document)
    await jobs.delete(plan.namespace, plan.name)
    await jobs.delete(plan.namespace, plan.name)
    assert await jobs.get(plan.namespace, plan.name) is None


async def test_what_the_api_server_says_to_an_account_without_the_right_is_understood(
    kube: KubeApi, jobs: Jobs, plan: JobPlan, document: Json
) -> None:
    kube._api.set_default_header("Impersonate-User", f"system:serviceaccount:{plan.namespace}:default")
    with pytest.raises(KubeError) as refused:
        await jobs.create(document)
    assert refused.value.status == 403
    assert "modelNamespaces" in why_refused(plan, str(refused.value)).failure.message
    assert await jobs.find(plan.namespace, "a=b") == ()
