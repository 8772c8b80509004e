"""Our definitions on a real API server, under a group of their own, and objects of our kinds to apply there.

Neither an installed product nor its operator has to do with the objects of these tests.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from cluster.base import Cluster
from edgemodel_operator.api.crd import KINDS, crd_document
from edgemodel_operator.api.names import VERSION

Json = dict[str, Any]
GROUP = "rules.edgemodel.dev"
NAMESPACE = "api-rules"
MODELS = f"edgemodels.{GROUP}"
DELETE = object()

PEM = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"
SHA256 = "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"
HTTP = {"url": "https://models.plant-a.local/line.onnx", "sha256": SHA256}
OCI = {"reference": "registry.plant-a.local:5000/artifacts/line:1", "sha256": SHA256}
REPOSITORY = "registry.plant-a.local:5000/models/line"
MINIMAL: dict[str, Json] = {
    "EdgeModel": {
        "model": {"format": "ONNX", "version": "1", "source": {"http": HTTP}},
        "image": {"repository": REPOSITORY},
        "targets": [{"accelerator": "cpu"}],
    },
    "AcceleratorClass": {
        "runtimes": [{"format": "ONNX", "variant": "onnxruntime-cpu", "provider": "CPUExecutionProvider"}],
        "sharing": "Shared",
    },
    "TrustPolicy": {
        "images": ["registry.plant-a.local:5000/models/**"],
        "authorities": [{"name": "plant-a", "keys": [{"data": PEM}]}],
    },
    "TrustException": {
        "images": [f"{REPOSITORY}@sha256:{SHA256}"],
        "namespaces": ["plant-a"],
        "expires": "2027-01-31T00:00:00Z",
        "reason": "the supplier signs it next week",
    },
}


@contextmanager
def serving_own_group(cluster: Cluster) -> Iterator[Cluster]:
    """Serve the definitions of this working tree under their own group as long as the block lasts."""
    definitions = [_in_own_group(crd_document(kind)) for kind in KINDS]
    names = [f"customresourcedefinition/{document['metadata']['name']}" for document in definitions]
    cluster.kubectl("delete", "--ignore-not-found", "--wait", f"namespace/{NAMESPACE}", *names)
    cluster.kubectl("create", "-f", "-", stdin=_documents(*definitions))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
    cluster.kubectl("apply", "-f", "-", stdin=_documents(_namespace()))
    try:
        yield cluster
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--wait", *names)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def _in_own_group(definition: Json) -> Json:
    plural = definition["spec"]["names"]["plural"]
    definition["metadata"]["name"] = f"{plural}.{GROUP}"
    definition["spec"]["group"] = GROUP
    return definition


def _namespace() -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def _documents(*documents: Json) -> bytes:
    return "\n---\n".join(json.dumps(document) for document in documents).encode()


NAMESPACED = {kind.name for kind in KINDS if kind.namespaced}


def make(kind: str, spec: Json, name: str = "line") -> Json:
    """Give an object of one of our kinds."""
    metadata = {"name": name} | ({"namespace": NAMESPACE} if kind in NAMESPACED else {})
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}


def changed(spec: Json, path: str, value: Any) -> Json:
    """Set, or take away, one field of a copy of a spec by its dotted path."""
    copied = copy.deepcopy(spec)
    *parents, last = path.split(".")
    place = copied
    for name in parents:
        place = place.setdefault(name, {})
    if value is DELETE:
        del place[last]
    else:
        place[last] = value
    return copied


def apply(api: Cluster, document: Json, *options: str) -> Json:
    """Apply one object as a user does, and give what the server answers; raises CommandFailed."""
    answer = api.kubectl("apply", "-f", "-", "-o", "json", *options, stdin=_documents(document))
    stored: Json = json.loads(answer)
    return stored
