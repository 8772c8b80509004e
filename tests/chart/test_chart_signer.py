"""What the chart installs of the signer: it alone reads the keys, and the operator alone may ask it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel_operator.adapters.signer_protocol import AUDIENCE
from edgemodel_operator.settings import Settings, load_settings
from edgemodel_operator.web.announcement import FIELD_BUNDLE
from support.chart import NAMESPACE, HelmError, Objects, Render, render_notes

KEYS = ["line-key", "line-key-2025"]
ROTATION: dict[str, Any] = {
    "image": {"digest": f"sha256:{'a' * 64}"},
    "signing": {"secretNames": KEYS, "repositories": ["registry.plant-a.local:5000/models/**"]},
    "trustPolicySecrets": ["line-public"],
    "modelNamespaces": ["plant-a", {"name": "plant-b", "secrets": ["site-registry"]}],
    "registries": {"credentialsSecret": "site-registry"},
    "nodeVerifier": {"enabled": True},
    "builds": {"docker": {"tlsSecret": "engine-tls"}},
}
PRIVATE = ("edgemodel-signing-key", "edgemodel-signer-tls", "edgemodel-admission-tls")
OUTSIDE: dict[str, Any] = {
    "signing": {
        "secretNames": [],
        "command": {"argv": ["/opt/signer/sign", "--slot=1"], "publicKey": "-----BEGIN PUBLIC KEY-----\n…"},
    },
    "signer": {
        "volumes": [{"name": "signer", "image": {"reference": "registry.plant-a.local:5000/hsm/sign"}}],
        "volumeMounts": [{"name": "signer", "mountPath": "/opt/signer", "readOnly": True}],
    },
}


def pod(objects: Objects, name: str) -> dict[str, Any]:
    spec: dict[str, Any] = objects["Deployment", f"edgemodel-{name}"]["spec"]["template"]["spec"]
    return spec


def settings_of(objects: Objects, folder: Path) -> Settings:
    path = folder / "config.yaml"
    path.write_text(objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
    return load_settings({"EDGEMODEL_CONFIG": str(path), "POD_NAMESPACE": NAMESPACE, "POD_NAME": "x"})


def readers(objects: Objects, secret: str) -> set[str]:
    """Name the roles that let somebody read a Secret of the release namespace."""
    found = set()
    for (kind, name), document in objects.items():
        if kind not in {"Role", "ClusterRole"} or "/" in name:
            continue
        for rule in document["rules"]:
            reads = {"get", "list", "watch", "*"} & set(rule["verbs"]) and {"secrets", "*"} & set(
                rule["resources"]
            )
            if reads and ("resourceNames" not in rule or secret in rule["resourceNames"]):
                found.add(name)
    return found


# --- rights -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, ROTATION], ids=["defaults", "rotation"])
def test_only_the_signer_reads_the_signing_keys(render: Render, values: dict[str, Any]) -> None:
    objects = render(values)
    for secret in values.get("signing", {}).get("secretNames", ["edgemodel-signing-key"]):
        assert readers(objects, secret) == {"edgemodel-signer"}
    assert readers(objects, "edgemodel-signer-tls") == {"edgemodel-signer"}
    (binding,) = [
        o for (kind, name), o in objects.items() if (kind, name) == ("RoleBinding", "edgemodel-signer")
    ]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": "edgemodel-signer", "namespace": NAMESPACE}
    ]


@pytest.mark.parametrize("values", [{}, ROTATION, OUTSIDE], ids=["defaults", "rotation", "outside"])
def test_no_secret_is_mounted_that_holds_a_key(render: Render, values: dict[str, Any]) -> None:
    """The signer reads its keys from the API: on no node do they come to lie in a pod's volumes."""
    for (kind, _), document in render(values).items():
        if kind in {"Deployment", "DaemonSet"}:
            text = yaml.safe_dump(document["spec"]["template"])
            assert not [secret for secret in [*KEYS, "edgemodel-signing-key"] if secret in text]


@pytest.mark.parametrize("values", [{}, ROTATION, OUTSIDE], ids=["defaults", "rotation", "outside"])
def test_nobody_gets_ways_to_more_rights(render: Render, values: dict[str, Any]) -> None:
    for (kind, name), document in render(values).items():
        if kind not in {"Role", "ClusterRole"}:
            continue
        for rule in document["rules"]:
            assert "*" not in {*rule["verbs"], *rule["resources"], *rule["apiGroups"]}, name
            assert not {"escalate", "bind", "impersonate", "approve", "sign"} & set(rule["verbs"]), name
            assert kind == "Role" or "secrets" not in rule["resources"], name
            # An empty list of names would mean every name.
            assert rule.get("resourceNames", ["x"]), name


