"""DaemonSets: one for each revision and target serves; an exclusive target has a second one that prefetches.

Nodes are chosen by labels alone (see `core.rollout`): the DaemonSet of an assignment runs where `active` or
`next` names it. On an exclusive device the serving pod follows `active` only, and until the cut-over a small
pod of the same image, without the device, follows `next`: it pulls the image and checks the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgemodel_operator.api.edgemodel_status import Revision, RevisionTarget
from edgemodel_operator.api.names import (
    ANNOTATION_ROSTER,
    LABEL_MODEL,
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_TARGET,
    ROLE_PREFETCH,
    ROLE_SERVE,
    active_label,
    assignment_value,
    child_name,
    next_label,
    short,
)
from edgemodel_operator.core.manifests.owner import child_metadata
from edgemodel_operator.core.world import Model

Json = dict[str, Any]

GOLDEN_DIRECTORY = "/etc/edgemodel/golden"
DRAIN_SECONDS = 5
"""How long a stopping pod still answers: endpoints change on every node within this time."""
EXCLUSIVE_DRAIN_SECONDS = 2
"""Shorter, because on an exclusive device nobody else answers before this pod has gone."""
RUN_AS = 65532


def daemonsets(model: Model, revision: Revision, rosters: Mapping[str, str]) -> tuple[Json, ...]:
    """Give all DaemonSets of a revision; `rosters` has a text for each assignment (see `core.roster`)."""
    documents = []
    for target in revision.targets:
        roster = rosters.get(assignment_value(revision.name, target.accelerator), "")
        documents.append(_daemonset(model, revision, target, ROLE_SERVE, roster))
        if target.exclusive:
            documents.append(_daemonset(model, revision, target, ROLE_PREFETCH, roster))
    return tuple(documents)


def daemonset_name(model: str, revision: str, target: str, role: str) -> str:
    """Name the DaemonSet of an assignment."""
    parts = (target, revision) if role == ROLE_SERVE else (target, revision, role)
    return child_name(model, *parts)


def _daemonset(model: Model, revision: Revision, target: RevisionTarget, role: str, roster: str) -> Json:
    identity = {
        LABEL_MODEL: model.key,
        LABEL_REVISION: revision.name,
        LABEL_TARGET: short(target.accelerator, 40),  # as in the value of an assignment
        LABEL_ROLE: role,
    }
    name = daemonset_name(model.name, revision.name, target.accelerator, role)
    metadata = child_metadata(model, name, identity)
    metadata["annotations"][ANNOTATION_ROSTER] = roster
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": identity},
            # A template never changes under its name; nothing may restart a pod outside of a wave.
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 1,
            "template": {
                "metadata": {
                    "labels": {**identity, "app.kubernetes.io/name": short(model.name, 63)},
                    "annotations": {"edgemodel.dev/model-version": revision.model_version},
                },
                "spec": _pod_spec(model, revision, target, role),
            },
        },
    }


def _pod_spec(model: Model, revision: Revision, target: RevisionTarget, role: str) -> Json:
    serve = role == ROLE_SERVE
    spec: Json = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30 if serve else 5,
        "affinity": {"nodeAffinity": _node_affinity(model.key, revision.name, target, role)},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": RUN_AS,
            "runAsGroup": RUN_AS,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_serving(revision, target) if serve else _prefetching(target)],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }
    if serve and revision.golden_config_map:
        spec["volumes"].append({"name": "golden", "configMap": {"name": revision.golden_config_map}})
    if revision.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in revision.pull_secrets]
    if serve and target.runtime_class_name:
        spec["runtimeClassName"] = target.runtime_class_name
    return spec


def _node_affinity(key: str, revision: str, target: RevisionTarget, role: str) -> Json:
    value = assignment_value(revision, target.accelerator)
    active = {"key": active_label(key), "operator": "In", "values": [value]}
    following = {"key": next_label(key), "operator": "In", "values": [value]}
    not_active = {"key": active_label(key), "operator": "NotIn", "values": [value]}
    if role == ROLE_PREFETCH:
        terms = [[following, not_active]]
    elif target.exclusive:
        terms = [[active]]
    else:
        terms = [[active], [following]]
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchExpressions": expressions} for expressions in terms]
        }
    }


def _container(target: RevisionTarget, arguments: list[str]) -> Json:
    return {
        "name": "model",
        "image": target.image,
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - the path inside the pod
    }


def _serving(revision: Revision, target: RevisionTarget) -> Json:
    drain = EXCLUSIVE_DRAIN_SECONDS if target.exclusive else DRAIN_SECONDS
    arguments = ["--http-port", str(revision.http_port), "--drain-seconds", str(drain)]
    if revision.grpc_port:
        arguments += ["--grpc-port", str(revision.grpc_port)]
    arguments += [*revision.server_options, *target.runtime_options]
    if revision.require_accelerator:
        arguments += ["--require-provider", target.provider]
    if revision.golden_config_map:
        arguments += ["--golden", f"{GOLDEN_DIRECTORY}/golden.json"]
        arguments += ["--golden-tolerance", revision.golden_tolerance]
    container = _container(target, arguments)
    container["ports"] = [{"name": "http", "containerPort": revision.http_port}]
    if revision.grpc_port:
        container["ports"].append({"name": "grpc", "containerPort": revision.grpc_port})
    container["readinessProbe"] = {
        "httpGet": {"path": "/v2/health/ready", "port": "http"},
        "periodSeconds": 1,
        "timeoutSeconds": 2,
        "failureThreshold": 3,
    }
    container["livenessProbe"] = {
        "httpGet": {"path": "/v2/health/live", "port": "http"},
        # Long enough that a board which swaps for a while is not hit while it is down.
        "initialDelaySeconds": 60,
        "periodSeconds": 10,
        "timeoutSeconds": 5,
        "failureThreshold": 6,
    }
    container["resources"] = {"requests": {"cpu": "50m", "memory": "96Mi"}}
    if target.extended_resource:
        container["resources"]["limits"] = {target.extended_resource: "1"}
        container["resources"]["requests"][target.extended_resource] = "1"
    if revision.golden_config_map:
        container["volumeMounts"].append({"name": "golden", "mountPath": GOLDEN_DIRECTORY, "readOnly": True})
    if target.env:
        container["env"] = [{"name": name, "value": value} for name, value in sorted(target.env.items())]
    return container


def _prefetching(target: RevisionTarget) -> Json:
    container = _container(target, ["--prefetch"])
    container["resources"] = {"requests": {"cpu": "10m", "memory": "16Mi"}}
    return container
