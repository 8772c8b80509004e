"""One build from request to result, as a straight line of steps. Runs inside the worker process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import Reason, Step, fail
from edgemodel_operator.build.graft import GraftedImage, graft_image, write_model_layer
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.layout import ModelFacts
from edgemodel_operator.build.publish import Destination, Publisher, registry_failure
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.reuse import ExistingImage, Wanted, find_existing
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.reference import InvalidReference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


async def build_image(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Build, or find, the image that the request asks for; `work` is a folder of its own.

    Raises BuildError whose failure names the step.
    """
    facts = ModelFacts(request.model_name, request.model, request.build_key)
    async with new_session() as session:
        client = RegistryClient(session, credentials=request.logins(), plain_http=request.plain_http)
        with reporter.step(Step.RESOLVE):
            allowance = _allowance(request, reporter)
            destination = _destination(request, client)
            wanted = await _wanted(request, client, facts)
            existing = await _find_existing(destination, wanted, work)
        if existing is not None:
            return _result(request, existing, reporter, sent=0, reused=True)
        with reporter.step(Step.DOWNLOAD):
            files = await fetch_source(request, work, allowance)
        with reporter.step(Step.INSPECT):
            await inspect_model(files, request.model.format)
        with reporter.step(Step.ASSEMBLE):
            layer_file = work / "layer.tar.zst"
            layer = await asyncio.to_thread(write_model_layer, facts, files, layer_file)
            image = graft_image(facts, wanted.runtime_digest, wanted.runtime, layer)
        with reporter.step(Step.PUSH):
            publisher = Publisher(destination, reporter.bytes)
            await publisher.publish(image, layer_file, facts.build_key)
    built = ExistingImage(image, sum(file.size for file in files))
    return _result(request, built, reporter, sent=publisher.sent, reused=False)


def _allowance(request: BuildRequest, reporter: Reporter) -> Allowance:
    limits = request.source_limits
    try:
        policy = AddressPolicy.parse(limits.denied_networks, limits.allowed_networks)
    except ValueError as error:
        raise fail(Reason.INVALID_REQUEST, f"The networks of sources are malformed: {error}") from error
    return Allowance(policy, limits.max_bytes, limits.timeout_seconds, on_bytes=reporter.bytes)


def _destination(request: BuildRequest, client: RegistryClient) -> Destination:
    try:
        target, runtime = request.target_reference, request.runtime_reference
    except InvalidReference as error:
        raise fail(Reason.INVALID_REQUEST, str(error)) from error
    return Destination(client, target, runtime, request.push_secret)


async def _wanted(request: BuildRequest, client: RegistryClient, facts: ModelFacts) -> Wanted:
    inputs = request.inputs
    runtime = await read_runtime(client, request.runtime_reference, inputs.platforms)
    return Wanted(facts, inputs.runtime_digest, runtime, request.source_limits.max_bytes)


async def _find_existing(destination: Destination, wanted: Wanted, work: Path) -> ExistingImage | None:
    try:
        return await find_existing(destination, wanted, work)
    except RegistryError as error:
        raise registry_failure(destination, error) from error


def _result(
    request: BuildRequest, existing: ExistingImage, reporter: Reporter, *, sent: int, reused: bool
) -> BuildResult:
    image: GraftedImage = existing.image
    digest = image.descriptor.digest
    return BuildResult(
        index_digest=digest,
        image=str(request.target_reference.with_digest(digest)),
        platforms=tuple(sorted(str(child.platform) for child in image.children)),
        model_sha256=request.model.source.digests[0],
        model_size=existing.model_size,
        build_key=request.build_key,
        reused=reused,
        bytes_pushed=sent,
        seconds=reporter.seconds,
    )
