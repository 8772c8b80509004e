"""Admission on a real API server in bad hours: replicas, certificates and webhooks away; strange policies."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cluster.base import Cluster
from cluster.commands import CommandFailed
from cluster.namespaces import CONTROL_PLANE, NetworkThreads
from cluster.transfer import Server
from edgemodel_operator.api.names import API_VERSION
from support.admission_site import AdmissionSite, trust_policy
from support.certificate import serving, write_certificate
from support.guarded import (
    LABEL,
    NAME,
    SYSTEM,
    Json,
    applied,
    create,
    labelled,
    namespace,
    pod,
    refusal,
    refused,
    until_admitted,
    until_refused,
)

pytestmark = pytest.mark.needs("pods", "registry", "cut")

NAMESPACE = "guarded-pods"
WHERE = f"--namespace={NAMESPACE}"
DRY = "--dry-run=server"
UNSIGNED = "is not signed"
REWRITTEN = {"tests.edgemodel.dev/rewritten": "yes"}


# --- case 38: other webhooks, and requests that are not meant -----------------------------------------


def test_case_38a_a_dry_run_is_judged_like_the_real_thing_and_leaves_nothing(site: AdmissionSite) -> None:
    with namespace(site.cluster, "guarded-dry", LABEL):
        assert UNSIGNED in refused(site.cluster, pod("guarded-dry", "asked", site.unsigned), DRY)
        create(site.cluster, pod("guarded-dry", "asked", site.signed), DRY)
        assert UNSIGNED in refused(site.cluster, pod("guarded-dry", "meant", site.unsigned))
        told = wait_for_event(site.cluster, "guarded-dry", "meant")
        assert "guarded-dry/asked" not in told
        assert site.cluster.kubectl_json("get", "pods", "--namespace=guarded-dry")["items"] == []


def wait_for_event(cluster: Cluster, where: str, text: str) -> str:
    """Wait until an event of a namespace has a text, and give the texts of all."""
    ends = time.monotonic() + 30
    while True:
        events = cluster.kubectl_json("get", "events", f"--namespace={where}")["items"]
        told = "\n".join(event["message"] for event in events)
        if text in told:
            return told
        assert time.monotonic() < ends, f"no event with {text!r}: {told}"
        time.sleep(0.2)


class Rewriter(http.server.BaseHTTPRequestHandler):
    """A mutating webhook of somebody else: does to every pod what its label asks for."""

    changes: dict[str, list[Json]]

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        wanted = self.changes[request["object"]["metadata"]["labels"]["rewrite"]]
        names = [container["name"] for container in request["object"]["spec"]["containers"]]
        patch = [one for one in wanted if one["value"] not in names and "sidecar" not in names]
        answer = {"uid": request["uid"], "allowed": True, "patchType": "JSONPatch"}
        answer["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
        body = json.dumps(
            {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": answer}
        ).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def rewriting(site: AdmissionSite, folder: Path, changes: dict[str, list[Json]]) -> Iterator[None]:
    """Have a webhook that comes after ours and changes pods by their label `rewrite`."""
    files = write_certificate(folder)
    handler = type("Changes", (Rewriter,), {"changes": changes})
    threads = NetworkThreads(CONTROL_PLANE, size=1)
    server = threads.pool().submit(Server, handler, "127.0.0.1", 0).result()
    server.socket = serving(files).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    webhook = {
        "name": "rewriter.tests.edgemodel.dev",
        "clientConfig": {
            "url": server.url.replace("http:", "https:"),
            "caBundle": base64.b64encode(files[0].read_bytes()).decode(),
        },
        "rules": [
            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
        ],
        "objectSelector": {"matchLabels": REWRITTEN},
        "reinvocationPolicy": "IfNeeded",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "zz-rewriter-under-test"},
        "webhooks": [webhook],
    }
    try:
        with applied(site.cluster, configuration):
            yield
    finally:
        server.shutdown()
        server.server_close()
        threads.close()


def test_case_38b_what_another_webhook_makes_of_a_pod_is_judged(site: AdmissionSite, tmp_path: Path) -> None:
    image = "/spec/containers/0/image"
    sidecar = {"name": "sidecar", "image": f"{site.signed.partition('@')[0]}:1"}
    changes = {
        "another-registry": [{"op": "replace", "path": image, "value": site.unsigned}],
        "sidecar": [{"op": "add", "path": "/spec/containers/-", "value": sidecar}],
    }
    with rewriting(site, tmp_path, changes):
        moved = labelled(
            pod(NAMESPACE, "moved", site.signed), labels={**REWRITTEN, "rewrite": "another-registry"}
        )
        until_refused(site.cluster, moved, f"image {site.unsigned} does not satisfy")
        # Added by tag after we had looked: asked again, we resolve that, too.
        more = labelled(pod(NAMESPACE, "more", site.signed), labels={**REWRITTEN, "rewrite": "sidecar"})
        stored = create(site.cluster, more)
        images = [container["image"].partition("@")[2] for container in stored["spec"]["containers"]]
        assert images == [site.signed.partition("@")[2]] * 2


def test_a_tag_becomes_the_digest_that_was_verified_on_pods_alone(site: AdmissionSite) -> None:
    tagged = f"{site.signed.partition('@')[0]}:1"
    stored = create(site.cluster, pod(NAMESPACE, "tagged", tagged))
    assert stored["spec"]["containers"][0]["image"].endswith(site.signed.partition("@")[2])
    assert UNSIGNED in refused(
        site.cluster, pod(NAMESPACE, "tagged-2", f"{site.unsigned.partition('@')[0]}:1")
    )


# --- case 39: nobody answers --------------------------------------------------------------------------


@pytest.fixture
def revived(site: AdmissionSite) -> Iterator[AdmissionSite]:
    """Give the site; its replicas answer again at the end."""
    yield site
    site.revive()
    until_admitted(site.cluster, pod(NAMESPACE, "probe", site.signed))


def test_case_39a_while_every_replica_is_dead_nothing_starts_and_the_rest_goes_on(
    revived: AdmissionSite,
) -> None:
    cluster = revived.cluster
    create(
        cluster, labelled(pod(NAMESPACE, "before", revived.signed), finalizers=["tests.edgemodel.dev/hold"])
    )
    revived.kill_all()
    for image in (revived.signed, revived.unsigned):
        said = refused(cluster, pod(NAMESPACE, "during", image))
        assert 'failed calling webhook "pods.edgemodel.dev"' in said
    assert "failed calling webhook" in refusal(
        cluster, "set", "image", "pod/before", f"c0={revived.unsigned}", WHERE
    )
    # What starts nothing passes: labels, deletion, finalizers. So do policies, for an emergency.
    cluster.kubectl("label", "pod", "before", WHERE, "team=line")
    cluster.kubectl("delete", "pod", "before", WHERE, "--wait=false", "--grace-period=0", "--force")
    cluster.kubectl(
        "patch",
        "pod",
        "before",
        WHERE,
        "--type=json",
        "-p",
        '[{"op":"remove","path":"/metadata/finalizers"}]',
    )
    cluster.kubectl("label", "trustpolicy", "guard-under-test", "team=line", "--overwrite")
    # No deadlock: what the site needs to come back is judged by nobody.
    for excluded in (SYSTEM, "kube-system"):
        create(cluster, pod(excluded, "boots", revived.unsigned), DRY)
    # Workloads pass, and their pods come once somebody answers.
    replicas = {"replicas": 1, "selector": {"matchLabels": {"app": "waits"}}}
    template = {"metadata": {"labels": {"app": "waits"}}, "spec": pod(NAMESPACE, "x", revived.signed)["spec"]}
    workload = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "waits", "namespace": NAMESPACE},
        "spec": {**replicas, "template": template},
    }
    create(cluster, workload)
    wait_for_event(cluster, NAMESPACE, "failed calling webhook")
    revived.revive()
    cluster.kubectl(
        "wait",
        "replicaset/waits",
        WHERE,
        "--for=jsonpath={.status.replicas}=1",
        "--timeout=90s",
        timeout_s=100,
    )
    cluster.kubectl("delete", "replicaset", "waits", WHERE)


def test_case_39b_one_dead_replica_is_not_felt_for_long(revived: AdmissionSite) -> None:
    revived.replicas[0].kill()
    # The API server may try the dead one first; it is refused then, never admitted unseen.
    until_admitted(revived.cluster, pod(NAMESPACE, "probe", revived.signed))
    for _ in range(5):
        said = refused(revived.cluster, pod(NAMESPACE, "probe", revived.unsigned), DRY)
        assert UNSIGNED in said or "failed calling webhook" in said


def test_case_39c_lost_certificates_are_made_anew_and_nothing_slips_through(revived: AdmissionSite) -> None:
    cluster = revived.cluster
    before = ca_bundles(cluster)
    empty = json.dumps([{"op": "replace", "path": "/data", "value": {}}])
    cluster.kubectl("patch", "secret", f"{NAME}-tls", f"--namespace={SYSTEM}", "--type=json", "-p", empty)
    revived.replicas[0].kill()
    revived.start(0)
    ends = time.monotonic() + 100
    while ca_bundles(cluster) & before:
        assert time.monotonic() < ends, "the webhooks still name the certificates of before"
        said = refused(cluster, pod(NAMESPACE, "probe", revived.unsigned), DRY)
        assert UNSIGNED in said or "failed calling webhook" in said
        time.sleep(0.5)
    assert len(ca_bundles(cluster)) == 1
    until_admitted(cluster, pod(NAMESPACE, "probe", revived.signed), seconds=100)


def ca_bundles(cluster: Cluster) -> set[str]:
    """Give every bundle that a webhook of ours has."""
    return {
        str(webhook["clientConfig"].get("caBundle", ""))
        for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
        for webhook in cluster.kubectl_json("get", kind, NAME)["webhooks"]
    }


def test_case_39d_with_the_webhook_deleted_the_second_lock_still_holds(site: AdmissionSite) -> None:
    cluster = site.cluster
    kinds = ("validatingwebhookconfiguration", "mutatingwebhookconfiguration")
    kept = [cluster.kubectl_json("get", kind, NAME) for kind in kinds]
    for kind in kinds:
        cluster.kubectl("delete", kind, NAME)
    try:
        tagged = f"{site.unsigned.partition('@')[0]}:1"
        until_refused(cluster, pod(NAMESPACE, "probe", tagged), "is not named by digest")
        labels = {"edgemodel.dev/model": "abc", "edgemodel.dev/role": "serve"}
        forged = labelled(pod(NAMESPACE, "probe", site.signed), labels=labels)
        assert "only the EdgeModel operator may set" in refused(cluster, forged, DRY)
    finally:
        for document in kept:
            fields = ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields")
            for name in fields:
                document["metadata"].pop(name, None)
            create(cluster, document)
        until_refused(cluster, pod(NAMESPACE, "probe", site.unsigned), UNSIGNED)


# --- case 40: policies and exceptions -----------------------------------------------------------------

PROVENANCE = {"name": "origin", "predicateType": "https://slsa.dev/provenance/v1"}
CHECK = {"expression": "predicate.x ==", "message": "built elsewhere"}
NO_KEY = {"data": "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"}
IDENTITY = {"issuer": "https://ci.plant-a.local", "subjectRegExp": "(", "trustedRoot": {"name": "sigstore"}}
SPOILED: dict[str, tuple[Json, str]] = {
    "unknown field": ({"treshold": 2}, "spec.treshold: there is no such field here"),
    "unknown field of an authority": (
        {"authorities": [{"name": "plant", "keys": [{"secretRef": {"name": "a"}}], "require": True}]},
        "spec.authorities.0.require: there is no such field here",
    ),
    "unknown field of an attestation": (
        {"attestations": [{**PROVENANCE, "check": [CHECK]}]},
        "spec.attestations.0.check: there is no such field here",
    ),
    "no key": ({"authorities": [{"name": "plant", "keys": [NO_KEY]}]}, "key"),
    "bad expression": ({"attestations": [{**PROVENANCE, "checks": [CHECK]}]}, "expression"),
    "bad pattern": ({"authorities": [{"name": "ci", "keyless": IDENTITY}]}, "is no regular expression"),
    "more than there are": ({"threshold": 2}, "threshold asks for more authorities"),
}


@pytest.mark.parametrize("name", SPOILED)
def test_case_40a_a_policy_that_cannot_be_understood_is_refused_when_applied(
    site: AdmissionSite, name: str
) -> None:
    spec, problem = SPOILED[name]
    document = trust_policy("guard-spoiled", f"{site.cluster.registry}/guard/spoiled/**", site.key, **spec)
    # A client that asks for no validation gets no other answer.
    for validation in ("strict", "ignore"):
        assert problem in refused(site.cluster, document, f"--validate={validation}")


def test_case_40a_a_field_beside_the_spec_is_refused_when_applied(site: AdmissionSite) -> None:
    document = trust_policy("guard-spoiled", f"{site.cluster.registry}/guard/spoiled/**", site.key)
    said = refused(site.cluster, document | {"threshold": 2}, "--validate=ignore")
    assert "cannot be understood: threshold: there is no such field here" in said


def test_case_40a_an_unknown_field_that_nobody_refused_grants_nothing(site: AdmissionSite) -> None:
    cluster = site.cluster
    policy = trust_policy("guard-spoiled", f"{cluster.registry}/guard/**", site.key, treshold=2)
    exception = trust_exception(SYSTEM, site.unsigned, policy=["tools"])
    # Nobody is asked about objects without this label: as if no webhook answered.
    for unseen in (policy, exception):
        del unseen["metadata"]["labels"]
    with applied(cluster, exception):
        stored = cluster.kubectl_json("get", "trustexception", "guard-exception", f"--namespace={SYSTEM}")
        assert stored["spec"]["policy"] == ["tools"]
        with applied(cluster, policy):
            problem = "spec.treshold: there is no such field here"
            until_refused(cluster, pod(NAMESPACE, "probe", site.signed), problem)
        until_admitted(cluster, pod(NAMESPACE, "probe", site.signed))
        assert UNSIGNED in refused(cluster, pod(NAMESPACE, "probe", site.unsigned), DRY)


def test_case_40b_two_policies_that_match_must_both_hold(site: AdmissionSite) -> None:
    other = trust_policy("guard-second", f"{site.cluster.registry}/guard/signed", site.key)
    other["spec"]["authorities"][0]["keys"] = [{"secretRef": {"name": "no-such-key"}}]
    with applied(site.cluster, other):
        until_refused(site.cluster, pod(NAMESPACE, "probe", site.signed), 'TrustPolicy "guard-second"')
    until_admitted(site.cluster, pod(NAMESPACE, "probe", site.signed))


def trust_exception(where: str, image: str, **spec: Any) -> Json:
    """Give an exception for one image that lasts for an hour."""
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
    metadata = {"name": "guard-exception", "namespace": where, "labels": dict(LABEL)}
    fields = {
        "images": [image],
        "namespaces": [NAMESPACE],
        "expires": ends,
        "reason": "the line stands still",
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "TrustException",
        "metadata": metadata,
        "spec": fields | spec,
    }


def test_case_40c_exceptions_count_in_the_namespace_of_the_operator_alone(site: AdmissionSite) -> None:
    document = pod(NAMESPACE, "excused", site.unsigned)
    only_there = "exceptions count only in namespace"
    assert only_there in refused(site.cluster, trust_exception(NAMESPACE, site.unsigned))
    try:
        create(site.cluster, trust_exception(SYSTEM, site.unsigned), DRY)
    except CommandFailed as failed:
        # A product that is installed beside judges exceptions, too, and its namespace is another one.
        if f"{only_there} edgemodel-system" not in str(failed):
            raise
        return
    with applied(site.cluster, trust_exception(SYSTEM, site.unsigned)):
        until_admitted(site.cluster, document)
    until_refused(site.cluster, document, UNSIGNED)
