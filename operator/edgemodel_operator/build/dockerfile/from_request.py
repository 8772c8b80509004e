"""From a build request to the runtime that its Dockerfile makes."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from edgemodel_operator.api.image import Builder, Dockerfile
from edgemodel_operator.build.dockerfile.buildah_build import build_runtime_here
from edgemodel_operator.build.dockerfile.docker_build import build_runtime
from edgemodel_operator.build.dockerfile.inputs import DockerfileBuild, PublishedRuntime
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.layout import COMPRESSORS
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.runtime import RuntimeChild, runtime_failure
from edgemodel_operator.build.sources import fetch_folder
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.oci.errors import RegistryError

_OWNER_LENGTH = 16
_log = logging.getLogger("edgemodel.build.dockerfile")


async def runtime_of_dockerfile(
    request: BuildRequest,
    published: PublishedRuntime,
    allowance: Allowance,
    access: SourceAccess,
    work: Path,
) -> tuple[RuntimeChild, ...]:
    """Fetch the context, and have the runtime image of every platform made from it on the published one.

    Raises BuildError.
    """
    build = await _prepare(request, Builder.DOCKER, allowance, access, work)
    try:
        return await build_runtime(build, published, request.docker, work)
    except RegistryError as error:
        raise runtime_failure(published.reference, error) from error


async def runtime_of_dockerfile_here(
    request: BuildRequest,
    published: PublishedRuntime,
    allowance: Allowance,
    access: SourceAccess,
    work: Path,
) -> RuntimeChild:
    """Fetch the context, and make the runtime image of this machine's platform from it, in a Job of Buildah.

    Raises BuildError.
    """
    build = await _prepare(request, Builder.BUILDAH, allowance, access, work)
    try:
        return await build_runtime_here(build, published, request.buildah, work)
    except RegistryError as error:
        raise runtime_failure(published.reference, error) from error


async def _prepare(
    request: BuildRequest, builder: Builder, allowance: Allowance, access: SourceAccess, work: Path
) -> DockerfileBuild:
    dockerfile = _dockerfile(request, builder)
    folder = work / "context"
    folder.mkdir()
    return DockerfileBuild(
        files=await fetch_folder(dockerfile.context, folder, allowance, access),
        dockerfile=dockerfile.path,
        arguments=dockerfile.args,
        owner=_owner(request),
        compressor=COMPRESSORS[request.image.compression],
        on_line=_log.info,
    )


def _owner(request: BuildRequest) -> str:
    """Name the build on the engines: two models that are alike may be built there at the same time."""
    identity = f"{request.build_key} {request.image.repository}"
    return hashlib.sha256(identity.encode()).hexdigest()[:_OWNER_LENGTH]


def _dockerfile(request: BuildRequest, builder: Builder) -> Dockerfile:
    if request.image.dockerfile is None:
        raise ValueError("the type of the image asks for a Dockerfile with this builder")
    if request.image.builder is not builder:
        raise fail(
            Reason.INVALID_REQUEST,
            f"A Dockerfile with `builder: {request.image.builder}` is built by Jobs in the cluster: "
            "elsewhere write `builder: Docker`.",
        )
    return request.image.dockerfile
