"""Revisions: the hash of everything that decides what a pod of the model is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType

from edgemodel_operator.api.acceleratorclass import AcceleratorClassSpec, Sharing
from edgemodel_operator.api.edgemodel import EdgeModelSpec
from edgemodel_operator.api.edgemodel_status import Revision, RevisionTarget
from edgemodel_operator.api.model import ModelFormat
from edgemodel_operator.api.names import child_name
from edgemodel_operator.core.server_options import runtime_options, serving_options

TEMPLATE_VERSION = 1
"""Raised when the pod template of `manifests` changes, so that the change is rolled out in waves."""


def make_revision(
    name: str,
    spec: EdgeModelSpec,
    classes: Mapping[str, AcceleratorClassSpec],
    images: Mapping[str, str],
    golden_text: str,
    platforms: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
) -> Revision:
    """Give the revision that a spec asks for.

    `classes` holds every class of the ladder, each with a runtime for the model's format; `images` has the
    image (by digest) of every runtime variant, `platforms` what it holds, where that is known.
    """
    draft = Revision(
        name="",
        model_version=spec.model.version,
        targets=tuple(
            _target(target.accelerator, classes[target.accelerator], spec.model.format, images, platforms)
            for target in spec.targets
        ),
        golden_config_map=golden_name(name, golden_text) if spec.health.golden else "",
        golden_tolerance=spec.health.golden.tolerance if spec.health.golden else "",
        require_accelerator=spec.health.require_accelerator,
        http_port=spec.serving.ports.http,
        grpc_port=spec.serving.ports.grpc,
        server_options=serving_options(spec.serving),
        pull_secrets=tuple(secret.name for secret in spec.image.pull_secrets),
    )
    return draft.model_copy(update={"name": _hash(draft)})


def _target(
    name: str,
    spec: AcceleratorClassSpec,
    model_format: ModelFormat,
    images: Mapping[str, str],
    platforms: Mapping[str, tuple[str, ...]],
) -> RevisionTarget:
    runtime = spec.runtime_for(model_format)
    if runtime is None:
        raise ValueError(f"the class {name} has no runtime for {model_format}: the chain should have held")
    return RevisionTarget(
        accelerator=name,
        image=images[runtime.variant],
        provider=runtime.provider,
        runtime_options=runtime_options(runtime),
        exclusive=spec.sharing is Sharing.EXCLUSIVE,
        extended_resource=spec.match.extended_resource,
        runtime_class_name=spec.pod.runtime_class_name,
        env={item.name: item.value for item in spec.pod.env},
        platforms=platforms.get(runtime.variant, ()),
    )


def golden_name(model: str, text: str) -> str:
    """Name the immutable copy of a golden sample by its content."""
    return child_name(model, "golden", hashlib.sha256(text.encode()).hexdigest()[:10])


def _hash(draft: Revision) -> str:
    told_by_the_image = {"targets": {"__all__": {"platforms"}}}
    fields = draft.model_dump(mode="json", exclude={"name": True, **told_by_the_image})
    document = {"template": TEMPLATE_VERSION, **fields}
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def digest_of(image: str) -> str:
    """Give the digest of `name@sha256:…`."""
    return image.rpartition("@")[2]
