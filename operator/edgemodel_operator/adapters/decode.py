"""From raw Kubernetes objects to the frozen types of the world; pure, and forgiving about absent fields."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.names import (
    FINALIZER,
    LABEL_MODEL,
    LABEL_REVISION,
    LABEL_ROLE,
    LABEL_TARGET,
    ROLE_SERVE,
)
from edgemodel_operator.core.world import Model, Node, Pod, Taint, Workload

Raw = Mapping[str, Any]


def decode_model(raw: Raw) -> Model:
    """Read an EdgeModel; raises pydantic's ValidationError when the spec is not valid."""
    metadata = raw["metadata"]
    return Model(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=EdgeModelSpec.model_validate(raw.get("spec")),
        status=EdgeModelStatus.model_validate(raw.get("status") or {}),
        deleting=is_deleting(raw),
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
    )


def is_deleting(raw: Raw) -> bool:
    """Tell whether somebody deleted the object, which waits for its finalizers."""
    return "deletionTimestamp" in raw["metadata"]


def decode_departing(raw: Raw) -> Model:
    """Read a model that is being deleted and whose spec or status this version cannot read.

    What the spec said does not matter any more: labels and objects of ours are found by the model's key, and
    its images stay in their registry, as by default.
    """
    metadata = raw["metadata"]
    return Model(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        spec=_NOTHING,
        deleting=True,
        has_finalizer=FINALIZER in (metadata.get("finalizers") or ()),
    )


_NOTHING = EdgeModelSpec.model_validate(
    {
        "model": {
            "format": "ONNX",
            "version": "none",
            "source": {"configMap": {"name": "none", "key": "none"}},
        },
        "image": {"repository": "registry.invalid/none"},
        "targets": [{"accelerator": "cpu"}],
    }
)


def decode_node(raw: Raw) -> Node:
    """Read a node."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    labels = metadata.get("labels") or {}
    architecture = (status.get("nodeInfo") or {}).get("architecture") or labels.get("kubernetes.io/arch", "")
    return Node(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        ready=_condition(status, "Ready")[0],
        architecture=architecture,
        labels=labels,
        capacity={
            name: int(value)
            for name, value in (status.get("capacity") or {}).items()
            if "/" in name and str(value).isdigit()
        },
        taints=tuple(
            Taint(taint.get("key", ""), taint.get("effect", ""))
            for taint in (raw.get("spec") or {}).get("taints") or ()
        ),
    )


def decode_pod(raw: Raw) -> Pod:
    """Read a pod of a model: one container, named by our labels."""
    metadata, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    labels = metadata.get("labels") or {}
    containers = status.get("containerStatuses") or ()
    first: Raw = containers[0] if containers else {}
    state = first.get("state") or {}
    ready, since = _condition(status, "Ready")
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        node=spec.get("nodeName") or "",
        revision=labels.get(LABEL_REVISION, ""),
        target=labels.get(LABEL_TARGET, ""),
        role=labels.get(LABEL_ROLE, ROLE_SERVE),
        created=_time(metadata["creationTimestamp"]),
        ip=status.get("podIP") or "",
        acknowledged=bool(status.get("startTime")),
        running="running" in state,
        ready=ready,
        ready_since=since if ready else None,
        restarts=int(first.get("restartCount") or 0),
        terminating="deletionTimestamp" in metadata,
        waiting=_waiting(state, status),
        image=_image(spec),
    )


def belongs_to(raw: Raw, model: Model) -> bool:
    """Say whether an object is a child of a model."""
    return (raw["metadata"].get("labels") or {}).get(LABEL_MODEL) == model.key


def decode_workload(raw: Raw) -> Workload:
    """Read a DaemonSet of a model."""
    labels = raw["metadata"].get("labels") or {}
    return Workload(
        name=raw["metadata"]["name"],
        revision=labels.get(LABEL_REVISION, ""),
        target=labels.get(LABEL_TARGET, ""),
        role=labels.get(LABEL_ROLE, ROLE_SERVE),
        image=_image(((raw.get("spec") or {}).get("template") or {}).get("spec") or {}),
    )


def decode_claims(raw: Raw) -> frozenset[str]:
    """Name the images that an EdgeModel has recorded, whether its spec is valid or not; none if it goes."""
    if "deletionTimestamp" in raw["metadata"]:
        return frozenset()
    status = raw.get("status") or {}
    targets = (target for item in status.get("revisions") or () for target in item.get("targets") or ())
    recorded = (*(status.get("retainedImages") or ()), *(status.get("images") or ()), *targets)
    return frozenset(item.get("image", "") for item in recorded) - {""}


def _image(pod_spec: Raw) -> str:
    first: Raw = next(iter(pod_spec.get("containers") or ()), {})
    return str(first.get("image") or "")


def _condition(status: Raw, kind: str) -> tuple[bool, datetime | None]:
    for condition in status.get("conditions") or ():
        if condition.get("type") == kind:
            changed = condition.get("lastTransitionTime")
            return condition.get("status") == "True", _time(changed) if changed else None
    return False, None


def _waiting(state: Raw, status: Raw) -> str:
    waiting = state.get("waiting") or {}
    if waiting.get("reason"):
        return ": ".join(part for part in (waiting["reason"], waiting.get("message", "")) if part)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', 'Unschedulable')}: {condition.get('message', '')}"
    return ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
