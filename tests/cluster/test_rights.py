"""What the accounts of the product may not do, asked of the API server in their names."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cluster.base import Cluster
from cluster.commands import CommandFailed
from demo import objects
from demo.site import SIGNING_KEY, SYSTEM, Site
from edgemodel_operator.api.names import NODE_LABEL_PREFIX
from edgemodel_operator.settings import Settings

pytestmark = pytest.mark.needs("pods", "registry", "cut")

BUILDS = "build-jobs"
"""The namespace that the chart of the session names."""
OPERATOR = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-operator"
ADMISSION = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-admission"
SIGNER = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-signer"


@pytest.fixture(scope="module")
def cluster(site: Site) -> Cluster:
    """Give the cluster with the product installed."""
    return site.cluster


@pytest.fixture
def foreign_secret(cluster: Cluster) -> Iterator[str]:
    """Give a Secret that is none of the operator's business."""
    name, place = "foreign", ("--namespace", objects.NAMESPACE)
    cluster.kubectl("delete", "secret", name, *place, "--ignore-not-found")
    cluster.kubectl("create", "secret", "generic", name, *place, "--from-literal=password=plant")
    yield name
    cluster.kubectl("delete", "secret", name, *place)


def test_nobody_of_us_reads_a_foreign_secret(cluster: Cluster, foreign_secret: str) -> None:
    for account in (OPERATOR, ADMISSION):
        with pytest.raises(CommandFailed, match="Forbidden"):
            cluster.kubectl("get", "secret", foreign_secret, "--namespace", objects.NAMESPACE, account)


def test_of_all_accounts_the_signer_alone_reads_the_signing_key(cluster: Cluster) -> None:
    accounts = [
        f"{item['metadata']['namespace']}:{item['metadata']['name']}"
        for item in cluster.kubectl_json("get", "serviceaccounts", "--all-namespaces")["items"]
    ]
    assert {f"{SYSTEM}:edgemodel-{name}" for name in ("operator", "admission", "signer")} <= {*accounts}
    for secret in (SIGNING_KEY, Settings().signer.secret_name):
        readers = {
            account
            for account in accounts
            if says(
                cluster,
                f"--as=system:serviceaccount:{account}",
                "get",
                f"secret/{secret}",
                "--namespace",
                SYSTEM,
            )
            == "yes"
        }
        # Controllers of the cluster itself live in its own namespace.
        assert {one for one in readers if not one.startswith("kube-system:")} == {
            f"{SYSTEM}:edgemodel-signer"
        }


def test_the_signer_reads_its_keys_by_name_and_asks_about_tokens(cluster: Cluster) -> None:
    cluster.kubectl("get", "secret", SIGNING_KEY, "--namespace", SYSTEM, SIGNER)
    assert says(cluster, SIGNER, "create", "tokenreviews.authentication.k8s.io") == "yes"
    for verb, what in (
        ("list", "secrets"),
        ("get", "secrets"),
        ("create", "secrets"),
        ("update", f"secret/{SIGNING_KEY}"),
        ("create", "pods"),
        ("create", "serviceaccounts/token"),
    ):
        assert says(cluster, SIGNER, verb, what, "--namespace", SYSTEM) == "no", (verb, what)


@pytest.mark.parametrize("kind", ["daemonset", "service", "configmap"])
def test_the_operator_makes_nothing_where_the_keys_are(cluster: Cluster, kind: str) -> None:
    """A pod of its making there could mount the keys that it cannot read."""
    metadata = {"name": "probe", "namespace": SYSTEM}
    selector = {"matchLabels": {"app": "probe"}}
    template = {
        "metadata": {"labels": {"app": "probe"}},
        "spec": {
            "containers": [{"name": "probe", "image": "registry.plant-a.local:5000/probe"}],
            "volumes": [{"name": "keys", "secret": {"secretName": SIGNING_KEY}}],
        },
    }
    document = {
        "daemonset": {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "spec": {"selector": selector, "template": template},
        },
        "service": {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 443}]}},
        "configmap": {"apiVersion": "v1", "kind": "ConfigMap", "data": {"ca.crt": "x"}},
    }[kind] | {"metadata": metadata}
    create = ("create", "--dry-run=server", "-f", "-")
    stdin = json.dumps(document).encode()
    cluster.kubectl(*create, stdin=stdin)
    with pytest.raises(CommandFailed, match="makes nothing in its own namespace"):
        cluster.kubectl(*create, OPERATOR, stdin=stdin)


def test_the_operator_sets_its_own_labels_on_nodes(cluster: Cluster) -> None:
    node = cluster.nodes()[0]
    cluster.kubectl(
        "label", "node", node, f"{NODE_LABEL_PREFIX}000000000000.active=x", "--dry-run=server", OPERATOR
    )


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ('{"metadata":{"labels":{"example.com/zone":"1"}}}', "may set only labels under"),
        ('{"metadata":{"labels":{"kubernetes.io/arch":"riscv64"}}}', "may set only labels under"),
        ('{"metadata":{"labels":{"kubernetes.io/hostname":null}}}', "may remove only labels under"),
        ('{"spec":{"unschedulable":true}}', "may change nothing but its labels on a node"),
        ('{"metadata":{"annotations":{"example.com/a":"1"}}}', "may change nothing but its labels on a node"),
    ],
)
def test_the_operator_changes_nothing_else_of_a_node(cluster: Cluster, patch: str, sentence: str) -> None:
    with pytest.raises(CommandFailed, match=sentence):
        cluster.kubectl(
            "patch",
            "node",
            cluster.nodes()[0],
            "--type=merge",
            "--patch",
            patch,
            "--dry-run=server",
            OPERATOR,
        )


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("delete", "nodes"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("create", "jobs.batch"),
        ("list", "events"),
        ("delete", "edgemodels.edgemodel.dev"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("update", "edgemodels.edgemodel.dev"),
        ("update", "trustpolicies.edgemodel.dev"),
        ("list", "customresourcedefinitions.apiextensions.k8s.io"),
        ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ],
)
def test_the_operator_has_no_right_that_it_does_not_need(cluster: Cluster, verb: str, resource: str) -> None:
    with pytest.raises(CommandFailed) as refusal:
        cluster.kubectl("auth", "can-i", verb, resource, "--all-namespaces", OPERATOR)
    assert str(refusal.value).splitlines()[-1] == "no"


def says(cluster: Cluster, account: str, verb: str, what: str, *place: str) -> str:
    """Ask the API server whether an account may do something: `yes` or `no`."""
    try:
        said = cluster.kubectl("auth", "can-i", verb, what, *place, account)
    except CommandFailed as refusal:
        said = str(refusal)
    return said.splitlines()[-1]


def test_it_may_run_jobs_where_the_chart_names_the_namespace(cluster: Cluster) -> None:
    def may(verb: str, *what: str, namespace: str = BUILDS) -> str:
        return says(cluster, OPERATOR, verb, *what, "--namespace", namespace)

    log = ("pods", "--subresource=log")
    for verb, what in (("create", ("jobs.batch",)), ("delete", ("jobs.batch",)), ("get", log)):
        assert may(verb, *what) == "yes"
        assert may(verb, *what, namespace=objects.NAMESPACE) == "no"
    assert {may(verb, "jobs.batch") for verb in ("update", "patch", "deletecollection")} == {"no"}
