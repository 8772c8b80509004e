"""Secrets are used and seen nowhere: not in logs, objects, metrics or images, however they are written."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cluster.base import Cluster
from cluster.commands import CommandFailed
from demo import objects
from demo.site import SIGNING_KEY, SYSTEM, Site, condition, is_true
from demo.story import Story
from edgemodel_operator.settings import Settings
from edgemodel_operator.signing.key_file import open_private_key
from support.marks import Marks, repository_contents

pytestmark = pytest.mark.needs("pods", "registry", "cut", "arm64", "npu")

Json = dict[str, Any]
NAMESPACE = "build-dockerfiles"
"""One of those in which the operator may read Secrets."""
LOGIN, TOKEN = "marked-login", "marked-token"
RUN = secrets.token_hex(4)
PASSWORDS = {
    "registry password": f"marked-{secrets.token_hex(12)}",
    "source token": f"marked-{secrets.token_hex(12)}",
}
GOOD, BAD = f"quiet-{RUN}", f"failing-{RUN}"


def planted(cluster: Cluster) -> tuple[Json, Json]:
    """Give the Secrets of a plant: a login to the registry, and one to the file server."""
    auths = {
        host: {"username": "plant", "password": PASSWORDS["registry password"]}
        for host in (cluster.registry, "registry.plant-a.local:5000")
    }
    login = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": LOGIN, "namespace": NAMESPACE},
        "type": "kubernetes.io/dockerconfigjson",
        "stringData": {".dockerconfigjson": json.dumps({"auths": auths})},
    }
    token = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": TOKEN, "namespace": NAMESPACE},
        "stringData": {"token": PASSWORDS["source token"]},
    }
    return login, token


def edge_model(story: Story, site: Site, name: str) -> Json:
    """Give an EdgeModel that uses both of them."""
    document = objects.edge_model(story.versions["1"], story.url, site.cluster.registry, name)
    document["metadata"]["namespace"] = NAMESPACE
    spec = document["spec"]
    spec["model"]["source"]["http"]["credentialsSecret"] = {"name": TOKEN}
    spec["image"] |= {"pullSecrets": [{"name": LOGIN}], "pushSecret": {"name": LOGIN}}
    spec["health"] = {"probationSeconds": 0}
    return document


def signing_secrets(site: Site) -> dict[str, bytes]:
    """Give what the signer holds: the password, the key as it is stored, and as it is when unsealed."""
    fields = {
        name: base64.b64decode(value)
        for name, value in site.get("secret", SIGNING_KEY, SYSTEM)["data"].items()
    }
    der = bytes(open_private_key(fields["cosign.key"], fields["cosign.password"]))
    key = serialization.load_der_private_key(der, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    tls = site.get("secret", Settings().signer.secret_name, SYSTEM)["data"]
    return {
        "signing password": fields["cosign.password"],
        "sealed signing key": b"".join(fields["cosign.key"].split(b"\n")[1:4]),
        "lines of the sealed signing key": fields["cosign.key"].split(b"\n")[2],
        "unsealed signing key": der,
        "number of the signing key": key.private_numbers().private_value.to_bytes(32, "big"),
        "TLS key of the signer": base64.b64decode(tls["tls.key"]).split(b"\n")[1],
        "CA key of the signer": base64.b64decode(tls["ca.key"]).split(b"\n")[1],
    }


@pytest.fixture(scope="module")
def marks(story: Story, site: Site) -> Iterator[Marks]:
    """Have a model built and signed, and another one fail, with secrets that can be known again."""
    site.apply(*planted(site.cluster))
    bad = edge_model(story, site, BAD)
    bad["spec"]["model"]["source"]["http"]["url"] += ".absent"
    site.apply(edge_model(story, site, GOOD), bad)
    site.wait_model(GOOD, NAMESPACE, "it is signed", lambda status: is_true(status, "Signed"))
    site.wait_model(
        BAD,
        NAMESPACE,
        "it failed",
        lambda status: condition(status, "SourceResolved").get("status") == "False",
    )
    planted_ones = {name: value.encode() for name, value in PASSWORDS.items()}
    yield Marks(planted_ones | signing_secrets(site))
    for name in (GOOD, BAD):
        site.cluster.kubectl("delete", "edgemodel", name, "--namespace", NAMESPACE, "--timeout", "60s")
    site.cluster.kubectl("delete", "secret", LOGIN, TOKEN, "--namespace", NAMESPACE)


def logs_of(cluster: Cluster, pod: Json) -> bytes:
    """Give all that the containers of a pod wrote, also those before the last restart."""
    text = ""
    for options in ([], ["--previous"]):
        try:
            text += cluster.kubectl(
                "logs", pod["metadata"]["name"], "--namespace", pod["metadata"]["namespace"],
                "--all-containers", "--ignore-errors", *options,
            )  # fmt: skip
        except CommandFailed:  # it never ran, or never twice
            continue
    return text.encode()


def test_no_log_shows_a_secret(marks: Marks, site: Site) -> None:
    pods = site.cluster.kubectl_json("get", "pods", "--all-namespaces")["items"]
    logs = {pod["metadata"]["name"]: logs_of(site.cluster, pod) for pod in pods}
    assert {name: marks.found_in(text) for name, text in logs.items() if marks.found_in(text)} == {}

    said = b"".join(text for name, text in logs.items() if name.startswith("edgemodel-signer"))
    lines = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
    signed = [line for line in lines if line["message"] == "Signed" and GOOD in line["repository"]]
    assert {line["kind"] for line in signed} >= {"simple-signing", "signature"}
    assert {line["caller"] for line in signed} == {f"system:serviceaccount:{SYSTEM}:edgemodel-operator"}


def test_no_object_shows_a_secret(marks: Marks, site: Site) -> None:
    """Specs, statuses, annotations, events, ConfigMaps: everything that can be listed but Secrets."""
    cluster = site.cluster
    kinds = set(cluster.kubectl("api-resources", "--verbs=list", "--output=name").split())
    for kind in sorted(kinds - {"secrets", "componentstatuses"}):
        text = cluster.kubectl("get", kind, "--all-namespaces", "-o", "json").encode()
        assert marks.found_in(text) == set(), kind
        if kind in {"edgemodels.edgemodel.dev", "events"}:
            assert GOOD.encode() in text
    assert {"pods", "configmaps", "events", "leases.coordination.k8s.io"} <= kinds
    # What is not found is not missed for want of looking: the Secrets do show them.
    shown = cluster.kubectl("get", "secrets", "--all-namespaces", "-o", "json").encode()
    assert marks.found_in(shown) >= {*PASSWORDS, "signing password", "TLS key of the signer"}


def test_no_metric_shows_a_secret(marks: Marks, site: Site) -> None:
    pods = site.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM)["items"]
    seen = b""
    for pod in pods:
        node = site.cluster.node(pod["spec"]["nodeName"])
        status, text = node.get(f"http://{pod['status']['podIP']}:8080/metrics")
        assert status == 200
        assert marks.found_in(text) == set(), pod["metadata"]["name"]
        seen += text
    assert b'edgemodel_signer_signatures_total{kind="signature",result="signed"}' in seen


def test_no_image_holds_a_secret(marks: Marks, site: Site) -> None:
    image = site.get("edgemodel", GOOD, NAMESPACE)["status"]["images"][0]["image"]
    repository = image.partition("@")[0].removeprefix(f"{site.cluster.registry}/")
    read = b""
    kinds = set()
    for path, body in repository_contents(site.cluster.registry_on_host, repository):
        assert marks.found_in(body) == set(), path
        kinds.add(path.partition("/")[0])
        read += body if len(body) < 1 << 20 else b""
    assert kinds == {"manifests", "blobs"}
    # Signatures, both documents and the model's own manifest were among what was read.
    for part in (
        b"cosign container image signature",
        b"CycloneDX",
        b"slsa.dev/provenance",
        b"sigstore.bundle",
    ):
        assert part in read, part


def test_nobody_but_root_can_look_into_the_signer(marks: Marks, site: Site) -> None:
    """No core dump, and no other process of its user: `/proc` says so by giving its files to root."""
    if site.cluster.name != "local":
        pytest.skip("the processes of this cluster are not on this machine")
    signers = [
        folder
        for folder in Path("/proc").glob("[0-9]*")
        if (folder / "cmdline").read_bytes().split(b"\0")[1:4] == [b"-m", b"edgemodel_operator", b"signer"]
    ]
    assert signers
    for folder in signers:
        (limit,) = [
            line
            for line in (folder / "limits").read_text().splitlines()
            if line.startswith("Max core file size")
        ]
        assert limit.split()[4:6] == ["0", "0"]
        assert (folder / "environ").stat().st_uid == 0
        uids = [line for line in (folder / "status").read_text().splitlines() if line.startswith("Uid:")]
        assert uids[0].split()[1] == "65532"