def test_the_signer_may_review_tokens_and_nothing_else_in_the_cluster(objects: Objects) -> None:
    assert objects["ClusterRole", "edgemodel-signer"]["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
    role = objects["Role", "edgemodel-signer"]["rules"]
    named = {tuple(rule["resourceNames"]): (rule["resources"], rule["verbs"]) for rule in role[:-1]}
    assert named == {
        ("edgemodel-signing-key",): (["secrets"], ["get"]),
        ("edgemodel-signer-tls",): (["secrets"], ["get", "update"]),
        ("edgemodel-signer-ca",): (["configmaps"], ["get", "patch"]),
    }
    assert role[-1] == {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]}


def test_the_operator_makes_nothing_where_the_keys_are(objects: Objects) -> None:
    policy = objects["ValidatingAdmissionPolicy", "edgemodel-signer-namespace"]["spec"]
    assert policy["failurePolicy"] == "Fail"
    assert policy["matchConstraints"]["namespaceSelector"] == {
        "matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}
    }
    (condition,) = policy["matchConditions"]
    assert f'"system:serviceaccount:{NAMESPACE}:edgemodel-operator"' in condition["expression"]
    assert [one["expression"] for one in policy["validations"]] == ["false"]
    binding = objects["ValidatingAdmissionPolicyBinding", "edgemodel-signer-namespace"]["spec"]
    assert binding == {"policyName": "edgemodel-signer-namespace", "validationActions": ["Deny"]}


@pytest.mark.parametrize(
    ("values", "want"),
    [
        *(({"trustPolicySecrets": [name]}, f"trustPolicySecrets names {name}") for name in PRIVATE),
        *(({"registries": {"credentialsSecret": name}}, f"Secret names {name}") for name in PRIVATE),
        *(({"builds": {"docker": {"tlsSecret": name}}}, f"tlsSecret names {name}") for name in PRIVATE),
        *(({"image": {"pullSecrets": [{"name": name}]}}, f"pullSecrets names {name}") for name in PRIVATE),
        ({"modelNamespaces": [NAMESPACE]}, "names the release namespace"),
        ({"modelNamespaces": [{"name": NAMESPACE, "secrets": ["x"]}]}, "names the release namespace"),
        ({"signing": {"secretNames": []}}, "secretNames"),
        ({"signing": {"secretName": "line-key"}}, "secretName"),
        ({"signing": {"secretNames": ["x", "x"]}}, "secretNames"),
        ({"signing": {"command": {"shell": "sign"}}}, "shell"),
        ({"signing": {"command": {"argv": ["/opt/signer/sign"]}}}, "publicKey"),
        ({"signing": {"command": {"publicKey": "-----BEGIN PUBLIC KEY-----"}}}, "publicKey"),
        ({"signer": {"replicas": 2}}, "replicas"),
    ],
)
def test_what_would_give_the_keys_away_or_sign_nothing_is_refused(
    render: Render, values: dict[str, Any], want: str
) -> None:
    with pytest.raises(HelmError, match=want):
        render(values)


# --- asking -------------------------------------------------------------------------------------------


