"""The verifier on every node: off unless asked for, as weak as its work allows, replaced without a gap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edgemodel_operator.settings import Unmatched, load_settings
from support.chart import NAMESPACE, HelmError, Objects, Render

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.plant-a.local:5000/edgemodel/operator@{DIGEST}"
NAME = "edgemodel-node"


def values(**verifier: Any) -> dict[str, Any]:
    repository, _, digest = IMAGE.partition("@")
    return {
        "image": {"repository": repository, "digest": digest, "pullSecrets": [{"name": "site-registry"}]},
        "registries": {"plainHttp": ["registry.plant-a.local:5000"], "credentialsSecret": "site-registry"},
        "trustPolicySecrets": ["public-a"],
        "nodeVerifier": {"enabled": True, **verifier},
    }


@pytest.fixture(scope="module")
def verifier(render: Render) -> Objects:
    """Give the objects of the verifier."""
    return {
        key: document
        for key, document in render(values()).items()
        if document["metadata"].get("labels", {}).get("app.kubernetes.io/component") == "node"
    }


@pytest.fixture(scope="module")
def pod(verifier: Objects) -> dict[str, Any]:
    """Give the pod's specification."""
    spec: dict[str, Any] = verifier["DaemonSet", NAME]["spec"]["template"]["spec"]
    return spec


def test_it_is_off_by_default(objects: Objects) -> None:
    assert not [key for key in objects if key[1] == NAME]


def test_every_object_is_valid_for_kubernetes(verifier: Objects) -> None:
    assert {kind for kind, _ in verifier} == {
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    }
    for document in verifier.values():
        kubernetes_validate.validate(document, "1.36", strict=True)


def test_its_configuration_is_understood(render: Render, tmp_path: Path) -> None:
    objects = render(
        values(
            unmatched="Deny",
            exempt=["registry.plant-a.local:5000/base/pause"],
            kubeletDir="/data/kubelet",
        )
    )
    path = tmp_path / "config.yaml"
    path.write_text(objects["ConfigMap", NAME]["data"]["config.yaml"])
    settings = load_settings({"EDGEMODEL_CONFIG": str(path), "POD_NAMESPACE": "n", "POD_UID": "u"})
    assert settings.node.image == IMAGE
    assert settings.node.unmatched is Unmatched.DENY
    assert settings.node.exempt == ("registry.plant-a.local:5000/base/pause",)
    assert settings.node.kubelet_dir == "/data/kubelet"
    assert settings.node.daemon_set == NAME
    assert settings.pod_uid == "u"
    assert settings.registries.credentials_secret == "site-registry"


def test_root_on_the_node_means_its_own_files_and_nothing_else(pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert container["args"] == ["node"]
    assert container["image"] == IMAGE


def test_folders_of_the_host_have_the_same_path_inside(pod: dict[str, Any]) -> None:
    [container] = pod["containers"]
    mounted = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    on_host = {
        volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume
    }
    assert on_host == {"state": "/var/lib/edgemodel-node", "containerd": "/opt/containerd/image-verifier"}
    assert {name: mounted[name] for name in on_host} == on_host


def test_the_old_agent_answers_while_the_new_one_is_pulled(verifier: Objects) -> None:
    strategy = verifier["DaemonSet", NAME]["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


def test_it_runs_on_every_node_and_is_evicted_last(pod: dict[str, Any]) -> None:
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["priorityClassName"] == "system-node-critical"


def test_its_rights_are_to_read_what_it_judges_by(verifier: Objects) -> None:
    cluster_wide = verifier["ClusterRole", NAME]["rules"]
    assert cluster_wide == [
        {"apiGroups": ["edgemodel.dev"], "resources": ["trustpolicies"], "verbs": ["get", "list", "watch"]}
    ]
    rules = verifier["Role", NAME]["rules"]
    assert verifier["Role", NAME]["metadata"]["namespace"] == NAMESPACE
    assert {verb for rule in rules for verb in rule["verbs"]} == {"get", "list", "watch"}
    named = {rule["resources"][0]: rule.get("resourceNames") for rule in rules}
    assert named["secrets"] == ["public-a", "site-registry"]
    assert named["daemonsets"] == [NAME]
    assert set(named) == {"secrets", "daemonsets", "trustexceptions", "configmaps"}


def test_without_a_digest_it_is_refused(render: Render) -> None:
    chosen = values()
    chosen["image"]["digest"] = ""
    with pytest.raises(HelmError, match=r"nodeVerifier needs image\.digest"):
        render(chosen)


@pytest.mark.parametrize(
    "wrong",
    [
        {"unmatched": "Warn"},
        {"binDir": "/opt/bin"},
        {"binDir": "/usr/local/bin"},
        {"stateDir": "/var/lib"},
        {"stateDir": "/var/lib/../x"},
        {"kubeletDir": "var/lib/kubelet"},
        {"kubeletDir": "/kubelet"},
        {"podLabels": {"app.kubernetes.io/name": "x"}},
        {"exempt": [""]},
        {"other": 1},
    ],
)
def test_values_that_make_no_sense_are_refused(render: Render, wrong: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="nodeVerifier"):
        render(values(**wrong))


def test_no_values_at_all_switch_it_off(render: Render) -> None:
    chosen = yaml.safe_load("nodeVerifier: null")
    assert not [key for key in render(chosen) if key[1] == NAME]
