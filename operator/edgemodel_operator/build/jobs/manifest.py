"""The manifest of a build Job: as few rights and as little of the node as a build needs. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edgemodel_operator.adapters.jobs import CONTAINER
from edgemodel_operator.api.names import (
    ANNOTATION_MODEL_NAME,
    API_VERSION,
    FIELD_MANAGER,
    GROUP,
    LABEL_MANAGED_BY,
    short,
)
from edgemodel_operator.build.dockerfile.buildah_pod import PodRights, pod_rights
from edgemodel_operator.build.jobs.mounts import CLAIMS, CONFIG_MAPS, REGISTRIES, REQUEST, ROOT, SECRETS
from edgemodel_operator.build.jobs.plan import JobPlan, JobStep
from edgemodel_operator.settings import BuildSettings

ANNOTATION_REQUEST = f"{GROUP}/build-request"

WORK = "/work"
TMP_SIZE_LIMIT = "256Mi"
GRACE_SECONDS = 5
USER = 65532

Json = dict[str, Any]


def make_job(plan: JobPlan, settings: BuildSettings) -> Json:
    """Give the manifest of the Job."""
    labels = {
        "app.kubernetes.io/name": "edgemodel-build",
        "app.kubernetes.io/instance": short(plan.model_name, 63),
        "app.kubernetes.io/component": "build",
        "app.kubernetes.io/part-of": "edgemodel",
        LABEL_MANAGED_BY: FIELD_MANAGER,
        **plan.labels,
    }
    name = {ANNOTATION_MODEL_NAME: plan.model_name}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": plan.name,
            "namespace": plan.namespace,
            "labels": labels,
            "annotations": name,
            "ownerReferences": [_owner(plan)],
        },
        "spec": {
            "completions": 1,
            "parallelism": 1,
            # The operator tries again, with its own pauses.
            "backoffLimit": 0,
            "activeDeadlineSeconds": settings.timeout_seconds,
            "ttlSecondsAfterFinished": settings.finished_seconds,
            "template": {
                "metadata": {"labels": labels, "annotations": {**name, ANNOTATION_REQUEST: plan.request}},
                "spec": _pod(plan, settings),
            },
        },
    }


def _owner(plan: JobPlan) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": "EdgeModel",
        "name": plan.model_name,
        "uid": plan.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _pod(plan: JobPlan, settings: BuildSettings) -> Json:
    architecture = {"kubernetes.io/arch": plan.architecture} if plan.architecture else {}
    volumes, mounts = _volumes(plan, settings)
    rights = _rights(plan, settings)
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "nodeSelector": {"kubernetes.io/os": "linux", **settings.node_selector, **architecture},
        "imagePullSecrets": [{"name": name} for name in plan.pull_secrets],
        **rights.pod,
        "containers": [
            {
                "name": CONTAINER,
                "image": plan.image,
                "args": ["build", "--mounts", ROOT, "--work", WORK, "--make", plan.step.value],
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108 - a volume of the pod's own
                "resources": settings.resources.to_raw(),
                "securityContext": rights.container,
                "terminationMessagePolicy": "File",
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _rights(plan: JobPlan, settings: BuildSettings) -> PodRights:
    """Give the security settings: those of the restricted standard, but for the commands of a Dockerfile."""
    if plan.step is JobStep.RUNTIME:
        return pod_rights(user_namespaces=settings.buildah.user_namespaces)
    # Mounted Secrets are readable for the group alone. Claims are mounted read-only, so that the kubelet
    # leaves the group of their files as it is.
    user = {"runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return PodRights(
        pod={"securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}}},
        container={
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    )


def _volumes(plan: JobPlan, settings: BuildSettings) -> tuple[list[Json], list[Json]]:
    folder, _, file = REQUEST.partition("/")
    field = {"fieldPath": f"metadata.annotations['{ANNOTATION_REQUEST}']"}
    request = {"items": [{"path": file, "fieldRef": field}], "defaultMode": 0o440}
    volumes: list[Json] = [
        {"name": "work", "emptyDir": {"sizeLimit": settings.work_size_limit}},
        {"name": "tmp", "emptyDir": {"sizeLimit": TMP_SIZE_LIMIT}},
        {"name": "request", "downwardAPI": request},
    ]
    mounts: list[Json] = [
        {"name": "work", "mountPath": WORK},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        {"name": "request", "mountPath": f"{ROOT}/{folder}", "readOnly": True},
    ]
    for volume, path in _lent(plan):
        volumes.append(volume)
        mounts.append({"name": volume["name"], "mountPath": f"{ROOT}/{path}", "readOnly": True})
    return volumes, mounts


def _lent(plan: JobPlan) -> Iterable[tuple[Json, str]]:
    """Give what the namespace lends to the build: volumes, each with its path."""
    for number, name in enumerate(plan.registries):
        yield _secret(f"registry-{number}", name), f"{REGISTRIES}/{number}"
    for number, name in enumerate(plan.secrets):
        yield _secret(f"secret-{number}", name), f"{SECRETS}/{name}"
    for number, name in enumerate(plan.config_maps):
        source = {"name": name, "defaultMode": 0o440}
        yield {"name": f"config-map-{number}", "configMap": source}, f"{CONFIG_MAPS}/{name}"
    for number, name in enumerate(plan.claims):
        claim = {"claimName": name, "readOnly": True}
        yield {"name": f"claim-{number}", "persistentVolumeClaim": claim}, f"{CLAIMS}/{name}"


def _secret(volume: str, name: str) -> Json:
    return {"name": volume, "secret": {"secretName": name, "defaultMode": 0o440}}
