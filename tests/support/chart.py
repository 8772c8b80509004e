"""Renders the chart with helm, as objects by kind and name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from edgemodel_operator.settings import Settings, load_settings

CHART = Path(__file__).parents[2] / "charts" / "edgemodel-operator"
NAMESPACE = "edgemodel-system"

Objects: TypeAlias = dict[tuple[str, str], dict[str, Any]]
"""Rendered objects by kind and name; in other namespaces than the release's the name is `namespace/name`."""
Render: TypeAlias = Callable[..., Objects]


class HelmError(Exception):
    """Helm refused to render; the text is what it said."""


def render_chart(
    helm: Path, values: dict[str, Any], arguments: Sequence[str] = (), release: str = "release"
) -> Objects:
    """Render the chart; raises HelmError."""
    process = subprocess.run(
        [str(helm), "template", release, str(CHART), "-n", NAMESPACE, *arguments, "--values", "-"],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if process.returncode:
        raise HelmError(process.stderr)
    objects: Objects = {}
    for document in filter(None, yaml.safe_load_all(process.stdout)):
        name = document["metadata"]["name"]
        if document["metadata"].get("namespace") not in {None, NAMESPACE}:
            name = f"{document['metadata']['namespace']}/{name}"
        if (document["kind"], name) in objects:
            raise HelmError(f"{document['kind']} {name} is rendered twice")
        objects[document["kind"], name] = document
    return objects


def render_notes(helm: Path, values: dict[str, Any]) -> str:
    """Give what helm tells whoever installs the chart; raises HelmError."""
    arguments = ["install", "release", str(CHART), "-n", NAMESPACE, "--dry-run=client", "--values", "-"]
    process = subprocess.run(
        [str(helm), *arguments],
        input=yaml.safe_dump(values),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if process.returncode:
        raise HelmError(process.stderr)
    return process.stdout.partition("NOTES:")[2]


def rendered_settings(objects: Objects, folder: Path) -> Settings:
    """Read the rendered configuration as the programs do; `folder` is for the file."""
    path = folder / "config.yaml"
    path.write_text(objects["ConfigMap", "edgemodel-config"]["data"]["config.yaml"])
    return load_settings({"EDGEMODEL_CONFIG": str(path), "POD_NAMESPACE": NAMESPACE, "POD_NAME": "x"})


def rules(objects: Objects, kind: str, name: str) -> set[tuple[str, str, tuple[str, ...]]]:
    """Flatten a role to (verb, group/resource, resource names)."""
    return {
        (verb, f"{group}/{resource}", tuple(rule.get("resourceNames", ())))
        for rule in objects[kind, name]["rules"]
        for verb in rule["verbs"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }
