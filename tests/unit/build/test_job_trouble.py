"""Builds in Jobs: what is said when a Job does not get on."""

from __future__ import annotations

import pytest

from edgemodel_operator.adapters.jobs import JobSeen
from edgemodel_operator.build.failures import Reason, Step
from edgemodel_operator.build.jobs.trouble import why_ended, why_not_started
from support.build_jobs import IMAGE, SETTINGS, ended, job_plan, pod, seen, unscheduled, waiting
from support.builders import Json


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
