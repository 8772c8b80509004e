"""The second lock on a real API server: what is refused although no webhook is there at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.base import Cluster
from edgemodel_operator.api.names import LABEL_MODEL, LABEL_ROLE, ROLE_SERVE
from edgemodel_operator.build.jobs.plan import LABEL_BUILD_OF
from support.guarded import (
    LABEL,
    PINNED,
    REGISTRY,
    SYSTEM,
    TRUSTED,
    Json,
    applied,
    create,
    guard_objects,
    labelled,
    namespace,
    pod,
    refusal,
    refused,
    until_refused,
)

pytestmark = pytest.mark.needs("api", "control")

NAMESPACE = "second-lock"
TAGGED = f"{TRUSTED}/line:1"
BY_TAG = f"image {TAGGED} is not named by digest"
OPERATOR = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-operator"
DAEMON_SETS = "--as=system:serviceaccount:kube-system:daemon-set-controller"
JOBS = "--as=system:serviceaccount:kube-system:job-controller"
REPLICA_SETS = "--as=system:serviceaccount:kube-system:replicaset-controller"
ADMINISTRATORS = "--as-group=system:masters"
OURS = "only the EdgeModel operator may set or change"
DRY = "--dry-run=server"


@pytest.fixture(scope="module")
def lock(edge_cluster: Cluster) -> Iterator[Cluster]:
    """Give an API server with the policies of the chart, and one namespace in which they count."""
    documents = [
        document
        for (kind, name), document in guard_objects(trustedRepositories=[TRUSTED]).items()
        if kind.startswith("ValidatingAdmissionPolicy") and not name.startswith("edgemodel-operator-")
    ]
    with namespace(edge_cluster, NAMESPACE, LABEL), applied(edge_cluster, *documents):
        until_refused(edge_cluster, pod(NAMESPACE, "probe", TAGGED), BY_TAG)
        foreign = model_pod("probe", f"{REGISTRY}/other@sha256:{'a' * 64}")
        until_refused(edge_cluster, foreign, "none of the trusted repositories", DAEMON_SETS, ADMINISTRATORS)
        until_refused(edge_cluster, model_pod("probe"), OURS)
        yield edge_cluster


def model_pod(name: str, image: str = PINNED) -> Json:
    """Give a pod that says it serves a model."""
    return labelled(pod(NAMESPACE, name, image), labels={LABEL_MODEL: "abc", LABEL_ROLE: ROLE_SERVE})


def workload(kind: str, labels: Json, template_labels: Json, image: str = PINNED) -> Json:
    """Give a DaemonSet, Deployment or Job; no node fits its pods."""
    spec: Json = {
        "template": {
            "metadata": {"labels": {"app": "line", **template_labels}},
            "spec": {
                "nodeSelector": {"tests.edgemodel.dev/no-such-node": "yes"},
                "containers": [{"name": "model", "image": image}],
            },
        }
    }
    if kind == "Job":
        spec["template"]["spec"]["restartPolicy"] = "Never"
    else:
        spec["selector"] = {"matchLabels": {"app": "line"}}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": f"{kind.lower()}-line", "namespace": NAMESPACE, "labels": labels},
        "spec": spec,
    }


# --- digests --------------------------------------------------------------------------------------------

PLACES: dict[str, Json] = {
    "container": {"containers": [{"name": "a", "image": PINNED}, {"name": "b", "image": TAGGED}]},
    "init container": {"initContainers": [{"name": "a", "image": TAGGED}]},
    "sidecar": {"initContainers": [{"name": "a", "image": TAGGED, "restartPolicy": "Always"}]},
    "image volume": {"volumes": [{"name": "weights", "image": {"reference": TAGGED}}]},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES.keys())
def test_a_tag_is_refused_wherever_a_pod_names_it(lock: Cluster, place: Json) -> None:
    said = refused(lock, pod(NAMESPACE, "tagged", PINNED, **place))
    assert BY_TAG in said
    assert "write it as registry/name@sha256:" in said


@pytest.mark.parametrize(
    "image",
    [
        "nginx",
        f"{TRUSTED}/line@sha512:{'a' * 128}",
        f"{TRUSTED}/line@sha256:{'a' * 63}",
        f"{TRUSTED}/line@sha256:{'A' * 64}",
        f"{TRUSTED}/line@sha256:{'a' * 64}:1",
        f"{TRUSTED}/line@sha256:{'a' * 64}@sha256:{'b' * 64}",
    ],
)
def test_what_only_resembles_a_digest_is_refused(lock: Cluster, image: str) -> None:
    assert "is not named by digest" in refused(lock, pod(NAMESPACE, "almost", image))


def test_an_ephemeral_container_by_tag_is_refused(lock: Cluster) -> None:
    create(lock, pod(NAMESPACE, "debugged", PINNED))
    said = refusal(
        lock,
        "debug",
        "debugged",
        f"--namespace={NAMESPACE}",
        f"--image={TAGGED}",
        "--attach=false",
        "--quiet",
    )
    assert BY_TAG in said


def test_what_came_before_the_lock_may_be_labelled_and_deleted_but_not_get_another_tag(lock: Cluster) -> None:
    with namespace(lock, "second-lock-late"):
        create(lock, pod("second-lock-late", "older", TAGGED))
        late = "--namespace=second-lock-late"
        lock.kubectl(
            "label", "namespace", "second-lock-late", *(f"{key}={value}" for key, value in LABEL.items())
        )
        until_refused(lock, pod("second-lock-late", "probe", TAGGED), BY_TAG)
        lock.kubectl("label", "pod", "older", late, "team=line")
        assert "by digest" in refusal(lock, "set", "image", "pod/older", f"c0={TRUSTED}/line:2", late)
        lock.kubectl("set", "image", "pod/older", f"c0={PINNED}", late)
        lock.kubectl("delete", "pod", "older", late, "--grace-period=0", "--force")


@pytest.mark.needs("nodes")
def test_the_mirror_of_a_static_pod_may_be_shown_by_its_own_node_alone(lock: Cluster) -> None:
    node = lock.nodes()[0]
    uid = lock.kubectl_json("get", "node", node)["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid, "controller": True}
    mirror = labelled(
        pod(NAMESPACE, "static", TAGGED, nodeName=node),
        annotations={"kubernetes.io/config.mirror": "x"},
        ownerReferences=[owner],
    )
    mirror["spec"] |= {"automountServiceAccountToken": False, "enableServiceLinks": False}
    create(lock, mirror, DRY, f"--as=system:node:{node}", "--as-group=system:nodes")
    assert BY_TAG in refused(lock, mirror, DRY, "--as=kim", ADMINISTRATORS, "--as-group=system:nodes")
    assert BY_TAG in refused(lock, mirror, DRY)


def test_the_largest_pods_stay_within_the_cost_that_the_api_server_allows(lock: Cluster) -> None:
    long_name = f"{TRUSTED}/{'x' * 180}@sha256:{'a' * 64}"
    volumes = [{"name": f"v{number}", "image": {"reference": long_name}} for number in range(100)]
    large = pod(NAMESPACE, "large", *[long_name] * 400, volumes=volumes)
    create(lock, large, DRY)
    large["spec"]["containers"][-1]["image"] = TAGGED
    assert BY_TAG in refused(lock, large, DRY)


# --- repositories ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/line", "/hall-1/line", ""])
def test_models_come_from_the_trusted_repositories(lock: Cluster, path: str) -> None:
    create(lock, model_pod("trusted", f"{TRUSTED}{path}@sha256:{'a' * 64}"), DRY, DAEMON_SETS, ADMINISTRATORS)


@pytest.mark.parametrize(
    "name", [f"{REGISTRY}/other/line", f"{TRUSTED}-of-others/line", f"{TRUSTED}/../other/line", "models/line"]
)
def test_models_come_from_nowhere_else(lock: Cluster, name: str) -> None:
    image = f"{name}@sha256:{'a' * 64}"
    said = refused(lock, model_pod("foreign", image), DRY, DAEMON_SETS, ADMINISTRATORS)
    assert f"image {image} of a model comes from none of the trusted repositories: {TRUSTED}" in said
    create(lock, pod(NAMESPACE, "not-of-a-model", image), DRY)


# --- labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "account", [None, "--as=kim", REPLICA_SETS], ids=["administrator", "user", "controller"]
)
def test_nobody_makes_pods_of_models_by_hand(lock: Cluster, account: str | None) -> None:
    asked = [account, ADMINISTRATORS] if account else []
    said = refused(lock, model_pod("by-hand"), *asked)
    assert OURS in said
    assert LABEL_ROLE in said
    annotated = labelled(pod(NAMESPACE, "by-hand", PINNED), annotations={"edgemodel.dev/verified": "true"})
    assert OURS in refused(lock, annotated, *asked)


@pytest.mark.parametrize("account", [DAEMON_SETS, JOBS, OPERATOR])
def test_controllers_make_pods_from_templates_of_the_operator(lock: Cluster, account: str) -> None:
    create(lock, model_pod("made"), DRY, account, ADMINISTRATORS)


@pytest.mark.parametrize("kind", ["DaemonSet", "Deployment", "Job"])
def test_only_the_operator_writes_such_templates(lock: Cluster, kind: str) -> None:
    ours = {LABEL_BUILD_OF if kind == "Job" else LABEL_MODEL: "abc"}
    assert OURS in refused(lock, workload(kind, ours, {}))
    assert OURS in refused(lock, workload(kind, {}, ours), "--as=kim", ADMINISTRATORS)
    create(lock, workload(kind, ours, ours), DRY, OPERATOR, ADMINISTRATORS)
    create(lock, workload(kind, {"edgemodel.development/x": "y"}, {}), DRY)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["label", "daemonset/daemonset-line", f"{LABEL_MODEL}-"], OURS),
        (["label", "daemonset/daemonset-line", f"{LABEL_MODEL}=other", "--overwrite"], OURS),
        (["annotate", "daemonset/daemonset-line", "edgemodel.dev/roster=forged"], OURS),
        (["set", "image", "daemonset/daemonset-line", f"model={PINNED[:-1]}b"], "belongs to an EdgeModel"),
        (["rollout", "restart", "daemonset/daemonset-line"], "belongs to an EdgeModel"),
    ],
)
def test_nobody_else_changes_what_belongs_to_a_model(
    lock: Cluster, arguments: list[str], problem: str
) -> None:
    ours = {LABEL_MODEL: "abc"}
    document = workload("DaemonSet", ours, ours)
    lock.kubectl("apply", "-f", "-", OPERATOR, ADMINISTRATORS, stdin=json.dumps(document).encode())
    where = f"--namespace={NAMESPACE}"
    assert problem in refusal(lock, *arguments, where)
    lock.kubectl(*arguments, where, OPERATOR, ADMINISTRATORS)
    lock.kubectl("label", "daemonset/daemonset-line", where, "team=line", "--overwrite")
    lock.kubectl("delete", "daemonset/daemonset-line", where, "--wait")


def test_labels_of_a_pod_stay_also_when_its_status_is_written(lock: Cluster) -> None:
    create(lock, pod(NAMESPACE, "status", PINNED))
    patch: dict[str, Any] = {"metadata": {"labels": {LABEL_MODEL: "abc"}}}
    arguments = [
        "patch",
        "pod",
        "status",
        f"--namespace={NAMESPACE}",
        "--type=merge",
        "-p",
        json.dumps(patch),
    ]
    assert OURS in refusal(lock, *arguments)
    assert OURS in refusal(lock, *arguments, "--subresource=status")


def test_a_binding_brings_no_labels_of_ours(lock: Cluster) -> None:
    create(lock, pod(NAMESPACE, "bound", PINNED))
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "bound", "namespace": NAMESPACE, "annotations": {f"{LABEL_MODEL}-x": "y"}},
        "target": {"apiVersion": "v1", "kind": "Node", "name": "edge-a"},
    }
    for path in ("bindings", "pods/bound/binding"):
        said = refusal(
            lock, "create", "--raw", f"/api/v1/namespaces/{NAMESPACE}/{path}", "-f", "-", stdin=binding
        )
        assert OURS in said
