"""The chart's life: upgraded, uninstalled, installed again. Stands last, since it takes the product away."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo import objects
from demo.site import CHART, RELEASE, SYSTEM, Site, is_true
from demo.story import Story

pytestmark = pytest.mark.needs("pods", "cut", "arm64", "registry", "npu")

Json = dict[str, Any]


def columns(site: Site) -> list[str]:
    """Name the printer columns of the EdgeModel as the API server has them."""
    version = site.get("crd", "edgemodels.edgemodel.dev")["spec"]["versions"][0]
    return [column["name"] for column in version["additionalPrinterColumns"]]


def test_upgrade_brings_the_definitions_up_to_date(site: Site, tmp_path: Path) -> None:
    older = tmp_path / "older"
    shutil.copytree(CHART, older)
    definition = older / "templates" / "crds" / "edgemodel.dev_edgemodels.yaml"
    document = yaml.safe_load(definition.read_text())
    document["spec"]["versions"][0]["additionalPrinterColumns"].pop(0)
    definition.write_text(json.dumps(document))
    site.install(older)
    assert "Ready" not in columns(site)

    site.install()

    assert columns(site)[:4] == ["Ready", "Revision", "Nodes", "Version"]


def test_no_pod_of_the_product_runs_as_root_or_writes_its_root(site: Site) -> None:
    pods = site.cluster.kubectl_json("get", "pods", "--namespace", SYSTEM)["items"]
    assert pods
    for pod in pods:
        assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
        for container in pod["spec"]["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("list", "secrets", "no"),
        ("get", "secrets/some-secret", "no"),
        ("create", "pods", "no"),
        ("create", "clusterrolebindings", "no"),
        ("impersonate", "users", "no"),
        ("delete", "nodes", "no"),
        ("patch", "nodes", "yes"),
        ("patch", "daemonsets.apps", "yes"),
    ],
)
def test_the_operator_has_the_rights_that_it_needs_and_no_more(
    site: Site, verb: str, resource: str, allowed: str
) -> None:
    account = f"system:serviceaccount:{SYSTEM}:edgemodel-operator"
    answer = site.can_i(verb, resource, account, "--namespace", "plant-a")
    assert answer == allowed


def test_uninstalling_leaves_models_running_and_pods_free_to_start(story: Story, site: Site) -> None:
    story.ensure("1")
    running = story.pod_uids()

    site.uninstall()

    for kind in (
        *("validatingwebhookconfigurations", "mutatingwebhookconfigurations"),
        *("validatingadmissionpolicies", "validatingadmissionpolicybindings"),
    ):
        left = site.cluster.kubectl_json("get", kind)["items"]
        assert not [item for item in left if RELEASE in item["metadata"]["name"]]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "free", "namespace": objects.NAMESPACE},
        "spec": {"containers": [{"name": "any", "image": f"{site.cluster.registry}/anything:latest"}]},
    }
    site.apply(pod)
    site.cluster.kubectl(
        "delete", "pod", "free", "--namespace", objects.NAMESPACE, "--grace-period=0", "--force"
    )
    assert story.pod_uids() == running

    site.install()
    status = story.wait_ready("1")
    assert is_true(status, "Ready")
    assert story.pod_uids() == running
