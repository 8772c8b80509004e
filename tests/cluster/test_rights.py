"""What the operator's account may not do, asked of the API server in its name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cluster.base import Cluster
from cluster.commands import CommandFailed
from demo import objects
from demo.site import SIGNING_KEY, SYSTEM, Site
from edgemodel_operator.api.names import NODE_LABEL_PREFIX

pytestmark = pytest.mark.needs("pods", "registry", "cut")

BUILDS = "build-jobs"
"""The namespace that the chart of the session names."""
OPERATOR = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-operator"
ADMISSION = f"--as=system:serviceaccount:{SYSTEM}:edgemodel-admission"


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


def test_the_operator_reads_its_own_key_and_lists_none(cluster: Cluster) -> None:
    cluster.kubectl("get", "secret", SIGNING_KEY, "--namespace", SYSTEM, OPERATOR)
    with pytest.raises(CommandFailed, match="Forbidden"):
        cluster.kubectl("get", "secrets", "--namespace", SYSTEM, OPERATOR)


def test_the_webhook_does_not_read_the_private_key(cluster: Cluster) -> None:
    with pytest.raises(CommandFailed, match="Forbidden"):
        cluster.kubectl("get", "secret", SIGNING_KEY, "--namespace", SYSTEM, ADMISSION)


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
        ("update", "trustpolicies.edgemodel.dev"),
        ("update", "validatingadmissionpolicies.admissionregistration.k8s.io"),
    ],
)
def test_the_operator_has_no_right_that_it_does_not_need(cluster: Cluster, verb: str, resource: str) -> None:
    with pytest.raises(CommandFailed) as refusal:
        cluster.kubectl("auth", "can-i", verb, resource, "--all-namespaces", OPERATOR)
    assert str(refusal.value).splitlines()[-1] == "no"


def test_it_may_run_jobs_where_the_chart_names_the_namespace(cluster: Cluster) -> None:
    def says(verb: str, *what: str, namespace: str = BUILDS) -> str:
        try:
            said = cluster.kubectl("auth", "can-i", verb, *what, "--namespace", namespace, OPERATOR)
        except CommandFailed as refusal:
            said = str(refusal)
        return said.splitlines()[-1]

    log = ("pods", "--subresource=log")
    for verb, what in (("create", ("jobs.batch",)), ("delete", ("jobs.batch",)), ("get", log)):
        assert says(verb, *what) == "yes"
        assert says(verb, *what, namespace=objects.NAMESPACE) == "no"
    assert {says(verb, "jobs.batch") for verb in ("update", "patch", "deletecollection")} == {"no"}
