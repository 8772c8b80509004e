"""The image registry: Debian's docker-registry beside the control plane, plain HTTP."""

from __future__ import annotations

import yaml

from cluster.namespaces import CONTROL_PLANE, inside
from cluster.places import REGISTRY, STATE
from cluster.processes import Unit, start

PROGRAM = "registry"


def start_registry() -> None:
    """Start the registry on an empty folder of its own."""
    folder = STATE / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    configuration = {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": REGISTRY},
    }
    path = STATE / "registry.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    start(Unit(CONTROL_PLANE, PROGRAM), inside(CONTROL_PLANE, ["docker-registry", "serve", str(path)]))
