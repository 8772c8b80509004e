"""The Service of a model and the immutable copies of its golden samples."""

from __future__ import annotations

from typing import Any

from edgemodel_operator.api.names import LABEL_MODEL, LABEL_ROLE, ROLE_SERVE
from edgemodel_operator.core.manifests.owner import child_metadata
from edgemodel_operator.core.world import Model

Json = dict[str, Any]


def service(model: Model) -> Json:
    """Give the Service: a client is answered by the pod on its own node, also when the network is away."""
    ports = model.spec.serving.ports
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": child_metadata(model, model.name, {}),
        "spec": {
            "type": "ClusterIP",
            "internalTrafficPolicy": "Local",
            "selector": {LABEL_MODEL: model.key, LABEL_ROLE: ROLE_SERVE},
            "ports": [_port("http", ports.http), _port("grpc", ports.grpc, "kubernetes.io/h2c")],
        },
    }


def _port(name: str, number: int, protocol: str = "http") -> Json:
    """Give a port of the Service; `protocol` tells meshes and gateways what is spoken there."""
    return {
        "name": name,
        "port": number,
        "targetPort": name,
        "protocol": "TCP",
        "appProtocol": protocol,
    }


def golden_copy(model: Model, name: str, text: str) -> Json:
    """Give the copy of a golden sample that belongs to one revision and never changes."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": child_metadata(model, name, {}),
        "immutable": True,
        "data": {"golden.json": text},
    }
