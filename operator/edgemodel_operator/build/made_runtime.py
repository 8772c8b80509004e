"""Runtime images that Jobs make from a Dockerfile, each on a node of its architecture.

One Job makes the image of one platform and pushes it, by digest alone, to the repository of the model. The
build of the model's image then takes it from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.access import (
    context_access,
    make_allowance,
    make_destination,
    open_store,
    reach,
)
from edgemodel_operator.build.dockerfile.from_request import runtime_of_dockerfile_here
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.publish import Publisher
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.runtime import RuntimeChild, read_runtime
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import parse_reference


async def make_runtime(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Make and push the runtime image of the platform of this machine; the result names it.

    `work` is a folder of its own. Raises BuildError whose failure names the step.
    """
    async with open_store(request) as store:
        with reporter.step(Step.RESOLVE):
            allowance = make_allowance(request, reporter)
            destination = make_destination(request, store)
            platforms = tuple(platform.value for platform in request.image.platforms)
            published = PublishedRuntime(
                store, destination.runtime, await read_runtime(store, destination.runtime, platforms)
            )
            await reach(destination, request.build_key)
        with reporter.step(Step.DOCKERFILE):
            context = context_access(request)
            child = await runtime_of_dockerfile_here(request, published, allowance, context, work)
        with reporter.step(Step.PUSH):
            publisher = Publisher(destination, reporter.bytes)
            await publisher.publish_runtime(child)
    return BuildResult(
        index_digest=child.digest,
        image=str(destination.target.with_digest(child.digest)),
        platforms=(str(child.platform),),
        report=ModelReport(),
        build_key=request.build_key,
        bytes_pushed=publisher.sent,
        seconds=reporter.seconds,
    )


async def read_made_runtimes(store: ImageStore, images: Sequence[str]) -> tuple[RuntimeChild, ...]:
    """Read what Jobs have made, `name@sha256:…` each, sorted by platform. Raises BuildError."""
    children = [child for image in images for child in await read_runtime(store, parse_reference(image), ())]
    return tuple(sorted(children, key=lambda child: str(child.platform)))
