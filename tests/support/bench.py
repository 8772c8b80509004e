"""A place in the plant at which models are applied with one thing changed, and what is to be seen there."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cluster.base import Cluster
from cluster.transfer import request
from demo import objects
from demo.models import ModelFile
from demo.site import SYSTEM, Site, condition, is_true
from edgemodel_operator.api import names
from support.misbehaving import Seen

Json = dict[str, Any]
NAMESPACE = "bad-input"


@dataclass(frozen=True)
class Bench:
    """Where the mistakes are made."""

    site: Site
    model: ModelFile
    files: str
    """The URL of the good files."""
    bad: str
    """The URL of the server that misbehaves."""
    seen: Seen
    node: str
    run: str
    """A word of this run's own: repositories named after it hold nothing of earlier ones."""
    first_operator: Json = field(default_factory=dict)
    """The operator's pod before anything was applied here."""

    @property
    def cluster(self) -> Cluster:
        """Give the cluster of the site."""
        return self.site.cluster

    def edge_model(self, name: str, change: Json, version: ModelFile | None = None) -> Json:
        """Give a good EdgeModel with one mistake."""
        model = version or self.model
        document = objects.edge_model(model, self.files, self.cluster.registry, name)
        document["metadata"]["namespace"] = NAMESPACE
        spec = document["spec"]
        spec["targets"] = [{"accelerator": change.get("accelerator", "cpu")}]
        spec["placement"] = {"nodeSelector": {"kubernetes.io/hostname": change.get("node", self.node)}}
        spec["health"] = {"probationSeconds": 0}
        spec["rollout"] = {"waves": [{"percent": 100}]}
        if "path" in change:
            url = f"{self.bad}{change['path']}"
            spec["model"]["source"] = {"http": {"url": url, "sha256": change["sha256"], "insecure": True}}
        repository = change.get("repository", f"{{registry}}/{self.repository(name)}")
        spec["image"]["repository"] = repository.format(registry=self.cluster.registry)
        if "pullSecrets" in change:
            spec["image"]["pullSecrets"] = change["pullSecrets"]
        if "golden" in change:
            spec["health"]["golden"] = {"configMap": {"name": change["golden"]}}
        return document

    def wait(self, name: str, kind: str, reason: str) -> Json:
        """Wait until a condition gives a reason, for the newest generation; give the whole object."""
        return self.site.wait_model(
            name,
            NAMESPACE,
            f"{kind} says {reason}",
            lambda status: condition(status, kind).get("reason") == reason,
            60,
        )

    def wait_ready(self, name: str, version: str) -> Json:
        """Wait until a version is ready."""
        return self.site.wait_model(
            name,
            NAMESPACE,
            f"version {version} is ready",
            lambda status: is_true(status, "Ready") and status["version"] == version,
            120,
        )

    def pods(self, name: str) -> list[Json]:
        """Give the serving pods of a model."""
        selector = f"app.kubernetes.io/name={name},edgemodel.dev/role=serve"
        found = self.cluster.kubectl_json("get", "pods", "--namespace", NAMESPACE, "--selector", selector)
        pods: list[Json] = found["items"]
        return pods

    def events(self, model: Json) -> Counter[tuple[str, str]]:
        """Count the events about a model by type and reason."""
        selector = f"involvedObject.uid={model['metadata']['uid']}"
        place = ("--namespace", NAMESPACE, "--field-selector", selector)
        counted: Counter[tuple[str, str]] = Counter()
        for event in self.cluster.kubectl_json("get", "events", *place)["items"]:
            counted[event["type"], event["reason"]] += event.get("count") or 1
        return counted

    def operator(self) -> Json:
        """Give the operator's pod."""
        pods = self.cluster.kubectl_json(
            "get", "pods", "--namespace", SYSTEM, "--selector", "app.kubernetes.io/component=operator"
        )["items"]
        return max(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def operator_starts(self) -> int:
        """Count how often the operator was started since this bench was set up, from outside or by itself."""
        pod = self.operator()
        restarts = int(pod["status"]["containerStatuses"][0]["restartCount"])
        before = self.first_operator
        if pod["metadata"]["uid"] != before["metadata"]["uid"]:
            return 1 + restarts
        return restarts - int(before["status"]["containerStatuses"][0]["restartCount"])

    def repository(self, name: str) -> str:
        """Give the repository of a model in the plant's registry."""
        return f"models/{name}-{self.run}"

    def tags(self, name: str) -> list[str]:
        """List the tags in the repository of a model."""
        url = f"http://{self.cluster.registry_on_host}/v2/{self.repository(name)}/tags/list"
        status, body = request(url, timeout=10)
        if status == 404:
            return []
        tags: list[str] = json.loads(body)["tags"] or []
        return tags

    def leftovers(self, *models: str) -> list[str]:
        """Name what is left in the namespace, and labels of these models on nodes."""
        left = self.cluster.kubectl(
            "get", "edgemodels,daemonsets,services,pods", "--namespace", NAMESPACE, "-o", "name"
        ).split()
        keys = [names.model_key(NAMESPACE, name) for name in models]
        for node in self.cluster.kubectl_json("get", "nodes")["items"]:
            labels = node["metadata"]["labels"]
            left += [label for label in labels for key in keys if f"/{key}." in label]
        return left


def accelerator(name: str, variant: str, labels: Json) -> Json:
    """Give an AcceleratorClass."""
    spec = {
        "match": {"nodeLabels": labels},
        "runtimes": [{"format": "ONNX", "variant": variant, "provider": "CPUExecutionProvider"}],
        "sharing": "Shared",
    }
    return {"apiVersion": objects.API, "kind": "AcceleratorClass", "metadata": {"name": name}, "spec": spec}


def right_to_read(secret: str) -> tuple[Json, Json]:
    """Let the operator read one Secret, as the chart does for `modelNamespaces`."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "read-one-secret", "namespace": NAMESPACE}
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [secret], "verbs": ["get"]}
    role = {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}
    account = {"kind": "ServiceAccount", "name": "edgemodel-operator", "namespace": SYSTEM}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "read-one-secret"},
        "subjects": [account],
    }
    return role, binding
