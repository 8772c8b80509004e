"""The policies that bind the operator's account, for a real API server, and all that the operator renders.

They get names and an account of their own, so that an installed product is not concerned.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cluster.tools import tool
from edgemodel_operator.api.edgemodel_status import Revision
from edgemodel_operator.build.jobs.manifest import make_job
from edgemodel_operator.core.manifests.daemonset import daemonsets
from edgemodel_operator.core.manifests.service import golden_copy, service
from edgemodel_operator.core.placement import CPU_CLASS
from edgemodel_operator.core.revision import golden_name, make_revision
from edgemodel_operator.core.world import Model
from edgemodel_operator.settings import BuildahSettings, BuildSettings
from support.build_jobs import BUILDAH, CONTEXT, SETTINGS, job_plan, runtime_plans, with_dockerfile
from support.builders import make_class, make_model
from support.chart import render_chart

Json = dict[str, Any]
RELEASE = "operator-policies-release"
"""Stands for the release namespace: its account is the operator."""
NAMESPACE = "operator-policies"
OPERATOR = (f"--as=system:serviceaccount:{RELEASE}:edgemodel-operator", "--as-group=system:masters")
"""With every right: what is refused is refused by the policies."""
ROOTLESS = SETTINGS.model_copy(update={"buildah": BuildahSettings(image=BUILDAH)})
IN_USER_NAMESPACE = SETTINGS.model_copy(
    update={"buildah": BuildahSettings(image=BUILDAH, user_namespaces=True)}
)


def policies(stands_for: str = "", **buildah: Any) -> list[Json]:
    """Render the policies under names of these tests; `stands_for` keeps two renderings apart."""
    release = RELEASE + stands_for
    values = {"builds": {"buildah": buildah}} if buildah else {}
    rendered = render_chart(tool("helm"), values, ("--namespace", release))
    chosen = [
        document
        for (kind, name), document in rendered.items()
        if kind.startswith("ValidatingAdmissionPolicy")
        and name in {"edgemodel-operator-children", "edgemodel-operator-pods"}
    ]
    text = json.dumps(chosen)
    for name in ("children", "pods"):
        text = text.replace(f"edgemodel-operator-{name}", f"{release}-{name}")
    documents: list[Json] = json.loads(text)
    return documents


def with_buildah() -> tuple[str, ...]:
    """Give the account of an operator whose values name an image for Buildah."""
    return (OPERATOR[0].replace(RELEASE, f"{RELEASE}-buildah"), OPERATOR[1])


# --- what the operator renders --------------------------------------------------------------------------

IMAGE = f"registry.plant-a.local:5000/models/line@sha256:{'a' * 64}"
IMAGES = {"onnxruntime-cpu": IMAGE, "onnxruntime-npu": IMAGE}
GOLDEN_TEXT = '{"inputs": []}'
EXCLUSIVE = make_class(env={"NPU_CACHE": "1"})
EXCLUSIVE = EXCLUSIVE.model_copy(
    update={"pod": EXCLUSIVE.pod.model_copy(update={"runtime_class_name": "npu"})}
)
BUILDER = (
    make_model()
    .on("npu", "cpu")
    .with_golden()
    .with_("image.pullSecrets", [{"name": "site"}])
    .with_("serving", {"ports": {"http": 9090, "grpc": 9091}})
)
MODEL = Model(NAMESPACE, "line", "00000000-0000-0000-0000-000000000000", 1, BUILDER.build())


def revision() -> Revision:
    """Give a revision with all that a class and a model can ask of pods."""
    classes = {"npu": EXCLUSIVE, "cpu": CPU_CLASS}
    return make_revision(MODEL.name, MODEL.spec, classes, IMAGES, GOLDEN_TEXT)


def build(settings: BuildSettings, *, of_runtime: bool = False) -> Json:
    """Give a build Job to which everything is lent that can be; no controller moves it."""
    if of_runtime:
        plan = runtime_plans(with_dockerfile("Buildah", CONTEXT), settings)[0]
    else:
        plan = replace(
            job_plan(),
            registries=("site",),
            secrets=("s3",),
            config_maps=("entries",),
            claims=("models",),
            pull_secrets=("site",),
        )
    document = make_job(replace(plan, namespace=NAMESPACE), settings)
    document["spec"]["suspend"] = True
    return document


SERVE, PREFETCH, SHARED = daemonsets(MODEL, revision(), {})
GOLDEN = golden_copy(MODEL, golden_name(MODEL.name, GOLDEN_TEXT), GOLDEN_TEXT)
SERVICE = service(MODEL)
JOB = build(SETTINGS)
CHILDREN = {
    "serve, exclusive, all wiring": SERVE,
    "prefetch": PREFETCH,
    "serve, shared": SHARED,
    "golden": GOLDEN,
    "service": SERVICE,
}
JOBS = {
    "image": (OPERATOR, JOB),
    "runtime": (with_buildah(), build(ROOTLESS, of_runtime=True)),
    "runtime in a user namespace": (with_buildah(), build(IN_USER_NAMESPACE, of_runtime=True)),
}


def copied(document: Json) -> Json:
    """Give a copy that may be changed."""
    return copy.deepcopy(document)


def pod(document: Json) -> Json:
    """Give the pod of a workload."""
    spec: Json = document["spec"]["template"]["spec"]
    return spec


# --- what may be changed of it --------------------------------------------------------------------------


def set_(path: str, value: Any) -> Callable[[Json], None]:
    """Set one field by its dotted path; a number is the place in a list."""

    def change(document: Json) -> None:
        *parents, last = path.split(".")
        place: Any = document
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        place[last] = value

    return change


def add(path: str, value: Any) -> Callable[[Json], None]:
    """Add to the list at a dotted path."""

    def change(document: Json) -> None:
        place: Any = document
        for name in path.split("."):
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, [])
        place.append(value)

    return change
