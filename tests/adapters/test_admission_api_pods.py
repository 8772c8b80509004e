"""Admission on a real API server with real pods: every way in which a pod comes to run an image."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from cluster.commands import CommandFailed
from support.admission_site import AdmissionSite
from support.guarded import (
    LABEL,
    Json,
    create,
    labelled,
    namespace,
    pod,
    refusal,
    refused,
    until_refused,
)

pytestmark = pytest.mark.needs("pods", "registry", "cut")

NAMESPACE = "guarded-pods"
WHERE = f"--namespace={NAMESPACE}"
UNSIGNED = "is not signed"
SECONDS = 60


def running(name: str, image: str, **spec: Any) -> Json:
    """Give a pod that a node shall really run."""
    document = pod(NAMESPACE, name, image, nodeSelector={"kubernetes.io/arch": "amd64"}, **spec)
    del document["spec"]["schedulerName"]
    return document


def start(site: AdmissionSite, name: str, image: str, **spec: Any) -> None:
    """Create a pod and wait until it runs."""
    create(site.cluster, running(name, image, **spec))
    wait = ["wait", f"pod/{name}", WHERE, "--for=jsonpath={.status.phase}=Running", f"--timeout={SECONDS}s"]
    site.cluster.kubectl(*wait, timeout_s=SECONDS + 10)


def template(image: str, **spec: Any) -> Json:
    """Give the template of a workload."""
    containers = [{"name": "c0", "image": image}]
    return {"metadata": {"labels": {"app": "line"}}, "spec": {"containers": containers, **spec}}


def workload(kind: str, name: str, where: str, image: str, *, asleep: bool) -> Json:
    """Give a workload of one pod; asleep, it wants none yet."""
    once = {"restartPolicy": "Never"}
    selector = {"matchLabels": {"app": name}}
    counted = {"replicas": 0 if asleep else 1, "selector": selector, "template": template(image)}
    nodes = {"nodeSelector": {f"tests.edgemodel.dev/{where}": "yes"}} if asleep else {}
    job = {"suspend": asleep, "template": template(image, **once)}
    group, spec = {
        "Deployment": ("apps/v1", counted),
        "ReplicaSet": ("apps/v1", counted),
        "StatefulSet": ("apps/v1", {**counted, "serviceName": name}),
        "ReplicationController": ("v1", {**counted, "selector": selector["matchLabels"]}),
        "DaemonSet": ("apps/v1", {"selector": selector, "template": template(image, **nodes)}),
        "Job": ("batch/v1", job),
        "CronJob": ("batch/v1", {"schedule": "0 0 1 1 *", "suspend": asleep, "jobTemplate": {"spec": job}}),
    }[kind]
    if kind not in {"Job", "CronJob"}:
        spec["template"]["metadata"]["labels"] = {"app": name}
    metadata = {"name": name, "namespace": where}
    return {"apiVersion": group, "kind": kind, "metadata": metadata, "spec": json.loads(json.dumps(spec))}


KINDS = (
    *("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"),
    *("DaemonSet", "Job", "CronJob"),
)


# --- places in a pod --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["second container", "init container", "sidecar"])
def test_case_27_one_unsigned_container_of_any_kind_keeps_the_pod_out(
    site: AdmissionSite, place: str
) -> None:
    bad: Json = {"name": "bad", "image": site.unsigned}
    document = pod(NAMESPACE, "mixed", site.signed)
    if place == "second container":
        document["spec"]["containers"].append(bad)
    else:
        restart = {"restartPolicy": "Always"} if place == "sidecar" else {}
        document["spec"]["initContainers"] = [{**bad, **restart}]
    said = refused(site.cluster, document)
    assert f"image {site.unsigned} does not satisfy" in said
    assert site.signed not in said.partition("denied the request")[2]


def test_case_28_an_ephemeral_container_must_be_signed_and_then_runs(site: AdmissionSite) -> None:
    start(site, "debugged", site.signed)
    debug = ["debug", "debugged", WHERE, "--attach=false", "--quiet"]
    assert UNSIGNED in refusal(site.cluster, *debug, f"--image={site.unsigned}")
    site.cluster.kubectl(*debug, "--container=tool", f"--image={site.signed}", "--env=ECHO_PORT=8090")
    site.cluster.kubectl(
        "wait", "pod/debugged", WHERE, f"--timeout={SECONDS}s",
        "--for=jsonpath={.status.ephemeralContainerStatuses[0].containerID}", timeout_s=SECONDS + 10,
    )  # fmt: skip
    stored = site.cluster.kubectl_json("get", "pod", "debugged", WHERE)
    assert [one["image"] for one in stored["spec"]["ephemeralContainers"]] == [site.signed]


@pytest.mark.parametrize("sub_path", [{}, {"subPath": "weights"}], ids=["whole", "subPath"])
def test_case_29_an_image_that_is_only_mounted_must_be_signed(site: AdmissionSite, sub_path: Json) -> None:
    def mounting(image: str) -> Json:
        document = template(site.signed, volumes=[{"name": "weights", "image": {"reference": image}}])
        mount = {"name": "weights", "mountPath": "/weights", **sub_path}
        document["spec"]["containers"][0]["volumeMounts"] = [mount]
        return document

    document = pod(NAMESPACE, "mounting")
    document["spec"] |= mounting(site.unsigned)["spec"]
    assert UNSIGNED in refused(site.cluster, document)
    deployment = workload("Deployment", "mounting", NAMESPACE, site.signed, asleep=False)
    deployment["spec"]["template"]["spec"] = mounting(site.unsigned)["spec"]
    said = refused(site.cluster, deployment)
    assert UNSIGNED in said
    deployment["spec"]["template"]["spec"] = mounting(site.signed)["spec"]
    create(site.cluster, deployment, "--dry-run=server")


# --- ways to change a pod -----------------------------------------------------------------------------------


def test_case_30_no_kind_of_update_brings_an_unsigned_image_in(site: AdmissionSite) -> None:
    resources = {"requests": {"cpu": "5m"}}
    start(
        site,
        "changed",
        site.signed,
        containers=[{"name": "c0", "image": site.signed, "resources": resources}],
    )
    kubectl = site.cluster.kubectl
    containers = [{"name": "c0", "image": site.unsigned}]
    patch = json.dumps({"spec": {"containers": containers}})
    applied = {**pod(NAMESPACE, "changed"), "spec": {"containers": containers}}
    replaced = site.cluster.kubectl_json("get", "pod", "changed", WHERE)
    replaced["spec"]["containers"][0]["image"] = site.unsigned
    ways: list[tuple[list[str], Json | None]] = [
        (["set", "image", "pod/changed", f"c0={site.unsigned}"], None),
        (["patch", "pod", "changed", "--type=strategic", "-p", patch], None),
        (["apply", "--server-side", "--force-conflicts", "-f", "-"], applied),
        (["replace", "-f", "-"], replaced),
    ]
    for arguments, document in ways:
        said = refusal(site.cluster, *arguments, WHERE, stdin=document)
        assert UNSIGNED in said, arguments
    first = json.dumps([{"op": "replace", "path": "/spec/containers/0/image", "value": site.unsigned}])
    assert UNSIGNED in refusal(site.cluster, "patch", "pod", "changed", WHERE, "--type=json", "-p", first)
    # What changes no image passes.
    kubectl("label", "pod", "changed", WHERE, "team=line")
    resized = json.dumps(
        {"spec": {"containers": [{"name": "c0", "resources": {"requests": {"cpu": "10m"}}}]}}
    )
    resize = ["patch", "pod", "changed", WHERE, "--subresource=resize", "-p"]
    assert image_of(json.loads(kubectl(*resize, resized, "-o", "json"))) == site.signed
    # The API server takes nothing but resources from a resize, or refuses it whole.
    with suppress(CommandFailed):
        kubectl(*resize, json.dumps({"spec": {"containers": containers}}))
    assert image_of(site.cluster.kubectl_json("get", "pod", "changed", WHERE)) == site.signed


def image_of(document: Json) -> str:
    """Give the image of the first container of a pod."""
    image: str = document["spec"]["containers"][0]["image"]
    return image


def test_case_34_a_dying_pod_gets_no_unsigned_image_and_may_always_go(site: AdmissionSite) -> None:
    create(
        site.cluster, labelled(pod(NAMESPACE, "dying", site.signed), finalizers=["tests.edgemodel.dev/hold"])
    )
    site.cluster.kubectl("delete", "pod", "dying", WHERE, "--wait=false", "--grace-period=0", "--force")
    assert UNSIGNED in refusal(site.cluster, "set", "image", "pod/dying", f"c0={site.unsigned}", WHERE)
    done = json.dumps({"metadata": {"finalizers": None}})
    site.cluster.kubectl("patch", "pod", "dying", WHERE, "--type=merge", "-p", done)
    site.cluster.kubectl("wait", "pod/dying", WHERE, "--for=delete", "--timeout=30s", timeout_s=40)


# --- who makes pods -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_case_31a_a_workload_gets_its_answer_when_it_is_applied(site: AdmissionSite, kind: str) -> None:
    said = refused(site.cluster, workload(kind, "early", NAMESPACE, site.unsigned, asleep=False))
    assert UNSIGNED in said
    assert 'admission webhook "workloads.edgemodel.dev" denied' in said
    create(site.cluster, workload(kind, "early", NAMESPACE, site.signed, asleep=False), "--dry-run=server")


@contextmanager
def asleep(site: AdmissionSite, where: str, *kinds: str) -> Iterator[None]:
    """Give a guarded namespace with unsigned workloads that came before the guard and want no pods yet."""
    with namespace(site.cluster, where):
        for kind in kinds:
            create(site.cluster, workload(kind, kind.lower(), where, site.unsigned, asleep=True))
        site.cluster.kubectl("label", "namespace", where, *(f"{key}={value}" for key, value in LABEL.items()))
        until_refused(site.cluster, pod(where, "probe", site.unsigned), UNSIGNED)
        yield
        assert site.cluster.kubectl_json("get", "pods", f"--namespace={where}")["items"] == []


def test_case_31b_the_pods_of_every_controller_are_judged(site: AdmissionSite) -> None:
    where = "guarded-controllers"
    kubectl = site.cluster.kubectl
    (node, *_) = site.cluster.nodes()
    counted = ("ReplicaSet", "StatefulSet", "ReplicationController")
    with asleep(site, where, *counted, "DaemonSet", "Job", "CronJob"):
        for kind in map(str.lower, counted):
            kubectl("scale", f"{kind}/{kind}", f"--namespace={where}", "--replicas=1")
        wake = [
            "patch",
            "job",
            "job",
            f"--namespace={where}",
            "--type=merge",
            "-p",
            '{"spec":{"suspend":false}}',
        ]
        assert UNSIGNED in refusal(site.cluster, *wake)
        from_cron = ["create", "job", "at-once", "--from=cronjob/cronjob", f"--namespace={where}"]
        assert UNSIGNED in refusal(site.cluster, *from_cron)
        kubectl("label", "node", node, f"tests.edgemodel.dev/{where}=yes")
        try:
            wait_for_refusals(site, where, {*counted, "DaemonSet"})
        finally:
            kubectl("label", "node", node, f"tests.edgemodel.dev/{where}-")


def test_case_32_a_deployment_of_no_replicas_that_is_scaled_later_gets_none(site: AdmissionSite) -> None:
    where = "guarded-scaled"
    with asleep(site, where, "Deployment"):
        scale = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"name": "deployment", "namespace": where},
            "spec": {"replicas": 1},
        }
        path = f"/apis/apps/v1/namespaces/{where}/deployments/deployment/scale"
        site.cluster.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps(scale).encode())
        # Already the ReplicaSet may not be woken; the namespace is told.
        wait_for_refusals(site, where, {"Namespace"})


def wait_for_refusals(site: AdmissionSite, where: str, kinds: set[str]) -> None:
    """Wait until controllers of these kinds were told that their pods are refused, and why."""
    ends = time.monotonic() + SECONDS
    while True:
        events = site.cluster.kubectl_json("get", "events", f"--namespace={where}")["items"]
        told = {event["involvedObject"]["kind"] for event in events if UNSIGNED in event["message"]}
        if told >= kinds:
            return
        seen = [(event["involvedObject"]["kind"], event["reason"], event["message"]) for event in events]
        assert time.monotonic() < ends, f"nobody told {kinds - told}; seen: {seen}"
        time.sleep(0.5)


def forged(site: AdmissionSite, owner: Json) -> Json:
    """Give an unsigned pod that says that somebody approved owns it, and that it was verified."""
    return labelled(
        pod(NAMESPACE, "forged", site.unsigned),
        ownerReferences=[{**owner, "controller": True}],
        annotations={"verified": "true", "policies.plant-a.local/last-verdict": "trusted"},
        labels={"app": "approved"},
    )


def test_case_31c_pods_of_a_controller_that_nobody_knows_are_judged(site: AdmissionSite) -> None:
    owner = {"apiVersion": "robots.plant-a.local/v1", "kind": "Robot", "name": "r2", "uid": "0-0-0-0"}
    account = f"--as=system:serviceaccount:{NAMESPACE}:robots"
    assert UNSIGNED in refused(site.cluster, forged(site, owner), account, "--as-group=system:masters")


def test_case_33_who_owns_a_pod_and_what_it_says_of_itself_prove_nothing(site: AdmissionSite) -> None:
    approved = create(site.cluster, workload("ReplicaSet", "approved", NAMESPACE, site.signed, asleep=True))
    owner = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "approved",
        "uid": approved["metadata"]["uid"],
    }
    account = "--as=system:serviceaccount:kube-system:replicaset-controller"
    assert UNSIGNED in refused(site.cluster, forged(site, owner))
    assert UNSIGNED in refused(site.cluster, forged(site, owner), account, "--as-group=system:masters")


# --- namespaces and names -----------------------------------------------------------------------------------


def test_case_35a_a_new_namespace_is_guarded_from_its_first_pod_on(site: AdmissionSite) -> None:
    with namespace(site.cluster, "guarded-new", LABEL):
        assert UNSIGNED in refused(site.cluster, pod("guarded-new", "first", site.unsigned))


def test_case_35b_a_namespace_cannot_pass_for_an_excluded_one(site: AdmissionSite) -> None:
    for name in ("kube-system", "guard-system"):
        change = ["label", "namespace", NAMESPACE, f"kubernetes.io/metadata.name={name}", "--overwrite"]
        with suppress(CommandFailed):
            site.cluster.kubectl(*change)
        labels = site.cluster.kubectl_json("get", "namespace", NAMESPACE)["metadata"]["labels"]
        assert labels["kubernetes.io/metadata.name"] == NAMESPACE
        assert UNSIGNED in refused(site.cluster, pod(NAMESPACE, "first", site.unsigned))
    for name in ("Kube-System", "kube-System", "GUARD-SYSTEM"):
        imitated = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        assert "Invalid value" in refused(site.cluster, imitated)


def test_case_35c_a_pod_without_a_name_yet_is_judged_all_the_same(site: AdmissionSite) -> None:
    document = pod(NAMESPACE, "unused", site.unsigned)
    del document["metadata"]["name"]
    document["metadata"]["generateName"] = "line-"
    assert UNSIGNED in refused(site.cluster, document)


def test_case_35d_a_label_taken_away_and_given_back_counts_at_once(site: AdmissionSite) -> None:
    with namespace(site.cluster, "guarded-relabelled", LABEL):
        document = pod("guarded-relabelled", "first", site.unsigned)
        assert UNSIGNED in refused(site.cluster, document)
        (label,) = LABEL
        site.cluster.kubectl("label", "namespace", "guarded-relabelled", f"{label}-")
        site.cluster.kubectl("label", "namespace", "guarded-relabelled", f"{label}={LABEL[label]}")
        until_refused(site.cluster, document, UNSIGNED)
