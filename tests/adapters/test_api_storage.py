"""What a real API server makes of our objects: defaults, status, shared fields, columns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cluster.base import Cluster
from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec
from edgemodel_operator.api.base import Schema
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.names import API_VERSION, VERSION
from edgemodel_operator.api.trustpolicy import TrustPolicySpec
from support.own_group import (
    GROUP,
    MINIMAL,
    MODELS,
    NAMESPACE,
    NAMESPACED,
    REPOSITORY,
    SHA256,
    Json,
    apply,
    changed,
    make,
)

pytestmark = pytest.mark.needs("api")

EXAMPLES = Path(__file__).parents[2] / "examples"


def apply_as(api: Cluster, manager: str, spec: Json) -> Json:
    """Apply the fields of one manager server-side."""
    return apply(api, make("EdgeModel", spec, "shared"), "--server-side", f"--field-manager={manager}")


@pytest.mark.parametrize(
    ("kind", "parse"),
    [
        ("EdgeModel", EdgeModelSpec),
        ("AcceleratorClass", AcceleratorClassSpec),
        ("TrustPolicy", TrustPolicySpec),
    ],
)
def test_the_server_fills_in_the_defaults_of_the_types(api: Cluster, kind: str, parse: type[Schema]) -> None:
    stored = apply(api, make(kind, MINIMAL[kind]), "--dry-run=server")["spec"]

    assert stored == parse.model_validate(MINIMAL[kind]).to_raw()
    assert parse.model_validate(stored) == parse.model_validate(MINIMAL[kind])


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_the_server_accepts_the_examples(api: Cluster, example: str) -> None:
    text = (EXAMPLES / example).read_text(encoding="utf-8").replace(API_VERSION, f"{GROUP}/{VERSION}")
    for document in yaml.safe_load_all(text):
        if "namespace" in document["metadata"]:
            document["metadata"]["namespace"] = NAMESPACE
        apply(api, document, "--dry-run=server")


def test_the_status_is_written_through_its_own_door_only(api: Cluster) -> None:
    name = "doors"
    document = make("EdgeModel", MINIMAL["EdgeModel"], name)
    created = apply(api, document | {"status": {"version": "made up"}})
    assert "version" not in created.get("status", {})

    place = (MODELS, name, "--namespace", NAMESPACE)
    both = {"spec": {"model": {"version": "2"}}, "status": {"version": "1", "observedGeneration": 1}}
    api.kubectl("patch", *place, "--subresource=status", "--type=merge", "--patch", json.dumps(both))
    observed = api.kubectl_json("get", *place)
    assert observed["spec"] == created["spec"]
    assert observed["metadata"]["generation"] == created["metadata"]["generation"]
    assert observed["status"]["version"] == "1"

    updated = apply(api, make("EdgeModel", changed(MINIMAL["EdgeModel"], "model.version", "2"), name))
    assert updated["metadata"]["generation"] == created["metadata"]["generation"] + 1
    assert updated["status"] == observed["status"]


def test_two_managers_share_the_ladder(api: Cluster) -> None:
    spec = MINIMAL["EdgeModel"]
    apply_as(api, "platform", spec)

    merged = apply_as(api, "plant", {"targets": [{"accelerator": "plant-npu"}]})
    assert merged["spec"]["targets"] == [{"accelerator": "cpu"}, {"accelerator": "plant-npu"}]

    apply_as(api, "platform", changed(spec, "model.version", "2"))
    left = apply_as(api, "plant", {})
    assert left["spec"]["targets"] == [{"accelerator": "cpu"}]
    assert left["spec"]["model"]["version"] == "2"


@pytest.mark.parametrize(
    ("plural", "short", "namespaced"),
    [("edgemodels", "em", "true"), ("acceleratorclasses", "acc", "false"), ("trustpolicies", "tp", "false")],
)
def test_each_kind_has_a_short_name(api: Cluster, plural: str, short: str, namespaced: str) -> None:
    rows = api.kubectl("api-resources", f"--api-group={GROUP}", "--no-headers").splitlines()

    assert [plural, short, f"{GROUP}/{VERSION}", namespaced] in [row.split()[:4] for row in rows]


def test_get_shows_how_far_a_model_is(api: Cluster) -> None:
    name = "columns"
    apply(api, make("EdgeModel", MINIMAL["EdgeModel"], name))
    status = {
        "version": "1",
        "currentRevision": "0123456789",
        "nodes": {"summary": "2/3"},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "RollingOut",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    place = ("--namespace", NAMESPACE)
    api.kubectl(
        "patch", MODELS, name, *place, "--subresource=status", "--type=merge",
        "--patch", json.dumps({"status": status}),
    )  # fmt: skip

    header, row = api.kubectl("get", MODELS, name, *place).splitlines()
    assert header.split() == ["NAME", "READY", "REVISION", "NODES", "VERSION", "AGE"]
    assert row.split()[:5] == [name, "False", "0123456789", "2/3", "1"]

    header, row = api.kubectl("get", MODELS, name, *place, "-o", "wide").splitlines()
    assert header.split()[5] == "REASON"
    assert row.split()[5] == "RollingOut"


@pytest.mark.parametrize(
    ("kind", "resource", "columns", "values"),
    [
        (
            "AcceleratorClass",
            f"acceleratorclasses.{GROUP}",
            ["NAME", "RUNTIME", "PROVIDER", "RESOURCE", "SHARING", "AGE"],
            ["onnxruntime-cpu", "CPUExecutionProvider"],
        ),
        (
            "TrustPolicy",
            f"trustpolicies.{GROUP}",
            ["NAME", "MODE", "READY", "CHECKED", "UNTRUSTED", "AGE"],
            ["Enforce"],
        ),
        (
            "TrustException",
            f"trustexceptions.{GROUP}",
            ["NAME", "IMAGES", "EXPIRES", "REASON", "AGE"],
            [f'["{REPOSITORY}@sha256:{SHA256}"]', "2027-01-31T00:00:00Z"],
        ),
    ],
)
def test_get_shows_classes_and_policies(
    api: Cluster, kind: str, resource: str, columns: list[str], values: list[str]
) -> None:
    apply(api, make(kind, MINIMAL[kind], "shown"))

    where = ("--namespace", NAMESPACE) if kind in NAMESPACED else ()
    header, row = api.kubectl("get", resource, "shown", *where).splitlines()

    assert header.split() == columns
    assert row.split()[1 : 1 + len(values)] == values
