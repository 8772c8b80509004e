"""Every kopf handler: they wake keys and decide nothing. What to do is found out by the pass, from what *is*.

kopf watches and reconnects; it writes nothing on our objects: low-level event handlers have no finalizer, no
progress and no last-handled annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import kopf

from edgemodel_operator.api.names import (
    ANNOTATION_MODEL_NAME,
    FIELD_MANAGER,
    GROUP,
    LABEL_MODEL,
    VERSION,
    model_key,
)
from edgemodel_operator.reconcile.queue import Key, Queue


@dataclass
class Wakeups:
    """Which models exist, and what of the nodes was seen last: enough to know whom to wake."""

    queue: Queue
    models: dict[str, Key] = field(default_factory=dict)
    """By model key."""
    node_faces: dict[str, object] = field(default_factory=dict)
    trust_generations: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of policies and exceptions, by namespace (policies have none) and name."""
    audit: Callable[[], None] = lambda: None
    """Asks for an audit of what runs."""

    def wake_all(self) -> None:
        """Wake every model."""
        for key in self.models.values():
            self.queue.wake(key)


def make_registry() -> kopf.OperatorRegistry:
    """Give the registry with all handlers."""
    registry = kopf.OperatorRegistry()
    for login in (kopf.login_with_service_account, kopf.login_with_kubeconfig):
        kopf.on.login(id=login.__name__, errors=kopf.ErrorsMode.IGNORED, registry=registry)(login)
    kopf.on.event(GROUP, VERSION, "edgemodels", registry=registry)(model_changed)
    kopf.on.event(GROUP, VERSION, "acceleratorclasses", registry=registry)(anything_changed)
    for plural in ("trustpolicies", "trustexceptions"):
        kopf.on.event(GROUP, VERSION, plural, id=plural, registry=registry)(trust_changed)
    kopf.on.event("", "v1", "nodes", registry=registry)(node_changed)
    kopf.on.event("", "v1", "pods", registry=registry, labels={LABEL_MODEL: kopf.PRESENT})(child_changed)
    kopf.on.event("apps", "v1", "daemonsets", registry=registry, labels={LABEL_MODEL: kopf.PRESENT})(
        child_changed
    )
    return registry


def make_settings() -> kopf.OperatorSettings:
    """Give the settings: bounded time everywhere, and only our own pods and DaemonSets are watched."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # the Lease is the fence
    settings.posting.enabled = False  # events are ours
    settings.scanning.disabled = True  # no watch of namespaces and CRDs is needed
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.chunk_size = 500
    settings.watching.label_selectors["", "v1", "pods"] = LABEL_MODEL
    settings.watching.label_selectors["apps", "v1", "daemonsets"] = LABEL_MODEL
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.process.ultimate_exiting_timeout = 20
    settings.persistence.finalizer = f"{GROUP}/kopf-unused"
    settings.posting.reporting_component = FIELD_MANAGER
    return settings


async def model_changed(
    namespace: str | None,
    name: str | None,
    type: str | None,  # noqa: A002 - kopf passes it by this name
    memo: Wakeups,
    **_: Any,
) -> None:
    """Wake the model; remember it while it exists."""
    key = (namespace or "", name or "")
    if type == "DELETED":
        memo.models.pop(model_key(*key), None)
    else:
        memo.models[model_key(*key)] = key
    memo.queue.wake(key)


async def anything_changed(memo: Wakeups, **_: Any) -> None:
    """Wake all models: the object may matter to any of them."""
    memo.wake_all()


async def trust_changed(
    namespace: str | None,
    name: str | None,
    type: str | None,  # noqa: A002 - kopf passes it by this name
    body: Mapping[str, Any],
    memo: Wakeups,
    **_: Any,
) -> None:
    """Wake models and the audit when what a policy or exception says changes, not when we report on it."""
    key = (namespace or "", name or "")
    generation = int((body.get("metadata") or {}).get("generation", 0))
    if type == "DELETED":
        memo.trust_generations.pop(key, None)
    elif memo.trust_generations.get(key) == generation:
        return
    else:
        memo.trust_generations[key] = generation
    memo.wake_all()
    memo.audit()


async def child_changed(
    namespace: str | None, labels: Mapping[str, str], annotations: Mapping[str, str], memo: Wakeups, **_: Any
) -> None:
    """Wake the model that a pod or DaemonSet belongs to."""
    key = memo.models.get(labels.get(LABEL_MODEL, ""))
    if key is None and annotations.get(ANNOTATION_MODEL_NAME):
        key = (namespace or "", annotations[ANNOTATION_MODEL_NAME])
    if key is not None:
        memo.queue.wake(key)


async def node_changed(name: str | None, body: Mapping[str, Any], memo: Wakeups, **_: Any) -> None:
    """Wake all models when a node shows another face; its heartbeats alone wake nobody."""
    face = node_face(body)
    if memo.node_faces.get(name or "") != face:
        memo.node_faces[name or ""] = face
        memo.wake_all()


def node_face(body: Mapping[str, Any]) -> object:
    """Give what of a node can matter to a model."""
    status, spec = body.get("status") or {}, body.get("spec") or {}
    ready = [
        condition.get("status")
        for condition in status.get("conditions") or ()
        if condition.get("type") == "Ready"
    ]
    return (
        dict(body.get("metadata", {}).get("labels") or {}),
        dict(status.get("capacity") or {}),
        [dict(taint) for taint in spec.get("taints") or ()],
        ready,
        "deletionTimestamp" in body.get("metadata", {}),
    )
