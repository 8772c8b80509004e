"""One build from request to result, as a straight line of steps. Runs inside the worker process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelFile, ModelReport
from edgemodel_operator.build.access import (
    context_access,
    make_allowance,
    make_destination,
    open_store,
    reach,
    source_access,
)
from edgemodel_operator.build.compare.outputs import prove_outputs
from edgemodel_operator.build.conversion import convert_model
from edgemodel_operator.build.dockerfile.inputs import PublishedRuntime
from edgemodel_operator.build.failures import Step
from edgemodel_operator.build.graft import GraftedImage, Runtime, graft_image
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.layers import write_layers
from edgemodel_operator.build.layout import COMPRESSORS, ModelFacts, layer_entries
from edgemodel_operator.build.operators import check_operators
from edgemodel_operator.build.origin.attach import Origin, attach_origin, origin_of
from edgemodel_operator.build.parts import ModelParts
from edgemodel_operator.build.publish import Publisher
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.runtime import RuntimeChild, read_runtime
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.fetched import FetchedSource
from edgemodel_operator.build.sources.wanted import wanted_files
from edgemodel_operator.build.split import split_model
from edgemodel_operator.build.together import both
from edgemodel_operator.core.build_key import build_key


async def build_image(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Build the image that the request asks for; `work` is a folder of its own.

    Raises BuildError whose failure names the step.
    """
    async with open_store(request) as store:
        build = _Build(request, work, reporter)
        with reporter.step(Step.RESOLVE):
            destination = make_destination(request, store)
            platforms = tuple(platform.value for platform in request.image.platforms)
            published = await read_runtime(store, destination.runtime, platforms)
            await reach(destination, request.build_key)
        runtime = await build.make_runtime(PublishedRuntime(store, destination.runtime, published))
        model = await build.make_model(runtime)
        with reporter.step(Step.ASSEMBLE):
            image = await build.assemble(model, runtime)
        with reporter.step(Step.PUSH):
            publisher = Publisher(destination, reporter.bytes)
            await publisher.publish(image, model.facts.build_key)
        with reporter.step(Step.DESCRIBE):
            documents = await attach_origin(destination, image, build.origin(model, runtime))
    fetched = model.source.fetched
    named = tuple(ModelFile(name=file.name, sha256=file.sha256, size=file.size) for file in fetched)
    digest = image.descriptor.digest
    return BuildResult(
        index_digest=digest,
        image=str(destination.target.with_digest(digest)),
        platforms=tuple(sorted(str(child.platform) for child in image.children)),
        report=model.report.model_copy(update={"files": named}),
        build_key=model.facts.build_key,
        documents=tuple(document.descriptor.digest for document in documents),
        bytes_pushed=publisher.sent,
        seconds=reporter.seconds,
    )


@dataclass(frozen=True)
class _Model:
    """The model on its way from source to image."""

    source: FetchedSource
    facts: ModelFacts
    parts: ModelParts
    report: ModelReport


@dataclass(frozen=True)
class _Build:
    """What all steps share."""

    request: BuildRequest
    work: Path
    reporter: Reporter

    async def make_runtime(self, published: PublishedRuntime) -> Sequence[RuntimeChild]:
        """Give the runtime below the model: the published one, or what a Dockerfile makes of it."""
        request = self.request
        if request.image.dockerfile is None:
            return published.children
        # What speaks to engines takes longer to import than most builds: not for those without a Dockerfile.
        from edgemodel_operator.build.dockerfile.from_request import runtime_of_dockerfile  # noqa: PLC0415
        from edgemodel_operator.build.made_runtime import read_made_runtimes  # noqa: PLC0415

        with self.reporter.step(Step.DOCKERFILE):
            if request.made_runtimes:
                return await read_made_runtimes(published.store, request.made_runtimes)
            allowance = make_allowance(request, self.reporter)
            return await runtime_of_dockerfile(
                request, published, allowance, context_access(request), self.work
            )

    async def make_model(self, runtime: Sequence[RuntimeChild]) -> _Model:
        """Fetch the model, convert it if that is asked, take it apart, and look inside."""
        request, reporter, work = self.request, self.reporter, self.work
        model = request.model
        with reporter.step(Step.DOWNLOAD):
            allowance, access = make_allowance(request, reporter), source_access(request)
            source = await fetch_source(request.source, wanted_files(model), work, allowance, access)
        files = source.files
        if model.convert is not None:
            with reporter.step(Step.CONVERT):
                files = await convert_model(model.convert, source.files, work)
        with reporter.step(Step.INSPECT):
            parts = await split_model(model.format, files, request.image.sharding, work)
            report, _ = await both(
                inspect_model(model.format, parts.skeleton, parts.pieces), prove_outputs(files, parts, work)
            )
            check_operators(report, model.format, runtime)
        key = build_key(request.inputs([file.sha256 for file in source.fetched]))
        return _Model(
            source, ModelFacts(request.model_name, model, source.files[0].sha256, key), parts, report
        )

    async def assemble(self, model: _Model, runtime: Sequence[RuntimeChild]) -> GraftedImage:
        """Write the layers of the model and put them on top of the runtime."""
        compressor = COMPRESSORS[self.request.image.compression]
        layers = await write_layers(layer_entries(model.facts, model.parts), compressor, self.work)
        digest = self.request.runtime_reference.digest or ""
        return graft_image(model.facts, model.report, Runtime(digest, runtime), layers)

    def origin(self, model: _Model, runtime: Sequence[RuntimeChild]) -> Origin:
        """Say what the image was made of."""
        key, fetched = model.facts.build_key, model.source.fetched
        return origin_of(self.request, key, runtime, fetched, model.parts.pieces, model.report)
