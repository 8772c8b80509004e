"""What the chart installs: valid objects, hardened pods, few rights, a webhook that fails closed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edgemodel_operator.api.model import Origin
from edgemodel_operator.api.names import FIELD_MANAGER, NODE_LABEL_PREFIX
from edgemodel_operator.main import LEASE_NAME
from edgemodel_operator.settings import BuildMode, BuildSettings, Resources, Settings, SourceSettings
from support.chart import CHART, NAMESPACE, Objects, Render, rendered_settings, rules

DIGEST = f"sha256:{'a' * 64}"
FULL: dict[str, Any] = {
    "image": {"digest": DIGEST, "pullSecrets": [{"name": "site-registry"}], "pullPolicy": "Always"},
    "runtimes": {"onnxruntime-cpu": f"registry.plant-a.local:5000/edgemodel/onnxruntime-cpu@{DIGEST}"},
    "registries": {"plainHttp": ["registry.plant-a.local:5000"], "credentialsSecret": "site-registry"},
    "sources": {"deniedNetworks": ["10.43.0.0/16", "fd00::/8"], "maxBytes": 8_000_000_000},
    "builds": {
        "mode": "Job",
        "converters": {"Keras": f"registry.plant-a.local:5000/edgemodel/converter@{DIGEST}"},
        "imagePullSecrets": ["site-registry"],
        "nodeSelector": {"plant": "server-room"},
        "resources": {"requests": {"cpu": 1}, "limits": {"memory": "8Gi", "cpu": 2.5}},
        "timeoutSeconds": 7200,
        "buildah": {
            "image": f"registry.plant-a.local:5000/edgemodel/buildah@{DIGEST}",
            "userNamespaces": True,
        },
        "docker": {"engines": {"linux/amd64": "tcp://engine.plant-a.local:2376"}, "tlsSecret": "engine-tls"},
    },
    "signing": {"secretNames": ["line-key"]},
    "trustPolicySecrets": ["public-a", "public-b"],
    "modelNamespaces": ["plant-a", {"name": "plant-b", "secrets": ["site-registry"]}],
    "logLevel": "DEBUG",
    "operator": {
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"kubernetes.io/arch": "amd64"},
        "podLabels": {"team": "line"},
        "podAnnotations": {"example.com/note": "x"},
        "priorityClassName": "high",
    },
    "admission": {"replicas": 1, "namespaceSelector": {"matchLabels": {"team": "line"}}, "workloads": False},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "full": FULL,
    "three replicas": {"admission": {"replicas": 3}},
    "all namespaces": {"admission": {"allNamespaces": True}},
    "nulls": {
        "trustPolicySecrets": None,
        "runtimes": None,
        "modelNamespaces": None,
        "acceleratorClasses": None,
        "logLevel": None,
        "builds": {
            **dict.fromkeys(["mode", "converters", "resources", "imagePullSecrets", "nodeSelector"]),
            **dict.fromkeys(["workSizeLimit", "timeoutSeconds", "maxConcurrentJobs", "finishedSeconds"]),
            "docker": dict.fromkeys(["engines", "tlsSecret", "emulation", "network", "memoryBytes"]),
            "buildah": dict.fromkeys(["image", "userNamespaces", "network", "maxImageBytes"]),
        },
        "sources": dict.fromkeys(["maxBytes", "timeoutSeconds", "deniedNetworks", "allowedNetworks"]),
        "registries": dict.fromkeys(["plainHttp", "certificateAuthorities", "credentialsSecret"]),
        "signing": {"command": None},
        "operator": dict.fromkeys(["maxConcurrentBuilds", "tmpSizeLimit", "resources", "podLabels"]),
    },
    "nulls above": {"builds": {"docker": None, "buildah": None}},
    "nulls on top": {"builds": None},
    "numbers as texts": {
        "builds": {"workSizeLimit": "8589934592"},
        "operator": {"tmpSizeLimit": "8589934592"},
    },
    "nothing optional": {
        "trustPolicySecrets": [],
        "acceleratorClasses": [],
        "operator": {"nodeSelector": None, "resources": None},
        "admission": {"priorityClassName": "", "nodeSelector": None},
    },
}


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_object_is_valid_for_kubernetes(render: Render, values: dict[str, Any]) -> None:
    for (kind, name), document in render(values).items():
        if kind != "CustomResourceDefinition":
            kubernetes_validate.validate(document, "1.36", strict=True)
        assert document["metadata"].get("namespace", "") or kind not in {"Deployment", "Secret"}, name


@pytest.mark.parametrize("values", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_programs_accept_the_configuration(
    render: Render, values: dict[str, Any], tmp_path: Path
) -> None:
    settings = rendered_settings(render(values), tmp_path)
    assert settings.namespace == NAMESPACE
    if values is FULL:
        assert settings.runtimes == FULL["runtimes"]
        assert settings.sources.max_bytes == 8_000_000_000
        assert settings.registries.credentials_secret == "site-registry"
        assert settings.registries.plain_http == ("registry.plant-a.local:5000",)


def test_builds_are_configured_as_the_values_say(render: Render, tmp_path: Path) -> None:
    builds = rendered_settings(render(FULL), tmp_path).builds
    assert builds.mode is BuildMode.JOB
    assert builds.image == f"registry.example.com/edgemodel/operator@{DIGEST}"
    assert builds.converters == {Origin.KERAS: FULL["builds"]["converters"]["Keras"]}
    assert builds.resources.limits == {"memory": "8Gi", "cpu": "2.5"}
    assert builds.node_selector == {"plant": "server-room"}
    assert (builds.resources.requests["cpu"], builds.timeout_seconds) == ("1", 7200)
    assert (builds.buildah.image, builds.buildah.user_namespaces) == (
        FULL["builds"]["buildah"]["image"],
        True,
    )
    assert builds.docker.engines == FULL["builds"]["docker"]["engines"]
    # What the chart says by default is what the programs take without it.
    plain = rendered_settings(render(), tmp_path).builds
    assert plain == BuildSettings()


def test_a_null_means_what_the_programs_take_without_the_value(render: Render, tmp_path: Path) -> None:
    nothing = rendered_settings(render(VARIANTS["nulls"]), tmp_path)
    unlimited = BuildSettings(resources=Resources(requests={}, limits={}))
    assert (nothing.builds, nothing.sources) == (unlimited, SourceSettings())
    assert (nothing.max_concurrent_builds, nothing.log_level) == (2, "INFO")


def test_all_that_the_programs_can_be_told_is_told_by_the_chart(objects: Objects) -> None:
    config = yaml.safe_load(objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
    of_the_pod = {"namespace", "podName", "podUid"}
    of_the_agent = {"node"}  # which has a file of its own
    assert config.keys() == Settings().model_dump(by_alias=True).keys() - of_the_pod - of_the_agent
    for name in ("registries", "sources", "signing", "signer", "builds"):
        settings = getattr(Settings(), name).model_dump(by_alias=True)
        assert config[name].keys() == settings.keys(), name
        for part, value in settings.items():
            if isinstance(value, dict) and value:
                assert config[name][part].keys() == value.keys(), part


def test_the_certificates_for_docker_engines_are_mounted_in_the_operator_alone(render: Render) -> None:
    objects = render(FULL)
    operator = objects["Deployment", "edgemodel-operator"]["spec"]["template"]["spec"]
    assert {"name": "docker", "secret": {"secretName": "engine-tls", "defaultMode": 0o440}} in operator[
        "volumes"
    ]
    (mount,) = [item for item in operator["containers"][0]["volumeMounts"] if item["name"] == "docker"]
    config = yaml.safe_load(objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
    assert mount["mountPath"] == config["builds"]["docker"]["tlsSecretDir"]
    admission = objects["Deployment", "edgemodel-admission"]["spec"]["template"]["spec"]
    assert "docker" not in {volume["name"] for volume in admission["volumes"]}


def test_helm_finds_nothing_to_complain_about(helm: Path) -> None:
    process = subprocess.run(
        [helm, "lint", "--strict", CHART], capture_output=True, text=True, check=False, timeout=60
    )
    assert process.returncode == 0, process.stdout
    assert "WARNING" not in process.stdout


# --- pods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edgemodel-operator", "edgemodel-admission"])
def test_pods_keep_the_restricted_pod_security_standard(objects: Objects, name: str) -> None:
    pod = objects["Deployment", name]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert all(volume.keys() & {"configMap", "emptyDir", "projected"} for volume in pod["volumes"])
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume)
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["limits"]["memory"]
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}


@pytest.mark.parametrize("name", ["operator", "admission"])
def test_pods_run_their_program_with_probes_on_the_metrics_port(objects: Objects, name: str) -> None:
    pod = objects["Deployment", f"edgemodel-{name}"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == [name]
    assert "command" not in container
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "metrics"}
    assert {port["name"]: port["containerPort"] for port in container["ports"]}["metrics"] == 8080


def test_the_operator_is_never_there_twice_and_the_webhook_never_away(objects: Objects) -> None:
    operator = objects["Deployment", "edgemodel-operator"]["spec"]
    assert (operator["replicas"], operator["strategy"]) == (1, {"type": "Recreate"})
    admission = objects["Deployment", "edgemodel-admission"]["spec"]
    assert admission["replicas"] == 2
    assert admission["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert admission["template"]["spec"]["topologySpreadConstraints"][0]["maxSkew"] == 1
    assert objects["PodDisruptionBudget", "edgemodel-admission"]["spec"]["maxUnavailable"] == 1


def test_a_single_replica_has_no_budget_that_would_block_drains(render: Render) -> None:
    assert ("PodDisruptionBudget", "edgemodel-admission") not in render({"admission": {"replicas": 1}})


@pytest.mark.parametrize("name", ["edgemodel-operator", "edgemodel-admission"])
def test_selectors_match_their_own_pods_only_and_survive_upgrades(objects: Objects, name: str) -> None:
    deployment = objects["Deployment", name]["spec"]
    selector = deployment["selector"]["matchLabels"]
    assert selector.items() <= deployment["template"]["metadata"]["labels"].items()
    assert not {"app.kubernetes.io/version", "helm.sh/chart"} & selector.keys()
    others = [o for (kind, other), o in objects.items() if kind == "Deployment" and other != name]
    assert not any(
        selector.items() <= other["spec"]["template"]["metadata"]["labels"].items() for other in others
    )


def test_a_changed_configuration_restarts_the_pods(render: Render, objects: Objects) -> None:
    changed = render({"logLevel": "DEBUG"})
    for name in ("edgemodel-operator", "edgemodel-admission"):
        before, after = (
            o["Deployment", name]["spec"]["template"]["metadata"]["annotations"] for o in (objects, changed)
        )
        assert before != after


def test_a_digest_wins_over_the_tag(render: Render) -> None:
    image = {"repository": "registry.example.com/edgemodel/operator", "tag": "1", "digest": DIGEST}
    rendered = render({"image": image})["Deployment", "edgemodel-operator"]
    (container,) = rendered["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/edgemodel/operator@{DIGEST}"


# --- rights -----------------------------------------------------------------------------------------


def test_nobody_gets_wildcards_or_ways_to_more_rights(render: Render) -> None:
    for (kind, name), document in render(FULL).items():
        if kind not in {"Role", "ClusterRole"}:
            continue
        for rule in document["rules"]:
            text = yaml.safe_dump(rule)
            assert "*" not in text, name
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"]), name
            assert not set(rule["resources"]) & {"pods/exec", "serviceaccounts", "serviceaccounts/token"}


def test_no_cluster_role_reads_secrets(render: Render) -> None:
    for (kind, name), document in render(FULL).items():
        if kind == "ClusterRole":
            assert all("secrets" not in rule["resources"] for rule in document["rules"]), name


def test_the_operator_may_do_what_it_does_and_no_more(objects: Objects) -> None:
    watched, made = ("get", "list", "watch"), ("create", "patch", "delete")
    of_ours = {
        "edgemodels": (*watched, "patch"),
        "acceleratorclasses": (*watched, "create", "patch"),
        **dict.fromkeys(["trustpolicies", "trustexceptions"], watched),
        **dict.fromkeys(["edgemodels/status", "trustpolicies/status"], ("patch",)),
    }
    of_the_cluster = {
        **dict.fromkeys(["/namespaces", "networking.k8s.io/servicecidrs"], ("list",)),
        **dict.fromkeys(["apps/daemonsets", "/services"], (*watched, *made)),
        "/nodes": (*watched, "patch"),
        "/pods": watched,
        "/configmaps": ("get", "list", *made),
        "/events": ("create", "patch"),
    }
    everything = {f"edgemodel.dev/{what}": verbs for what, verbs in of_ours.items()} | of_the_cluster
    assert rules(objects, "ClusterRole", "edgemodel-operator") == {
        (verb, what, ()) for what, verbs in everything.items() for verb in verbs
    }


def test_the_operator_reads_its_keys_and_keeps_its_lease_by_name(render: Render) -> None:
    mine = rules(render(FULL), "Role", "edgemodel-operator")
    assert ("get", "/secrets", ("public-a", "public-b", "site-registry")) in mine
    assert {what for verb, what, names in mine if not names} == {"coordination.k8s.io/leases"}
    assert {verb for verb, _, names in mine if names == (LEASE_NAME,)} == {"get", "update"}


def test_secrets_of_models_are_readable_in_the_named_namespaces_only(render: Render) -> None:
    objects = render(FULL)
    assert rules(objects, "Role", "plant-a/edgemodel-operator-secrets") == {("get", "/secrets", ())}
    assert rules(objects, "Role", "plant-b/edgemodel-operator-secrets") == {
        ("get", "/secrets", ("site-registry",))
    }
    binding = objects["RoleBinding", "plant-a/edgemodel-operator-secrets"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "edgemodel-operator", "namespace": NAMESPACE}
    ]


def test_jobs_may_be_run_in_the_named_namespaces_only(render: Render) -> None:
    objects = render(FULL)
    for namespace in ("plant-a", "plant-b"):
        assert rules(objects, "Role", f"{namespace}/edgemodel-operator-builds") == {
            *((verb, "batch/jobs", ()) for verb in ("get", "list", "create", "delete")),
            ("get", "/pods/log", ()),
            ("list", "/events", ()),
        }
    everywhere = {what for _, what, _ in rules(objects, "ClusterRole", "edgemodel-operator")}
    assert not everywhere & {"batch/jobs", "/pods/log"}
    assert not [name for kind, name in render() if kind == "Role" and "builds" in name]


def test_every_binding_points_to_a_role_and_an_account_that_exist(render: Render) -> None:
    objects = render(FULL)
    for (kind, name), document in objects.items():
        if kind in {"RoleBinding", "ClusterRoleBinding"}:
            folder = name.rpartition("/")[0]
            role = document["roleRef"]["name"]
            assert (document["roleRef"]["kind"], f"{folder}/{role}" if folder else role) in objects
            assert ("ServiceAccount", document["subjects"][0]["name"]) in objects


# --- node policy --------------------------------------------------------------------------------------


def test_the_operator_may_change_only_its_own_labels_on_nodes(objects: Objects) -> None:
    policy = objects["ValidatingAdmissionPolicy", "edgemodel-operator-nodes"]["spec"]
    assert policy["failurePolicy"] == "Fail"
    (condition,) = policy["matchConditions"]
    assert f"system:serviceaccount:{NAMESPACE}:{FIELD_MANAGER}" in condition["expression"]
    assert any(NODE_LABEL_PREFIX in validation["expression"] for validation in policy["validations"])
    binding = objects["ValidatingAdmissionPolicyBinding", "edgemodel-operator-nodes"]["spec"]
    assert binding == {"policyName": "edgemodel-operator-nodes", "validationActions": ["Deny"]}


# --- CRDs ------------------------------------------------------------------------------------


def test_the_crds_are_templates_and_stay_when_the_chart_goes(objects: Objects) -> None:
    crds = [o for (kind, _), o in objects.items() if kind == "CustomResourceDefinition"]
    assert {crd["spec"]["names"]["kind"] for crd in crds} == {
        *("EdgeModel", "AcceleratorClass"),
        *("TrustPolicy", "TrustException"),
    }
    assert all(crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for crd in crds)
