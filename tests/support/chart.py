"""Renders the chart with helm, as objects by kind and name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

CHART = Path(__file__).parents[2] / "charts" / "edgemodel-operator"
NAMESPACE = "edgemodel-system"

Objects: TypeAlias = dict[tuple[str, str], dict[str, Any]]
"""Rendered objects by kind and name; in other namespaces than the release's the name is `namespace/name`."""
Render: TypeAlias = Callable[..., Objects]


class HelmError(Exception):
    """Helm refused to render; the text is what it said."""


def render_chart(helm: Path, values: dict[str, Any], arguments: Sequence[str] = ()) -> Objects:
    """Render the chart; raises HelmError."""
    process = subprocess.run(
        [str(helm), "template", "release", str(CHART), "-n", NAMESPACE, *arguments, "--values", "-"],
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
