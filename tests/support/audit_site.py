"""The audit as the operator makes it, with the operator's rights, on a real cluster and its real pods.

It runs in this process and in the network of the plant, so that no image of the product is needed, and looks
at namespaces of its own alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from cluster.base import Cluster
from cluster.places import API_PORT, CONTROL_PLANE_ADDRESS
from cluster.tools import tool
from edgemodel_operator.adapters.audit_metrics import AuditMetrics
from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.kube import connect
from edgemodel_operator.adapters.policy_status import PolicyObjects
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.adapters.registry_access import RegistryAccess
from edgemodel_operator.adapters.running_images import RunningImages
from edgemodel_operator.api.crd import KINDS, crd_document
from edgemodel_operator.api.names import API_VERSION
from edgemodel_operator.oci.transport import new_session
from edgemodel_operator.reconcile.audit import Auditor
from edgemodel_operator.reconcile.audit_answers import AuditAnswers
from edgemodel_operator.signing.keys import LocalKey
from support.admission_site import run_in_plant
from support.chart import render_chart

Json = dict[str, Any]
NAME = "audit-under-test"
"""Of the account, its rights, and the policies."""
SYSTEM = "audit-system"
NAMESPACES = "audited-*"
GUARDED = "kubernetes.io/metadata.name"
"""The label that selects what is guarded: the one namespace of a test."""


@dataclass
class AuditSite:
    """A cluster in which images are looked at under `policy`."""

    cluster: Cluster
    kubeconfig: Path
    metrics: CollectorRegistry = field(default_factory=CollectorRegistry)

    def __post_init__(self) -> None:
        self._metrics = AuditMetrics(self.metrics)

    def audit(self, guarded: str = "nothing") -> None:
        """Look once, as an operator that was just started does; the webhook guards one namespace."""
        run_in_plant(self._audit(f"{GUARDED} in ({guarded})"))

    def audit_until(self, findings: set[tuple[str, str]]) -> None:
        """Look until this is found: an installed product audits as well, and may know less for a moment."""

        def found() -> bool:
            self.audit()
            return self.findings() == findings

        self.until(found, f"the findings {findings}")

    async def _audit(self, guarded: str) -> None:
        async with connect(str(self.kubeconfig)) as api, new_session() as session:
            running = RunningImages(api)
            await running.read()
            access = RegistryAccess(session, {self.cluster.registry}, clock=time.monotonic)
            verifier = PolicyVerifier(AuthorityStore(api, SYSTEM, time.monotonic))
            auditor = Auditor(
                PolicyObjects(api, SYSTEM, "audit-0", guarded),
                running,
                AuditAnswers(verifier, access, time.monotonic),
                self._metrics,
                clock=lambda: datetime.now(UTC),
                interval_seconds=300,
            )
            await auditor.audit_once()

    def trust(self, repository: str, *keys: LocalKey, **spec: Any) -> None:
        """Have one policy: these keys count for the images of a repository."""
        data = [{"data": key.public_key.pem.decode()} for key in keys]
        policy = {
            "apiVersion": API_VERSION,
            "kind": "TrustPolicy",
            "metadata": {"name": NAME},
            "spec": {
                "images": [f"{self.cluster.registry}/{repository}"],
                "namespaces": [NAMESPACES],
                "authorities": [{"name": "plant", "keys": data}],
                **spec,
            },
        }
        self.apply(policy)

    def status(self) -> Json:
        """Give the status of the policy."""
        policy: Json = self.cluster.kubectl_json("get", "trustpolicy", NAME)
        return policy.get("status") or {}

    def findings(self) -> set[tuple[str, str]]:
        """Give pods and reasons."""
        return {(one["pod"], one["reason"]) for one in self.status().get("findings", ())}

    def events(self) -> list[tuple[str, str]]:
        """Give types and reasons of the events about the policy."""
        policy = self.cluster.kubectl_json("get", "trustpolicy", NAME)
        chosen = f"involvedObject.uid={policy['metadata']['uid']}"
        found = self.cluster.kubectl_json(
            "get", "events", "--namespace=default", f"--field-selector={chosen}"
        )
        return [(one["type"], one["reason"]) for one in found["items"]]

    def apply(self, *documents: Json) -> None:
        """Apply documents as a user does."""
        self.cluster.kubectl("apply", "-f", "-", stdin=_documents(*documents))

    def run_pod(self, namespace: str, name: str, image: str, **spec: Any) -> None:
        """Run a pod and wait until its node reports what it runs."""
        container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
        metadata = {"name": name, "namespace": namespace}
        body = {"containers": [container], "nodeName": "edge-a", "terminationGracePeriodSeconds": 0, **spec}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": body})
        self.until_runs(namespace, name)

    def until_runs(self, namespace: str, name: str) -> None:
        """Wait until a pod runs."""
        self.until(lambda: self.runs(namespace, name), f"pod {name} to run")

    def runs(self, namespace: str, name: str) -> bool:
        """Say whether the node reports that the pod runs."""
        pods = self.cluster.kubectl_json("get", "pods", f"--namespace={namespace}")["items"]
        return any(
            pod["metadata"]["name"] == name
            and any("running" in one["state"] for one in pod["status"].get("containerStatuses", ()))
            for pod in pods
        )

    def until(self, holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
        """Wait for something that another program brings about."""
        ends = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < ends, f"waited {seconds:g} s for {what}"
            time.sleep(0.1)


@contextmanager
def audit_site(cluster: Cluster, folder: Path) -> Iterator[AuditSite]:
    """Have the kinds and an account with the operator's rights as long as the block lasts."""
    serve_definitions(cluster)
    documents = [*_rights(), {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}]
    cluster.kubectl("apply", "-f", "-", stdin=_documents(*documents))
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME, "namespace": SYSTEM}}
    cluster.kubectl("apply", "-f", "-", stdin=_documents(account))
    try:
        yield AuditSite(cluster, _kubeconfig(cluster, folder))
    finally:
        for kind in ("trustpolicy", "clusterrole", "clusterrolebinding"):
            cluster.kubectl("delete", kind, NAME, "--ignore-not-found")
        cluster.kubectl("delete", "namespace", SYSTEM, "--wait=false")


def _rights() -> list[Json]:
    """Give the operator's cluster-wide rights, as the chart grants them, to the account of these tests."""
    rendered = render_chart(tool("helm"), {}, ("--namespace", SYSTEM))
    role = dict(rendered["ClusterRole", "edgemodel-operator"])
    role["metadata"] = {"name": NAME}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": SYSTEM}],
    }
    return [role, binding]


def serve_definitions(cluster: Cluster) -> None:
    """Bring our kinds up to date; they stay, and belong to the release that may be installed later."""
    documents = [crd_document(kind) for kind in KINDS]
    for document in documents:
        document["metadata"].setdefault("annotations", {}).update(
            {"meta.helm.sh/release-name": "edgemodel", "meta.helm.sh/release-namespace": "edgemodel-system"}
        )
        document["metadata"].setdefault("labels", {})["app.kubernetes.io/managed-by"] = "Helm"
    text = _documents(*documents)
    cluster.kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", "-", stdin=text
    )
    names = [f"crd/{document['metadata']['name']}" for document in documents]
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)


def _kubeconfig(cluster: Cluster, folder: Path) -> Path:
    token = cluster.kubectl("create", "token", NAME, f"--namespace={SYSTEM}", "--duration=2h").strip()
    config = cluster.kubectl_json("config", "view", "--raw")
    config["clusters"][0]["cluster"]["server"] = f"https://{CONTROL_PLANE_ADDRESS}:{API_PORT}"
    config["users"] = [{"name": NAME, "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = NAME
    config["current-context"] = config["contexts"][0]["name"]
    path = folder / "audit.kubeconfig"
    path.write_text(json.dumps(config))
    return path


def _documents(*documents: Json) -> bytes:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()
