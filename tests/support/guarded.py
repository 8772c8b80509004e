"""The chart's admission objects on a real API server, beside an installed product.

They get names and a namespace selector of their own, so that they judge the namespaces of these tests alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.base import Cluster
from cluster.commands import CommandFailed
from cluster.tools import tool
from edgemodel_operator.admission.main import VERDICTS_SECRET
from support.chart import Objects, render_chart

Json = dict[str, Any]
NAME = "guard-under-test"
"""Stands for `edgemodel-admission` in every name."""
SYSTEM = "guard-system"
"""Stands for the release namespace."""
LABEL = {"tests.edgemodel.dev/guarded": "yes"}
REGISTRY = "registry.plant-a.local:5000"
TRUSTED = f"{REGISTRY}/models"
PINNED = f"{TRUSTED}/line@sha256:{'a' * 64}"
SECONDS = 30.0


def guard_objects(**admission: Any) -> Objects:
    """Render the chart, with the values of `admission`, under the names of these tests."""
    values = {"admission": {"namespaceSelector": {"matchLabels": LABEL}, **admission}}
    rendered = render_chart(tool("helm"), values, ("--namespace", SYSTEM))
    text = json.dumps(
        [[kind, name.removeprefix(f"{SYSTEM}/"), one] for (kind, name), one in rendered.items()]
    )
    text = text.replace("edgemodel-admission", NAME)
    # The program knows this one by its name alone.
    text = text.replace(VERDICTS_SECRET.replace("edgemodel-admission", NAME), VERDICTS_SECRET)
    return {(kind, name): document for kind, name, document in json.loads(text)}


@contextmanager
def applied(cluster: Cluster, *documents: Json) -> Iterator[None]:
    """Have cluster-wide objects in place as long as the block lasts; what an earlier run left is replaced."""
    text = as_list(*documents)
    cluster.kubectl("delete", "--ignore-not-found", "--wait", "-f", "-", stdin=text)
    cluster.kubectl("create", "-f", "-", stdin=text)
    try:
        yield
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=text)


@contextmanager
def namespace(cluster: Cluster, name: str, labels: Json | None = None) -> Iterator[str]:
    """Have an empty namespace, with its default account, as long as the block lasts."""
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels or {}}}
    with applied(cluster, document):
        wait = ["wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=30s"]
        cluster.kubectl(*wait, timeout_s=40)
        yield name


def as_list(*documents: Json) -> bytes:
    """Write documents as kubectl reads them."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}).encode()


def pod(namespace: str, name: str, *images: str, **spec: Any) -> Json:
    """Give a pod that no scheduler takes: what is asked is whether it may be created."""
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"schedulerName": "nobody", "containers": containers, **spec},
    }


def labelled(document: Json, **metadata: Any) -> Json:
    """Give a copy of a document with more metadata."""
    copied: Json = json.loads(json.dumps(document))
    copied["metadata"] |= metadata
    return copied


def create(cluster: Cluster, document: Json, *options: str) -> Json:
    """Create an object; raises CommandFailed with what the API server said."""
    answer = cluster.kubectl(
        "create", "-f", "-", "-o", "json", *options, stdin=json.dumps(document).encode(), timeout_s=90
    )
    stored: Json = json.loads(answer)
    return stored


def refusal(cluster: Cluster, *arguments: str, stdin: Json | None = None) -> str:
    """Run kubectl, which must be refused, and give what the API server said."""
    try:
        cluster.kubectl(*arguments, stdin=None if stdin is None else json.dumps(stdin).encode(), timeout_s=90)
    except CommandFailed as failed:
        return str(failed)
    raise AssertionError(f"kubectl {' '.join(arguments)} was not refused")


def refused(cluster: Cluster, document: Json, *options: str) -> str:
    """Try to create an object, which must be refused, and give what the API server said."""
    return refusal(cluster, "create", "-f", "-", *options, stdin=document)


def until_refused(cluster: Cluster, document: Json, sentence: str, *options: str) -> None:
    """Wait until the API server, which learns of policies in time, refuses to create an object."""
    ends = time.monotonic() + SECONDS
    while True:
        try:
            create(cluster, document, "--dry-run=server", *options)
            said = "it was admitted"
        except CommandFailed as failed:
            said = str(failed)
        if sentence in said:
            return
        if time.monotonic() > ends:
            raise AssertionError(f"not refused with {sentence!r} within {SECONDS:g} s; last: {said}")
        time.sleep(0.2)


def until_admitted(cluster: Cluster, document: Json, *options: str, seconds: float = SECONDS) -> None:
    """Wait until the API server would create an object."""
    ends = time.monotonic() + seconds
    while True:
        try:
            create(cluster, document, "--dry-run=server", *options)
        except CommandFailed as failed:
            if time.monotonic() > ends:
                raise AssertionError(f"not admitted within {seconds:g} s; last: {failed}") from failed
        else:
            return
        time.sleep(0.2)


def account_kubeconfig(cluster: Cluster, account: str, folder: Path, server: str) -> Path:
    """Write a kubeconfig with which a program is a service account of SYSTEM."""
    token = cluster.kubectl("create", "token", account, f"--namespace={SYSTEM}", "--duration=2h").strip()
    config = cluster.kubectl_json("config", "view", "--raw")
    config["clusters"][0]["cluster"]["server"] = server
    config["users"] = [{"name": account, "user": {"token": token}}]
    config["contexts"][0]["context"]["user"] = account
    config["current-context"] = config["contexts"][0]["name"]
    path = folder / f"{account}.kubeconfig"
    path.write_text(json.dumps(config))
    return path
