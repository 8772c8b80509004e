"""The policies that bind the operator's account: whom they bind, to what, and what the values loosen."""

from __future__ import annotations

from typing import Any

import pytest

from edgemodel_operator.api.names import FIELD_MANAGER
from support.chart import NAMESPACE, Objects, Render, rules

BOTH = ["edgemodel-operator-children", "edgemodel-operator-pods"]
BUILDAH = f"registry.plant-a.local:5000/edgemodel/buildah@sha256:{'a' * 64}"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
OF_ANOTHER_KIND = {
    # Reports, and the product's own kinds.
    *("/events", "events.k8s.io/events"),
    *("edgemodel.dev/edgemodels", "edgemodel.dev/edgemodels/status", "edgemodel.dev/edgemodels/finalizers"),
    *("edgemodel.dev/acceleratorclasses", "edgemodel.dev/trustpolicies/status"),
    # By the policy edgemodel-operator-nodes.
    "/nodes",
}


def policy(objects: Objects, name: str) -> dict[str, Any]:
    """Give the spec of a policy."""
    spec: dict[str, Any] = objects["ValidatingAdmissionPolicy", name]["spec"]
    return spec


def bound(objects: Objects, name: str) -> set[str]:
    """Give the kinds that a policy judges, as group/resource."""
    return {
        f"{group}/{resource}"
        for rule in policy(objects, name)["matchConstraints"]["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize("name", BOTH)
def test_they_bind_the_operator_alone_and_fail_closed(objects: Objects, name: str) -> None:
    spec = policy(objects, name)
    assert spec["failurePolicy"] == "Fail"
    account = f'"system:serviceaccount:{NAMESPACE}:{FIELD_MANAGER}"'
    assert spec["matchConditions"][0]["expression"] == f"request.userInfo.username == {account}"
    binding = objects["ValidatingAdmissionPolicyBinding", name]["spec"]
    assert binding == {"policyName": name, "validationActions": ["Deny"]}


def test_every_right_to_write_in_other_namespaces_is_judged(render: Render) -> None:
    objects = render({"modelNamespaces": ["plant-a"]})
    roles = [("ClusterRole", "edgemodel-operator"), ("Role", "plant-a/edgemodel-operator-builds")]
    written = {what for role in roles for verb, what, _ in rules(objects, *role) if verb in WRITES}
    assert written - OF_ANOTHER_KIND == bound(objects, "edgemodel-operator-children")
    assert bound(objects, "edgemodel-operator-pods") == {"apps/daemonsets", "batch/jobs"}


@pytest.mark.parametrize(
    ("buildah", "unconfined", "root"),
    [
        ({}, "false", "false"),
        (None, "false", "false"),
        ({"image": BUILDAH}, "true", "false"),
        ({"userNamespaces": True}, "false", "false"),
        ({"image": BUILDAH, "userNamespaces": True}, "true", "true"),
    ],
)
def test_only_the_values_give_builds_the_rights_of_buildah(
    render: Render, buildah: dict[str, Any] | None, unconfined: str, root: str
) -> None:
    variables = policy(render({"builds": {"buildah": buildah}}), "edgemodel-operator-pods")["variables"]
    expressions = {one["name"]: one["expression"] for one in variables}
    assert expressions["unconfined"] == f"variables.builds && {unconfined}"
    assert expressions["root"].startswith(f"variables.builds && {root} && ")