def test_the_operator_has_a_token_for_the_signer_alone(objects: Objects, tmp_path: Path) -> None:
    signer = settings_of(objects, tmp_path).signer
    (volume,) = [one for one in pod(objects, "operator")["volumes"] if one["name"] == "signer-token"]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"] == {
        "audience": AUDIENCE,
        "expirationSeconds": 600,
        "path": Path(signer.token_file).name,
    }
    (container,) = pod(objects, "operator")["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["signer-token"] == str(Path(signer.token_file).parent)
    for name in ("admission", "signer"):
        assert "signer-token" not in {one["name"] for one in pod(objects, name)["volumes"]}


def test_the_names_that_both_programs_use_are_those_of_the_chart(objects: Objects, tmp_path: Path) -> None:
    signer = settings_of(objects, tmp_path).signer
    assert ("Secret", signer.secret_name) in objects
    assert ("ConfigMap", signer.config_map_name) in objects
    assert ("ServiceAccount", signer.operator_account) in objects
    assert pod(objects, "operator")["serviceAccountName"] == signer.operator_account
    service = objects["Service", signer.service_name]["spec"]
    assert service["ports"] == [{"name": "https", "port": 443, "targetPort": "https"}]
    assert service["selector"].items() <= labels(objects, "signer").items()
    (container,) = pod(objects, "signer")["containers"]
    assert {port["name"]: port["containerPort"] for port in container["ports"]}["https"] == signer.port
    assert container["args"] == ["signer"]


def labels(objects: Objects, name: str) -> dict[str, str]:
    metadata = objects["Deployment", f"edgemodel-{name}"]["spec"]["template"]["metadata"]
    found: dict[str, str] = metadata["labels"]
    return found


def test_the_network_lets_the_operator_in_and_everybody_to_the_metrics(objects: Objects) -> None:
    policy = objects["NetworkPolicy", "edgemodel-signer"]["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels(objects, "signer").items()
    asking, metrics = policy["ingress"]
    ((peer,), (port,)) = asking["from"], asking["ports"]
    assert port == {"port": "https"}
    chosen = peer["podSelector"]["matchLabels"].items()
    assert chosen <= labels(objects, "operator").items()
    assert not chosen <= labels(objects, "admission").items()
    assert metrics == {"ports": [{"port": "metrics"}]}


def test_the_chart_fills_in_neither_certificates_nor_authority(objects: Objects) -> None:
    """An upgrade leaves alone what the chart does not name: the certificates in use stay."""
    assert not {"data", "stringData"} & objects["Secret", "edgemodel-signer-tls"].keys()
    assert "data" not in objects["ConfigMap", "edgemodel-signer-ca"]
    assert FIELD_BUNDLE == "ca.crt"


def test_the_notes_make_the_pair_of_keys_that_the_values_name(helm: Path) -> None:
    values = {
        "signing": {"secretNames": ["line-2027", "line-2026"]},
        "trustPolicySecrets": ["line-public-2027", "line-public-2026"],
    }
    notes = render_notes(helm, values).replace("\\\n", "")
    (keygen,) = [line for line in notes.splitlines() if "edgemodel keygen" in line]
    arguments = keygen.partition(" | ")[0].split()
    assert {*itertools.pairwise(arguments)} > {
        ("--namespace", NAMESPACE),
        ("--name", "line-2027"),
        ("--public-name", "line-public-2027"),
    }
    policy = yaml.safe_load(re.findall("<<EOF\n(.*?)EOF", notes, re.DOTALL)[0])
    (authority,) = policy["spec"]["authorities"]
    assert authority["keys"] == [{"secretRef": {"name": "line-public-2027"}}]


def test_the_notes_say_how_a_namespace_comes_to_be_judged(helm: Path) -> None:
    def told(**admission: Any) -> str:
        return render_notes(helm, {"admission": admission}).partition("3. ")[2].partition("4. ")[0]

    assert "kubectl label namespace NAME edgemodel.dev/verify-images=enforce" in told()
    assert "NAME line=1 team=a" in told(namespaceSelector={"matchLabels": {"team": "a", "line": "1"}})
    assert "every namespace but" in told(allNamespaces=True)
    assert '"team"' in told(namespaceSelector={"matchExpressions": [{"key": "team", "operator": "Exists"}]})


# --- the program --------------------------------------------------------------------------------------


def test_the_signer_is_never_there_twice_and_hardened(objects: Objects) -> None:
    deployment = objects["Deployment", "edgemodel-signer"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    spec = pod(objects, "signer")
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["priorityClassName"] == pod(objects, "admission")["priorityClassName"]
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_keys_and_repositories_are_those_of_the_values(render: Render, tmp_path: Path) -> None:
    signing = settings_of(render(ROTATION), tmp_path).signing
    assert signing.secret_names == tuple(KEYS)
    assert signing.repositories == ("registry.plant-a.local:5000/models/**",)


def test_a_command_brings_its_program_in_a_volume(render: Render, tmp_path: Path) -> None:
    objects = render(OUTSIDE)
    command = settings_of(objects, tmp_path).signing.command
    assert command.argv == ("/opt/signer/sign", "--slot=1")
    assert command.public_key.startswith("-----BEGIN PUBLIC KEY-----")
    assert OUTSIDE["signer"]["volumes"][0] in pod(objects, "signer")["volumes"]
    (container,) = pod(objects, "signer")["containers"]
    assert OUTSIDE["signer"]["volumeMounts"][0] in container["volumeMounts"]
    assert not readers(objects, "edgemodel-signing-key")
