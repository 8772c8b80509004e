"""Which values the chart takes, and which it refuses with what words."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.chart import CHART, HelmError, Render, render_chart, rendered_settings

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ({"unknown": 1}, "unknown"),
        ({"image": {"repository": "nohost"}}, "repository"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"runtimes": {"x": "registry.example.com/x:1"}}, "runtimes"),
        ({"registries": {"plainHttp": ["http://registry"]}}, "plainHttp"),
        ({"sources": {"maxBytes": 0}}, "maxBytes"),
        ({"sources": {"deniedNetworks": ["10.0.0.0"]}}, "deniedNetworks"),
        ({"sources": {"deniedNetworks": ["10.43.0.0/33"]}}, "deniedNetworks"),
        ({"sources": {"deniedNetworks": ["10.43.7.9/16"]}}, "10.43.7.9/16, which has bits of a host"),
        ({"sources": {"allowedNetworks": ["10.43.7.9/31"]}}, "10.43.7.9/31, which has bits of a host"),
        ({"signing": {"secretNames": [""]}}, "secretNames"),
        ({"modelNamespaces": ["Not A Name"]}, "modelNamespaces"),
        ({"modelNamespaces": [{"name": "plant-b", "secrets": []}]}, "modelNamespaces"),
        ({"modelNamespaces": ["plant-a", "plant-a"]}, "modelNamespaces"),
        ({"modelNamespaces": ["plant-b", {"name": "plant-b", "secrets": ["x"]}]}, "names plant-b twice"),
        ({"acceleratorClasses": [{"name": "x"}]}, "spec"),
        ({"acceleratorClasses": [{"name": "x", "spec": {"sharing": "Shared"}}]}, "runtimes"),
        ({"builds": {"mode": "Pod"}}, "mode"),
        ({"builds": {"resources": {"claims": []}}}, "claims"),
        ({"builds": {"converters": {"Keras": "registry.example.com/x:1"}}}, "converters"),
        ({"builds": {"converters": {"Caffe": f"registry.example.com/x@{DIGEST}"}}}, "Caffe"),
        ({"builds": {"buildah": {"image": "registry.example.com/buildah:1"}}}, "image"),
        ({"builds": {"docker": {"engines": {"linux/amd64": "engine:2376"}}}}, "engines"),
        ({"logLevel": "LOUD"}, "logLevel"),
        ({"operator": {"replicas": 2}}, "replicas"),
        ({"operator": {"podLabels": {"app.kubernetes.io/name": "x"}}}, "podLabels"),
        ({"signer": {"podLabels": {"edgemodel.dev/model": "x"}}}, "podLabels"),
        ({"admission": {"podAnnotations": {"edgemodel.dev/config-hash": "x"}}}, "podAnnotations"),
        ({"admission": {"replicas": 0}}, "replicas"),
        ({"admission": {"failurePolicy": "Ignore"}}, "failurePolicy"),
    ],
)
def test_values_that_make_no_sense_are_refused(render: Render, values: dict[str, Any], want: str) -> None:
    with pytest.raises(HelmError, match=re.escape(want)):
        render(values)


def test_every_value_has_a_schema_and_every_schema_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]
    schema.pop("global")
    assert values.keys() == schema.keys()
    for name, value in values.items():
        if schema[name].get("additionalProperties") is False:
            assert value.keys() == schema[name]["properties"].keys() - {"matchExpressions"}, name


@pytest.mark.parametrize("networks", [["0.0.0.0/0", "10.43.0.0/16", "10.43.7.9/32"], ["fd00::/8", "::1/128"]])
def test_networks_are_taken_as_they_are_written(render: Render, networks: list[str], tmp_path: Path) -> None:
    settings = rendered_settings(render({"sources": {"deniedNetworks": networks}}), tmp_path)
    assert settings.sources.denied_networks == tuple(networks)


def test_names_that_look_like_numbers_stay_texts(helm: Path) -> None:
    values = {
        "image": {"digest": DIGEST, "pullSecrets": [{"name": "12"}]},
        "trustPolicySecrets": ["34"],
        "modelNamespaces": ["56", {"name": "78", "secrets": ["90"]}],
        "builds": {"docker": {"tlsSecret": "11"}},
        "operator": {"priorityClassName": "13", "podLabels": {"app.kubernetes.io/created-by": "14"}},
        "nodeVerifier": {"enabled": True, "priorityClassName": "15"},
    }
    objects = render_chart(helm, values, ("--namespace", "123"), release="2027")
    for (kind, _), document in objects.items():
        if kind != "CustomResourceDefinition":
            kubernetes_validate.validate(document, "1.36", strict=True)
    assert objects["RoleBinding", "78/edgemodel-operator-secrets"]["subjects"][0]["namespace"] == "123"
