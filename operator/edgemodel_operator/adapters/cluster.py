"""The cluster: what a reconcile reads from the Kubernetes API and what it writes there."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from edgemodel_operator.adapters.kube import KubeApi, KubeError
from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.edgemodel_status import EdgeModelStatus
from edgemodel_operator.api.names import (
    API_VERSION,
    FIELD_MANAGER,
    FINALIZER,
    GROUP,
    LABEL_MODEL,
    VERSION,
)
from edgemodel_operator.core.cluster_networks import cluster_networks
from edgemodel_operator.core.trust import AnyPolicy, parse_policy

log = logging.getLogger(__name__)

Raw = dict[str, Any]

MODELS = f"/apis/{GROUP}/{VERSION}"
COLLECTIONS = {
    "DaemonSet": "/apis/apps/v1/namespaces/{namespace}/daemonsets",
    "Service": "/api/v1/namespaces/{namespace}/services",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
}
LABEL_BATCH_SECONDS = 0.02
"""How long label changes of one node are collected: every write makes the DaemonSet controller look at all
DaemonSets again for that node, so that many models on one node are moved by one patch."""


class Cluster:
    """Typed access for one operator; every method raises KubeError when the API cannot be asked."""

    def __init__(self, kube: KubeApi, namespace: str, instance: str) -> None:
        """Work through `kube`; `namespace` is the operator's own, `instance` names it in events."""
        self._kube = kube
        self._namespace = namespace
        self._instance = instance
        self._batches: dict[str, tuple[Raw, asyncio.Task[Raw]]] = {}

    # --- reads ---------------------------------------------------------------------------------------

    async def get_model(self, namespace: str, name: str) -> Raw | None:
        """Read an EdgeModel."""
        return await self._kube.get(f"{MODELS}/namespaces/{namespace}/edgemodels/{name}")

    async def list_models(self) -> tuple[Raw, ...]:
        """Read all EdgeModels."""
        return (await self._kube.list(f"{MODELS}/edgemodels")).items

    async def list_nodes(self) -> tuple[Raw, ...]:
        """Read all nodes."""
        return (await self._kube.list("/api/v1/nodes")).items

    async def list_networks(self) -> tuple[str, ...]:
        """Read the CIDRs of the cluster's own Services and pods, as far as its API tells them."""
        try:
            ranges = (await self._kube.list("/apis/networking.k8s.io/v1/servicecidrs")).items
        except KubeError as error:
            if error.status not in {403, 404}:  # older clusters have none, older charts no right
                raise
            ranges = ()
        nodes, api = await self.list_nodes(), await self.get_service("default", "kubernetes")
        return cluster_networks(nodes, ranges, api)

    async def list_children(self, kind: str, namespace: str, model_key: str) -> tuple[Raw, ...]:
        """Read the children of one kind of a model."""
        path = COLLECTIONS[kind].format(namespace=namespace)
        return (await self._kube.list(path, labels=f"{LABEL_MODEL}={model_key}")).items

    async def list_pods(self, namespace: str, model_key: str) -> tuple[Raw, ...]:
        """Read the pods of a model."""
        path = f"/api/v1/namespaces/{namespace}/pods"
        return (await self._kube.list(path, labels=f"{LABEL_MODEL}={model_key}")).items

    async def list_classes(self) -> dict[str, AcceleratorClassSpec]:
        """Read all AcceleratorClasses; one that cannot be understood is left out, and others go on.

        Where the kind itself is gone there are none: EdgeModels that are deleted with it must get away.
        """
        try:
            listed = (await self._kube.list(f"{MODELS}/acceleratorclasses")).items
        except KubeError as error:
            if error.status != 404:
                raise
            listed = ()
        classes = {}
        for item in listed:
            name = item["metadata"]["name"]
            try:
                classes[name] = AcceleratorClassSpec.model_validate(item.get("spec"))
            except ValidationError as error:
                log.warning("AcceleratorClass %s is left out: %s", name, error)
        return classes

    async def list_policies(self) -> tuple[AnyPolicy, ...]:
        """Read all TrustPolicies."""
        return tuple(parse_policy(item) for item in (await self._kube.list(f"{MODELS}/trustpolicies")).items)

    async def get_config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """Read the text fields of a ConfigMap."""
        raw = await self._kube.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        return None if raw is None else raw.get("data") or {}

    async def get_config_map_bytes(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Read all fields of a ConfigMap, the text ones in UTF-8."""
        raw = await self._kube.get(f"/api/v1/namespaces/{namespace}/configmaps/{name}")
        if raw is None:
            return None
        text = {key: value.encode() for key, value in (raw.get("data") or {}).items()}
        return {**text, **_decoded(raw.get("binaryData"), f"ConfigMap {namespace}/{name}")}

    async def get_service(self, namespace: str, name: str) -> Raw | None:
        """Read a Service."""
        return await self._kube.get(f"/api/v1/namespaces/{namespace}/services/{name}")

    async def get_secret(self, namespace: str, name: str) -> dict[str, bytes] | None:
        """Read the decoded fields of a Secret."""
        raw = await self._kube.get(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return None if raw is None else _decoded(raw.get("data"), f"Secret {namespace}/{name}")

    # --- writes --------------------------------------------------------------------------------------

    async def apply(self, document: Mapping[str, Any]) -> None:
        """Apply a child object server-side."""
        metadata = document["metadata"]
        collection = COLLECTIONS[document["kind"]].format(namespace=metadata["namespace"])
        await self._kube.apply(f"{collection}/{metadata['name']}", document, manager=FIELD_MANAGER)

    async def delete(self, kind: str, namespace: str, name: str) -> None:
        """Delete a child object; one that is gone is fine."""
        await self._kube.delete(f"{COLLECTIONS[kind].format(namespace=namespace)}/{name}")

    async def apply_class(self, name: str, spec: AcceleratorClassSpec) -> None:
        """Apply an AcceleratorClass that the configuration ships."""
        document = {
            "apiVersion": API_VERSION,
            "kind": "AcceleratorClass",
            "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER}},
            "spec": spec.to_raw(),
        }
        await self._kube.apply(f"{MODELS}/acceleratorclasses/{name}", document, manager=FIELD_MANAGER)

    async def set_finalizer(self, raw: Mapping[str, Any], *, present: bool) -> None:
        """Put our finalizer on a model or take it off, if nobody changed the list in between (else 409)."""
        metadata = raw["metadata"]
        others = [item for item in metadata.get("finalizers") or () if item != FINALIZER]
        wanted = [*others, FINALIZER] if present else others
        path = f"{MODELS}/namespaces/{metadata['namespace']}/edgemodels/{metadata['name']}"
        body = {"metadata": {"finalizers": wanted, "resourceVersion": metadata["resourceVersion"]}}
        try:
            await self._kube.merge(path, body, manager=FIELD_MANAGER)
        except KubeError as error:
            if error.status != 404:
                raise

    async def write_status(self, namespace: str, name: str, status: EdgeModelStatus) -> None:
        """Write the whole status of a model."""
        path = f"{MODELS}/namespaces/{namespace}/edgemodels/{name}/status"
        document = {
            "apiVersion": API_VERSION,
            "kind": "EdgeModel",
            "metadata": {"name": name, "namespace": namespace},
            "status": status.to_raw(),
        }
        await self._kube.apply(path, document, manager=FIELD_MANAGER)

    async def label_node(self, node: str, labels: Mapping[str, str | None]) -> None:
        """Change labels of a node (None removes one); changes that come together go out as one patch."""
        waiting = self._batches.get(node)
        if waiting is None:
            collected: Raw = dict(labels)
            task = asyncio.create_task(self._send_labels(node, collected))
            self._batches[node] = (collected, task)
        else:
            waiting[0].update(labels)
            task = waiting[1]
        await asyncio.shield(task)

    async def _send_labels(self, node: str, collected: Raw) -> Raw:
        await asyncio.sleep(LABEL_BATCH_SECONDS)
        del self._batches[node]
        body = {"metadata": {"labels": collected}}
        return await self._kube.merge(f"/api/v1/nodes/{node}", body, manager=FIELD_MANAGER)

    async def emit(self, model: Mapping[str, Any], kind: str, reason: str, message: str) -> None:
        """Record a Kubernetes event of type `kind` (Normal or Warning) about a model."""
        metadata = model["metadata"]
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}-", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "EdgeModel",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        await self._kube.create(f"/api/v1/namespaces/{metadata['namespace']}/events", event)


def _decoded(fields: Mapping[str, str] | None, what: str) -> dict[str, bytes]:
    try:
        return {key: base64.b64decode(value) for key, value in (fields or {}).items()}
    except (binascii.Error, ValueError) as error:
        raise KubeError(0, f"{what} does not hold base64") from error
