"""What the image of a Dockerfile must keep to run as a model pod: `images/CONTRACT.md`. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from edgemodel_operator.build.layout import MODEL_ROOT
from edgemodel_operator.oci.descriptor import Platform

RUNTIME_LABEL = "dev.edgemodel.runtime"
"""Which runtime an image carries."""

_USER = re.compile(r"^[1-9][0-9]*(:[1-9][0-9]*)?$")


def broken_promises(config: Mapping[str, Any], base: Mapping[str, Any], wanted: Platform) -> tuple[str, ...]:
    """Say, in clauses, how an image configuration breaks the contract; nothing: it keeps it.

    `base` is the configuration of the published runtime image. Only what a configuration says is judged: what
    the files do is seen when the pod is tried.
    """
    return tuple(_breaches(config, base, wanted))


def _breaches(config: Mapping[str, Any], base: Mapping[str, Any], wanted: Platform) -> Iterator[str]:
    container, before = _container(config), _container(base)
    made_for = (config.get("os"), config.get("architecture"))
    if made_for != (wanted.os, wanted.architecture):
        yield f"it is for {made_for[0]}/{made_for[1]}: build it on an engine for {wanted}"
    user = str(container.get("User") or "")
    if not _USER.match(user):
        usual = before.get("User") or "65532:65532"
        yield f"its user is {user or 'root'!r}: end the Dockerfile with `USER {usual}`"
    if not container.get("Entrypoint"):
        yield "it has no entrypoint: build FROM ${RUNTIME_IMAGE}, or start edgemodel_server in ENTRYPOINT"
    runtime = (before.get("Labels") or {}).get(RUNTIME_LABEL)
    if runtime and (container.get("Labels") or {}).get(RUNTIME_LABEL) != runtime:
        yield f"it lacks the label {RUNTIME_LABEL}={runtime}: build FROM ${{RUNTIME_IMAGE}}, or set the label"
    hiding = [path for path in container.get("Volumes") or () if _hides_models(path)]
    if hiding:
        yield f"its volume {hiding[0]} would hide the model: take `VOLUME {hiding[0]}` out"


def _container(config: Mapping[str, Any]) -> Mapping[str, Any]:
    container = config.get("config")
    return container if isinstance(container, Mapping) else {}


def _hides_models(path: str) -> bool:
    return path.strip("/").partition("/")[0] in {"", MODEL_ROOT}
