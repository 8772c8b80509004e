"""Which builds run in a Job, in which image, and with what of the namespace. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from enum import StrEnum

from edgemodel_operator.api.image import Builder, PlatformName
from edgemodel_operator.api.model import Conversion
from edgemodel_operator.api.names import GROUP, child_name, model_key, short
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.core.supply import SupplyJob
from edgemodel_operator.settings import BuildMode, BuildSettings

LABEL_BUILD_OF = f"{GROUP}/build-of"
"""The model key. Not the label of the model's own pods: nothing of a build is part of the fleet."""
LABEL_VARIANT = f"{GROUP}/variant"
LABEL_STEP = f"{GROUP}/build-step"
NAME_LIMIT = 57
"""Leaves room for the suffix of the pod's name within a label value (63)."""
MAX_REQUEST_BYTES = 200 * 1024
"""Of a request; it is an annotation of the pod, and all of these may have 256 KiB together."""


class JobStep(StrEnum):
    """What a Job makes; the value is a label of the Job and an argument of the worker."""

    IMAGE = "image"
    """The image of the model."""
    RUNTIME = "runtime"
    """From a Dockerfile, the runtime image of one platform: on a node of its architecture."""


@dataclass(frozen=True)
class JobPlan:
    """One build as a Job: everything that its manifest is made from, without any secret."""

    namespace: str
    model_name: str
    uid: str
    """Of the EdgeModel, with which the Job goes."""
    variant: str
    image: str
    """By digest; its entry point is that of the operator's image."""
    request: str
    """For the worker, as JSON."""
    registries: tuple[str, ...] = ()
    """Secrets with registry logins; of two for one host the later counts."""
    secrets: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    """With which the node pulls the image of the Job."""
    step: JobStep = JobStep.IMAGE
    architecture: str = ""
    """That the node must have; empty: any."""

    @property
    def name(self) -> str:
        """The name of the Job: the same for the same build, on every try and after every restart."""
        document = [self.uid, self.image, self.request, self.step, self.architecture, self.registries]
        text = json.dumps(document, separators=(",", ":"))
        identity = hashlib.sha256(text.encode()).hexdigest()[:10]
        return child_name(self.model_name, "build", identity, limit=NAME_LIMIT)

    @property
    def labels(self) -> dict[str, str]:
        """The labels by which the Jobs of this model, runtime variant and step are found."""
        step = "-".join(filter(None, (self.step, self.architecture)))
        return {**job_labels(self.namespace, self.model_name, self.variant), LABEL_STEP: step}

    @property
    def where(self) -> str:
        """Name the Job for people."""
        return f"Job {self.namespace}/{self.name}"


def job_labels(namespace: str, model_name: str, variant: str) -> dict[str, str]:
    """Give the labels by which all Jobs of one model and runtime variant are found."""
    return {LABEL_BUILD_OF: model_key(namespace, model_name), LABEL_VARIANT: short(variant, 63)}


def plan_job(job: SupplyJob, request: BuildRequest, settings: BuildSettings) -> JobPlan | None:
    """Plan the Job of a build; None if it runs in a process of the operator. Raises BuildError.

    `request` has no credentials: the worker finds them mounted.
    """
    image = _image(job, settings)
    if image is None:
        return None
    source = job.model.source
    plan = _plan(job, request, settings, image)
    return replace(
        plan,
        config_maps=(source.config_map.name,) if source.config_map else (),
        claims=(source.pvc.claim_name,) if source.pvc else (),
    )


def plan_runtime_jobs(job: SupplyJob, request: BuildRequest, settings: BuildSettings) -> tuple[JobPlan, ...]:
    """Plan the Jobs that make the runtime from a Dockerfile with Buildah, one for each platform.

    None for other builders. Raises BuildError.
    """
    if job.image.builder is not Builder.BUILDAH:
        return ()
    if not settings.buildah.image:
        raise fail(
            Reason.ENGINE_NOT_CONFIGURED,
            "`builder: Buildah` needs an image: name it, by digest, in `builds.buildah.image` of the "
            "operator's chart.",
        )
    plan = _plan(job, request, settings, settings.buildah.image)
    platforms = job.image.platforms or tuple(PlatformName)
    return tuple(
        replace(plan, step=JobStep.RUNTIME, architecture=platform.value.partition("/")[2])
        for platform in platforms
    )


def _plan(job: SupplyJob, request: BuildRequest, settings: BuildSettings, image: str) -> JobPlan:
    text = request.model_dump_json(by_alias=True)
    if len(text.encode()) > MAX_REQUEST_BYTES:
        raise fail(
            Reason.INVALID_REQUEST,
            f"The spec is too large for a build in a Job: {len(text)} of {MAX_REQUEST_BYTES} bytes.",
        )
    logins, secrets = _source_secrets(job)
    push_secret = (job.push_secret,) if job.push_secret else ()
    return JobPlan(
        namespace=job.namespace,
        model_name=job.model_name,
        uid=job.uid,
        variant=job.variant,
        image=image,
        request=text,
        registries=(*logins, *job.pull_secrets, *push_secret),
        secrets=secrets,
        pull_secrets=tuple(dict.fromkeys((*job.pull_secrets, *settings.image_pull_secrets))),
    )


def _source_secrets(job: SupplyJob) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give the Secrets that the sources of model and Dockerfile name: registry logins, and others."""
    named = [(job.model.source, job.source_secret)]
    if job.image.dockerfile is not None:
        named.append((job.image.dockerfile.context, job.context_secret))
    logins = (secret for source, secret in named if secret and source.oci is not None)
    others = (secret for source, secret in named if secret and source.oci is None)
    return tuple(dict.fromkeys(logins)), tuple(dict.fromkeys(others))


def has_jobs(job: SupplyJob, settings: BuildSettings) -> bool:
    """Tell whether Jobs have a part in a build."""
    return (
        _needs_job(job)
        or job.image.builder is Builder.BUILDAH
        or (settings.mode is BuildMode.JOB and job.image.builder is not Builder.DOCKER)
    )


def _needs_job(job: SupplyJob) -> bool:
    return job.model.convert is not None or job.model.source.pvc is not None


def _image(job: SupplyJob, settings: BuildSettings) -> str | None:
    needs_job = _needs_job(job)
    if job.image.builder is Builder.DOCKER:
        if not needs_job:
            return None
        raise fail(
            Reason.INVALID_REQUEST,
            "With `builder: Docker` the operator builds by itself, but a `pvc` source and a conversion need "
            "a Job: give the model by another source, already converted.",
        )
    if job.model.convert is not None:
        return _converter(job.model.convert, settings)
    if not needs_job and settings.mode is BuildMode.PROCESS:
        return None
    if not settings.image:
        raise fail(
            Reason.JOB_IMAGE_NOT_CONFIGURED,
            "This build runs in a Job, whose image must be known by digest: set `image.digest` of the "
            "operator's chart.",
        )
    return settings.image


def _converter(conversion: Conversion, settings: BuildSettings) -> str:
    image = settings.converters.get(conversion.origin)
    if image is None:
        raise fail(
            Reason.CONVERTER_NOT_CONFIGURED,
            f"No image that converts {conversion.origin.value} is configured: name one, by digest, in "
            f"`builds.converters.{conversion.origin.value}` of the operator's chart, or convert the model "
            "before.",
        )
    return image
