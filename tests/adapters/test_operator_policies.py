"""What the operator's account may make, asked of a real API server: children of models, nothing stronger."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.base import Cluster
from edgemodel_operator.api.names import FIELD_MANAGER, LABEL_MODEL, LABEL_ROLE
from edgemodel_operator.build.jobs.plan import LABEL_BUILD_OF
from support.build_jobs import BUILDAH
from support.guarded import applied, create, labelled, namespace, refusal, refused, until_refused
from support.operator_children import (
    CHILDREN,
    GOLDEN,
    JOB,
    JOBS,
    NAMESPACE,
    OPERATOR,
    SERVE,
    SERVICE,
    SHARED,
    Json,
    add,
    copied,
    pod,
    policies,
    set_,
    with_buildah,
)

pytestmark = pytest.mark.needs("api")

DRY = "--dry-run=server"
APPLY = ("apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", "-")


@pytest.fixture(scope="module")
def guarded(edge_cluster: Cluster) -> Iterator[Cluster]:
    """Give an API server with the policies as the chart has them, and with Buildah, for an operator each."""
    buildah = policies("-buildah", image=BUILDAH, userNamespaces=True)
    with namespace(edge_cluster, NAMESPACE), applied(edge_cluster, *policies(), *buildah):
        for account in (OPERATOR, with_buildah()):
            unlabelled, mounting = copied(GOLDEN), copied(SERVE)
            del unlabelled["metadata"]["labels"]
            pod(mounting)["volumes"].append({"name": "node", "hostPath": {"path": "/"}})
            until_refused(edge_cluster, unlabelled, "carries the label", *account)
            until_refused(edge_cluster, mounting, "volume node", *account)
        yield edge_cluster


def stored(cluster: Cluster, document: Json, **metadata: Any) -> str:
    """Have an administrator put an object there, without its owner, so that no controller takes it away."""
    kept = labelled(document, **metadata)
    kept["metadata"].pop("ownerReferences", None)
    remove(cluster, document)
    create(cluster, kept)
    return f"{document['kind'].lower()}/{document['metadata']['name']}"


def remove(cluster: Cluster, document: Json) -> None:
    """Have an administrator take an object away."""
    what = f"{document['kind'].lower()}/{document['metadata']['name']}"
    cluster.kubectl("delete", what, f"--namespace={NAMESPACE}", "--ignore-not-found", "--wait")


@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN.keys())
def test_the_children_of_a_model_are_made_changed_and_deleted(guarded: Cluster, child: Json) -> None:
    text = json.dumps(child).encode()
    guarded.kubectl(*APPLY, DRY, *OPERATOR, stdin=text)
    what = stored(guarded, child)
    guarded.kubectl(*APPLY, *OPERATOR, DRY, stdin=text)
    guarded.kubectl("delete", what, f"--namespace={NAMESPACE}", *OPERATOR)


@pytest.mark.parametrize(("account", "job"), JOBS.values(), ids=JOBS.keys())
def test_builds_are_made_and_deleted(guarded: Cluster, account: tuple[str, ...], job: Json) -> None:
    create(guarded, job, DRY, *account)
    what = stored(guarded, job)
    guarded.kubectl("delete", what, f"--namespace={NAMESPACE}", *account)


@pytest.mark.parametrize("lost", ["labels", "ownerReferences"])
def test_a_mark_that_somebody_took_off_is_put_back(guarded: Cluster, lost: str) -> None:
    marked = labelled(SERVICE, name="marked")
    half = copied(marked)
    del half["metadata"][lost]
    remove(guarded, marked)
    create(guarded, half)
    text = json.dumps(marked).encode()
    guarded.kubectl(*APPLY, *OPERATOR, stdin=text)
    remove(guarded, marked)


def test_what_others_wrote_into_a_daemonset_does_not_stop_the_operator(guarded: Cluster) -> None:
    changed = copied(SHARED)
    pod(changed)["volumes"].append({"name": "driver", "hostPath": {"path": "/opt/driver"}})
    stored(guarded, changed)
    document = labelled(SHARED, annotations={"edgemodel.dev/roster": "another"})
    guarded.kubectl(*APPLY, *OPERATOR, stdin=json.dumps(document).encode())
    remove(guarded, SHARED)


def test_external_addresses_that_an_administrator_gave_a_service_stay(guarded: Cluster) -> None:
    with_address = copied(SERVICE)
    with_address["spec"]["externalIPs"] = ["192.0.2.1"]
    stored(guarded, with_address)
    guarded.kubectl(*APPLY, *OPERATOR, DRY, stdin=json.dumps(SERVICE).encode())
    remove(guarded, SERVICE)


# --- what it does not render ----------------------------------------------------------------------------


POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
SECRET = {"secretKeyRef": {"name": "foreign", "key": "password"}}
PROJECTED = {"sources": [{"serviceAccountToken": {"path": "token"}}]}
ROOT_CONTAINER = {"name": "first", "image": "x", "securityContext": {"privileged": True}}
STRONG = "has rights that the EdgeModel operator gives to none"
ORDINARY = "run as an ordinary user"
HOST = "share neither network nor processes with their node"
REACHING = "takes no port of a node"
METADATA = "only labels and annotations of its own"

IN_EVERY_POD: dict[str, tuple[Callable[[Json], None], str]] = {
    "host path": (add(f"{POD}.volumes", {"name": "v", "hostPath": {"path": "/"}}), "volume v"),
    "token": (add(f"{POD}.volumes", {"name": "v", "projected": PROJECTED}), "volume v"),
    "csi": (add(f"{POD}.volumes", {"name": "v", "csi": {"driver": "d.example.com"}}), "volume v"),
    "nfs": (add(f"{POD}.volumes", {"name": "v", "nfs": {"server": "s", "path": "/"}}), "volume v"),
    "image volume": (add(f"{POD}.volumes", {"name": "v", "image": {"reference": "x"}}), "volume v"),
    "network of the node": (set_(f"{POD}.hostNetwork", True), HOST),
    "processes of the node": (set_(f"{POD}.hostPID", True), HOST),
    "memory of the node": (set_(f"{POD}.hostIPC", True), HOST),
    "account": (set_(f"{POD}.serviceAccountName", "admin"), "no account of their own"),
    "account's token": (set_(f"{POD}.automountServiceAccountToken", True), "mount no token"),
    "priority": (set_(f"{POD}.priorityClassName", "system-node-critical"), "no priority over others"),
    "secret as variable": (
        set_(f"{CONTAINER}.env", [{"name": "P", "valueFrom": SECRET}]),
        "gives variables by their values",
    ),
    "variables of a secret": (
        set_(f"{CONTAINER}.envFrom", [{"secretRef": {"name": "foreign"}}]),
        "gives variables by their values",
    ),
    "init container": (set_(f"{POD}.initContainers", [ROOT_CONTAINER]), f"first {STRONG}"),
    "escalation": (set_(f"{CONTAINER}.securityContext.allowPrivilegeEscalation", True), STRONG),
    "added capability": (set_(f"{CONTAINER}.securityContext.capabilities.add", ["SYS_ADMIN"]), STRONG),
    "kept capabilities": (set_(f"{CONTAINER}.securityContext.capabilities", {}), STRONG),
    "root container": (set_(f"{CONTAINER}.securityContext.runAsNonRoot", False), STRONG),
    "unmasked proc": (
        lambda document: (
            pod(document).update(hostUsers=False)
            or pod(document)["containers"][0]["securityContext"].update(procMount="Unmasked")
        ),
        STRONG,
    ),
    "container without filter": (
        set_(f"{CONTAINER}.securityContext.seccompProfile", {"type": "Unconfined"}),
        STRONG,
    ),
    "container without profile": (
        set_(f"{CONTAINER}.securityContext.appArmorProfile", {"type": "Unconfined"}),
        STRONG,
    ),
    "SELinux type": (set_(f"{CONTAINER}.securityContext.seLinuxOptions", {"type": "spc_t"}), STRONG),
    "root": (set_(f"{POD}.securityContext.runAsNonRoot", False), ORDINARY),
    "without filter": (set_(f"{POD}.securityContext.seccompProfile", {"type": "Unconfined"}), ORDINARY),
    "SELinux type of the pod": (set_(f"{POD}.securityContext.seLinuxOptions", {"type": "spc_t"}), ORDINARY),
    "kernel setting": (
        set_(f"{POD}.securityContext.sysctls", [{"name": "net.ipv4.ip_forward", "value": "1"}]),
        ORDINARY,
    ),
    "port of the node": (
        set_(f"{CONTAINER}.ports", [{"containerPort": 8080, "hostPort": 8080}]),
        REACHING,
    ),
    "probe elsewhere": (
        set_(f"{CONTAINER}.startupProbe", {"httpGet": {"host": "127.0.0.1", "port": 10250}}),
        REACHING,
    ),
    "hook": (set_(f"{CONTAINER}.lifecycle", {"preStop": {"exec": {"command": ["x"]}}}), REACHING),
    "empty label": (
        lambda document: document["spec"]["template"]["metadata"]["labels"].update({"leader": ""}),
        f"{METADATA}, not leader",
    ),
    "label of another Service": (
        lambda document: document["spec"]["template"]["metadata"]["labels"].update({"k8s-app": "kube-dns"}),
        f"{METADATA}, not k8s-app",
    ),
    "order to a runtime": (
        lambda document: document["spec"]["template"]["metadata"]["annotations"].update(
            {"cdi.k8s.io/node": "vendor.example/node=all"}
        ),
        f"{METADATA}, not cdi.k8s.io/node",
    ),
}


@pytest.mark.parametrize("document", [SHARED, JOB], ids=["daemonset", "job"])
@pytest.mark.parametrize(("change", "sentence"), IN_EVERY_POD.values(), ids=IN_EVERY_POD.keys())
def test_no_pod_gets_more_than_the_operator_renders(
    guarded: Cluster, document: Json, change: Callable[[Json], None], sentence: str
) -> None:
    changed = copied(document)
    change(changed)
    assert sentence in refused(guarded, changed, DRY, *OPERATOR)


@pytest.mark.parametrize(
    "volume",
    [
        {"secret": {"secretName": "foreign"}},
        {"persistentVolumeClaim": {"claimName": "foreign", "readOnly": True}},
        {"downwardAPI": {"items": []}},
    ],
    ids=lambda volume: next(iter(volume)),
)
def test_a_pod_of_a_model_mounts_no_secret_and_no_claim(guarded: Cluster, volume: Json) -> None:
    changed = copied(SERVE)
    pod(changed)["volumes"].append({"name": "lent", **volume})
    assert "volume lent" in refused(guarded, changed, DRY, *OPERATOR)


def test_a_build_mounts_claims_read_only(guarded: Cluster) -> None:
    changed = copied(JOB)
    pod(changed)["volumes"].append({"name": "lent", "persistentVolumeClaim": {"claimName": "models"}})
    assert "volume lent" in refused(guarded, changed, DRY, *OPERATOR)


def test_a_privileged_pod_is_refused(guarded: Cluster) -> None:
    changed = copied(SERVE)
    pod(changed)["containers"][0]["securityContext"] = {"privileged": True}
    assert STRONG in refused(guarded, changed, DRY, *OPERATOR)


def test_the_rights_of_buildah_are_given_where_the_values_name_it_and_to_builds_alone(
    guarded: Cluster,
) -> None:
    _, rootless = JOBS["runtime"]
    _, as_root = JOBS["runtime in a user namespace"]
    assert ORDINARY in refused(guarded, rootless, DRY, *OPERATOR)
    assert ORDINARY in refused(guarded, as_root, DRY, *OPERATOR)
    on_node = copied(as_root)
    del pod(on_node)["hostUsers"]
    assert ORDINARY in refused(guarded, on_node, DRY, *with_buildah())
    serving = copied(SERVE)
    pod(serving).update({name: pod(as_root)[name] for name in ("hostUsers", "securityContext")})
    assert ORDINARY in refused(guarded, serving, DRY, *with_buildah())


def test_a_pod_is_changed_as_little_as_it_is_made(guarded: Cluster) -> None:
    stored(guarded, SHARED)
    changed = copied(SHARED)
    pod(changed)["volumes"].append({"name": "v", "hostPath": {"path": "/"}})
    assert "volume v" in refusal(guarded, *APPLY, DRY, *OPERATOR, stdin=changed)
    remove(guarded, SHARED)


# --- whose it is ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [SHARED, SERVICE, GOLDEN, JOB], ids=lambda one: str(one["kind"]))
@pytest.mark.parametrize("lost", ["label", "owner"])
def test_nothing_is_made_that_is_no_child_of_a_model(guarded: Cluster, document: Json, lost: str) -> None:
    changed = copied(document)
    if lost == "label":
        for label in (LABEL_MODEL, LABEL_BUILD_OF):
            changed["metadata"]["labels"].pop(label, None)
    else:
        changed["metadata"]["ownerReferences"][0]["kind"] = "Deployment"
    assert "has an EdgeModel for its controller" in refused(guarded, changed, DRY, *OPERATOR)


@pytest.mark.parametrize("document", [SHARED, SERVICE, GOLDEN, JOB], ids=lambda one: str(one["kind"]))
def test_what_others_made_is_neither_taken_over_nor_deleted(guarded: Cluster, document: Json) -> None:
    what = stored(guarded, document, labels={"team": "line"})
    sentence = f"and {document['kind'].lower()}s {NAMESPACE}/{document['metadata']['name']} was not"
    assert sentence in refusal(guarded, *APPLY, DRY, *OPERATOR, stdin=document)
    assert sentence in refusal(guarded, "delete", what, f"--namespace={NAMESPACE}", DRY, *OPERATOR)
    remove(guarded, document)


@pytest.mark.parametrize("document", [SHARED, SERVICE, GOLDEN], ids=lambda one: str(one["kind"]))
def test_nothing_is_made_in_the_namespaces_of_the_cluster(guarded: Cluster, document: Json) -> None:
    changed = labelled(document, namespace="kube-system")
    create(guarded, changed, DRY)
    assert "put the EdgeModel into another" in refused(guarded, changed, DRY, *OPERATOR)


@pytest.mark.parametrize(
    ("document", "change", "sentence"),
    [
        (SERVICE, set_("spec.externalIPs", ["192.0.2.1"]), "no Service external addresses"),
        (SERVICE, set_("spec.type", "NodePort"), "has a cluster IP and selects the pods of a model"),
        (SERVICE, set_("spec.type", "LoadBalancer"), "has a cluster IP and selects the pods of a model"),
        (SERVICE, set_("spec.selector", {"app": "db"}), "has a cluster IP and selects the pods of a model"),
        (GOLDEN, set_("data", {"Corefile": "."}), "the copy of a golden sample"),
        (GOLDEN, set_("binaryData", {"golden.json": "e30="}), "the copy of a golden sample"),
        (GOLDEN, set_("immutable", False), "the copy of a golden sample"),
    ],
)
def test_services_and_config_maps_are_those_of_models(
    guarded: Cluster, document: Json, change: Callable[[Json], None], sentence: str
) -> None:
    changed = copied(document)
    change(changed)
    if "golden.json" in changed.get("binaryData", {}):
        del changed["data"]
    assert sentence in refused(guarded, changed, DRY, *OPERATOR)


def test_a_daemonset_takes_no_pods_of_others_for_its_own(guarded: Cluster) -> None:
    changed = copied(SHARED)
    changed["spec"]["selector"] = {"matchLabels": {LABEL_ROLE: "serve"}}
    assert "are selected by, the label of a model" in refused(guarded, changed, DRY, *OPERATOR)


def test_others_are_not_bound(guarded: Cluster) -> None:
    changed = labelled(SHARED, labels={"team": "line"}, ownerReferences=[])
    pod(changed)["volumes"].append({"name": "v", "hostPath": {"path": "/"}})
    create(guarded, changed, DRY)
