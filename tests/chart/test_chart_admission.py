"""What the chart registers with the API server: webhooks, the policies behind them, and their rights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgemodel_operator.api.names import GROUP, LABEL_MODEL
from edgemodel_operator.settings import LabelSelector
from edgemodel_operator.web.certificate_keeper import CertificateNames
from support.chart import CHART, NAMESPACE, HelmError, Objects, Render, rendered_settings, rules

REPOSITORY = "registry.plant-a.local:5000/models"
FULL: dict[str, Any] = {
    "registries": {"credentialsSecret": "site-registry"},
    "trustPolicySecrets": ["public-a", "public-b"],
    "admission": {"trustedRepositories": [REPOSITORY]},
}
LABELLED = {"matchLabels": {"edgemodel.dev/verify-images": "enforce"}}
BY_LABEL = {"matchLabels": {"team": "line"}}
BY_TERM = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["line"]}]}
POLICIES = ("digests", "repositories", "labels")
TEMPLATES = {
    *("deployments", "replicasets", "daemonsets", "statefulsets"),
    *("jobs", "cronjobs", "replicationcontrollers"),
}


def webhooks(objects: Objects) -> dict[str, dict[str, Any]]:
    """Give every webhook by its name."""
    return {
        webhook["name"]: webhook
        for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")
        for webhook in objects[kind, "edgemodel-admission"]["webhooks"]
    }


def selectors(objects: Objects) -> list[dict[str, Any]]:
    """Give the namespace selector of everything that judges what is in namespaces."""
    cluster_wide = webhooks(objects)
    cluster_wide.pop("trust.edgemodel.dev")
    bindings = [
        objects["ValidatingAdmissionPolicyBinding", f"edgemodel-admission-{name}"] for name in POLICIES
    ]
    return [
        *(webhook["namespaceSelector"] for webhook in cluster_wide.values()),
        *(binding["spec"]["matchResources"]["namespaceSelector"] for binding in bindings),
    ]


def resources(webhook: dict[str, Any]) -> set[str]:
    """Give all that a webhook is asked about."""
    return {resource for rule in webhook["rules"] for resource in rule["resources"]}


# --- webhooks ---------------------------------------------------------------------------------------


def test_the_webhook_fails_closed_for_every_way_in_which_a_pod_gets_images(objects: Objects) -> None:
    webhook = webhooks(objects)["pods.edgemodel.dev"]
    assert webhook["failurePolicy"] == "Fail"
    (rule,) = webhook["rules"]
    assert resources(webhook) == {"pods", "pods/ephemeralcontainers", "pods/resize"}
    assert set(rule["operations"]) == {"CREATE", "UPDATE"}


def test_workloads_get_an_early_answer_that_never_blocks(objects: Objects, render: Render) -> None:
    webhook = webhooks(objects)["workloads.edgemodel.dev"]
    assert webhook["failurePolicy"] == "Ignore"
    assert resources(webhook) == TEMPLATES
    assert "workloads.edgemodel.dev" not in webhooks(render({"admission": {"workloads": False}}))


def test_tags_become_digests_on_pods_alone_and_never_block(objects: Objects) -> None:
    configuration = objects["MutatingWebhookConfiguration", "edgemodel-admission"]
    (webhook,) = configuration["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    assert webhook["reinvocationPolicy"] == "IfNeeded"
    # A template that somebody owns in a repository must stay as it was applied.
    assert resources(webhook) == {"pods", "pods/ephemeralcontainers"}


def test_policies_and_exceptions_get_an_answer_at_apply_and_stay_changeable_in_an_outage(
    objects: Objects,
) -> None:
    webhook = webhooks(objects)["trust.edgemodel.dev"]
    assert webhook["failurePolicy"] == "Ignore"
    assert resources(webhook) == {"trustpolicies", "trustexceptions"}
    assert "namespaceSelector" not in webhook  # policies are in no namespace


def test_every_webhook_says_what_the_api_server_needs_to_know(objects: Objects) -> None:
    for webhook in webhooks(objects).values():
        assert webhook["matchPolicy"] == "Equivalent"
        assert webhook["sideEffects"] in {"None", "NoneOnDryRun"}
        assert webhook["timeoutSeconds"] == 10
        assert webhook["admissionReviewVersions"] == ["v1"]


@pytest.mark.parametrize(
    ("admission", "want"),
    [
        ({}, LABELLED),
        ({"namespaceSelector": {}}, LABELLED),
        ({"namespaceSelector": {"matchLabels": {}, "matchExpressions": []}}, LABELLED),
        ({"namespaceSelector": BY_LABEL}, BY_LABEL),
        ({"namespaceSelector": BY_TERM}, BY_TERM),
        ({"namespaceSelector": BY_LABEL | BY_TERM}, BY_LABEL | BY_TERM),
        ({"allNamespaces": True}, {}),
    ],
    ids=["default", "empty", "empty parts", "a label", "a term", "both", "all"],
)
def test_everything_judges_the_namespaces_that_the_values_name_and_never_our_own(
    render: Render, admission: dict[str, Any], want: dict[str, Any], tmp_path: Path
) -> None:
    objects = render({"admission": {"trustedRepositories": [REPOSITORY], **admission}})
    never = {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE, "kube-system"]}
    guarded = {**want, "matchExpressions": [never, *want.get("matchExpressions", [])]}
    assert selectors(objects) == [guarded] * 6
    # The audit leaves out the namespaces that never are by itself.
    audited = rendered_settings(objects, tmp_path).audit.namespace_selector
    assert audited == LabelSelector.model_validate(want)


@pytest.mark.parametrize(
    ("admission", "want"),
    [
        ({"namespaceSelector": BY_LABEL, "allNamespaces": True}, "give one of them"),
        ({"namespaceSelector": None}, "namespaceSelector is null"),
        ({"namespaceSelector": {"matchNames": ["plant-a"]}}, "matchNames"),
    ],
)
def test_namespaces_that_are_named_in_two_ways_or_none_are_refused(
    render: Render, admission: dict[str, Any], want: str
) -> None:
    with pytest.raises(HelmError, match=want):
        render({"admission": admission})


def test_the_chart_names_neither_ca_bundle_nor_certificates(objects: Objects) -> None:
    for webhook in webhooks(objects).values():
        assert "caBundle" not in webhook["clientConfig"]
    for name in ("edgemodel-admission-tls", "edgemodel-admission-verdicts"):
        assert not {"data", "stringData"} & objects["Secret", name].keys()


def test_the_names_that_the_program_uses_are_those_of_the_chart(objects: Objects, tmp_path: Path) -> None:
    admission = rendered_settings(objects, tmp_path).admission
    names = CertificateNames(NAMESPACE, admission.secret_name, admission.service_name)
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        assert (kind, admission.webhook_name) in objects
    assert ("Secret", names.secret) in objects
    for webhook in webhooks(objects).values():
        reference = webhook["clientConfig"]["service"]
        assert (reference["name"], reference["namespace"]) == (names.service, names.namespace)
    service = objects["Service", names.service]
    assert service["spec"]["ports"] == [{"name": "https", "port": 443, "targetPort": "https"}]
    container = objects["Deployment", "edgemodel-admission"]["spec"]["template"]["spec"]["containers"][0]
    assert {port["name"]: port["containerPort"] for port in container["ports"]}["https"] == admission.port


def test_replicas_of_one_revision_are_spread_over_nodes(objects: Objects) -> None:
    pod = objects["Deployment", "edgemodel-admission"]["spec"]["template"]["spec"]
    (spread,) = pod["topologySpreadConstraints"]
    assert (spread["topologyKey"], spread["maxSkew"]) == ("kubernetes.io/hostname", 1)
    # On a site with one node both must run there, and an upgrade must not count the replicas that go.
    assert spread["whenUnsatisfiable"] == "ScheduleAnyway"
    assert spread["matchLabelKeys"] == ["pod-template-hash"]


# --- policies of the API server ------------------------------------------------------------------------


def test_the_second_lock_is_closed_and_knows_our_names(render: Render) -> None:
    objects = render(FULL)
    for name in POLICIES:
        full_name = f"edgemodel-admission-{name}"
        policy = objects["ValidatingAdmissionPolicy", full_name]["spec"]
        assert policy["failurePolicy"] == "Fail"
        binding = objects["ValidatingAdmissionPolicyBinding", full_name]["spec"]
        assert (binding["policyName"], binding["validationActions"]) == (full_name, ["Deny"])
    labels = yaml.safe_dump(objects["ValidatingAdmissionPolicy", "edgemodel-admission-labels"])
    assert f"system:serviceaccount:{NAMESPACE}:edgemodel-operator" in labels
    assert f'startsWith("{GROUP}/")' in labels
    repositories = yaml.safe_dump(objects["ValidatingAdmissionPolicy", "edgemodel-admission-repositories"])
    assert LABEL_MODEL in repositories
    assert REPOSITORY in repositories


def test_digests_and_repositories_are_asked_for_only_where_the_values_say_so(render: Render) -> None:
    names = {name for kind, name in render() if kind == "ValidatingAdmissionPolicy"}
    assert {"edgemodel-admission-digests", "edgemodel-admission-labels"} <= names
    assert "edgemodel-admission-repositories" not in names
    loose = {name for kind, name in render({"admission": {"requireDigests": False}}) if "Policy" in kind}
    assert "edgemodel-admission-digests" not in loose


@pytest.mark.parametrize(
    "repository", ["models", "https://registry.plant-a.local/models", f"{REPOSITORY}:1", ""]
)
def test_a_trusted_repository_that_no_image_could_have_is_refused(render: Render, repository: str) -> None:
    with pytest.raises(HelmError, match="trustedRepositories"):
        render({"admission": {"trustedRepositories": [repository]}})


# --- rights -----------------------------------------------------------------------------------------


def test_the_webhook_reads_policies_and_writes_named_objects_and_events(render: Render) -> None:
    objects = render(FULL)
    configurations = ("validatingwebhookconfigurations", "mutatingwebhookconfigurations")
    assert rules(objects, "ClusterRole", "edgemodel-admission") == {
        *((verb, "edgemodel.dev/trustpolicies", ()) for verb in ("get", "list", "watch")),
        ("create", "/events", ()),
        *(
            (verb, f"admissionregistration.k8s.io/{kind}", ("edgemodel-admission",))
            for verb in ("get", "patch")
            for kind in configurations
        ),
    }
    own = ("edgemodel-admission-tls", "edgemodel-admission-verdicts")
    assert rules(objects, "Role", "edgemodel-admission") == {
        *((verb, "/secrets", own) for verb in ("get", "update")),
        *((verb, "edgemodel.dev/trustexceptions", ()) for verb in ("get", "list", "watch")),
        ("get", "/configmaps", ()),
        ("get", "/secrets", ("public-a", "public-b", "site-registry")),
    }


def test_the_webhook_cannot_read_the_private_key(objects: Objects) -> None:
    signing = yaml.safe_load((CHART / "values.yaml").read_text())["signing"]["secretNames"]
    assert all(not {*signing} & {*names} for _, _, names in rules(objects, "Role", "edgemodel-admission"))
