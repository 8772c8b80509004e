"""One build from request to result, as a straight line of steps. Runs inside the worker process."""

from __future__ import annotations

from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.build.access import (
    context_access,
    make_allowance,
    make_destination,
    open_store,
    reach,
    source_access,
)
from edgemodel_operator.build.compare.outputs import prove_outputs
from edgemodel_operator.build.dockerfile.from_request import runtime_of_dockerfile
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.graft import Runtime, graft_image
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.layers import write_layers
from edgemodel_operator.build.layout import COMPRESSORS, ModelFacts, layer_entries
from edgemodel_operator.build.made_runtime import read_made_runtimes
from edgemodel_operator.build.origin.attach import Origin, attach_origin
from edgemodel_operator.build.origin.contents import Material, context_material
from edgemodel_operator.build.publish import Publisher
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.wanted import wanted_files
from edgemodel_operator.build.split import split_model
from edgemodel_operator.build.together import both
from edgemodel_operator.core.build_key import build_key


async def build_image(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Build the image that the request asks for; `work` is a folder of its own.

    Raises BuildError whose failure names the step.
    """
    async with open_store(request) as store:
        with reporter.step(Step.RESOLVE):
            allowance = make_allowance(request, reporter)
            destination = make_destination(request, store)
            platforms = tuple(platform.value for platform in request.image.platforms)
            runtime = await read_runtime(store, destination.runtime, platforms)
            await reach(destination, request.build_key)
        if request.image.dockerfile is not None:
            with reporter.step(Step.DOCKERFILE):
                if request.made_runtimes:
                    runtime = await read_made_runtimes(store, request.made_runtimes)
                else:
                    published = PublishedRuntime(store, destination.runtime, runtime)
                    context = context_access(request)
                    runtime = await runtime_of_dockerfile(request, published, allowance, context, work)
        with reporter.step(Step.DOWNLOAD):
            source, want = request.source, wanted_files(request.model)
            fetched = await fetch_source(source, want, work, allowance, source_access(request))
        inputs = request.inputs([file.sha256 for file in fetched.fetched])
        facts = ModelFacts(request.model_name, request.model, fetched.files[0].sha256, build_key(inputs))
        with reporter.step(Step.INSPECT):
            parts = await split_model(request.model.format, fetched.files, request.image.sharding, work)
            found, _ = await both(
                inspect_model(request.model.format, parts.skeleton, parts.pieces),
                prove_outputs(fetched.files, parts, work),
            )
        with reporter.step(Step.ASSEMBLE):
            compressor = COMPRESSORS[request.image.compression]
            layers = await write_layers(layer_entries(facts, parts), compressor, work)
            image = graft_image(facts, found, Runtime(inputs.runtime_digest, runtime), layers)
        with reporter.step(Step.PUSH):
            publisher = Publisher(destination, reporter.bytes)
            await publisher.publish(image, facts.build_key)
        with reporter.step(Step.DESCRIBE):
            origin = Origin(
                request,
                facts.build_key,
                runtime,
                fetched.fetched,
                parts.pieces,
                found,
                _materials(request),
            )
            await attach_origin(destination, image, origin)
    named = tuple(ModelFile(name=file.name, sha256=file.sha256, size=file.size) for file in fetched.fetched)
    report = found.model_copy(update={"files": named})
    digest = image.descriptor.digest
    return BuildResult(
        index_digest=digest,
        image=str(destination.target.with_digest(digest)),
        platforms=tuple(sorted(str(child.platform) for child in image.children)),
        report=report,
        build_key=facts.build_key,
        bytes_pushed=publisher.sent,
        seconds=reporter.seconds,
    )


def _materials(request: BuildRequest) -> tuple[Material, ...]:
    dockerfile = request.image.dockerfile
    return () if dockerfile is None else (context_material(dockerfile.context),)
