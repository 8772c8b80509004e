"""One build from request to result, as a straight line of steps. Runs inside the worker process."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import Reason, Step, fail
from edgemodel_operator.build.graft import graft_image, write_model_layer
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.layout import ModelFacts
from edgemodel_operator.build.publish import Destination, Publisher, registry_failure
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.core.build_key import build_key, index_tag
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image_store import AnyStore, ImageStore
from edgemodel_operator.oci.reference import InvalidReference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


async def build_image(request: BuildRequest, work: Path, reporter: Reporter) -> BuildResult:
    """Build the image that the request asks for; `work` is a folder of its own.

    Raises BuildError whose failure names the step.
    """
    async with new_session() as session:
        client = RegistryClient(
            session,
            credentials=request.logins(),
            plain_http=request.plain_http,
            upload_hosts=request.upload_hosts,
        )
        store = AnyStore(client)
        with reporter.step(Step.RESOLVE):
            allowance = _allowance(request, reporter)
            destination = _destination(request, store)
            platforms = tuple(platform.value for platform in request.image.platforms)
            runtime = await read_runtime(store, destination.runtime, platforms)
            await _reach(destination, request.build_key)
        with reporter.step(Step.DOWNLOAD):
            files = await fetch_source(request, work, allowance)
        inputs = request.inputs([file.sha256 for file in files])
        facts = ModelFacts(request.model_name, request.model, build_key(inputs))
        with reporter.step(Step.INSPECT):
            named = tuple(
                ModelFile(name=file.path.name, sha256=file.sha256, size=file.size) for file in files
            )
            found = await inspect_model(request.model.format, files[0].path, named)
        with reporter.step(Step.ASSEMBLE):
            layer_file = work / "layer.tar.zst"
            layer = await asyncio.to_thread(write_model_layer, facts, files, layer_file)
            image = graft_image(facts, inputs.runtime_digest, runtime, layer)
        with reporter.step(Step.PUSH):
            publisher = Publisher(destination, reporter.bytes)
            await publisher.publish(image, layer_file, facts.build_key)
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


async def _reach(destination: Destination, key: str) -> None:
    """Ask the repository something, so that nothing is fetched for a registry that is not there."""
    try:
        await destination.client.head_manifest(destination.target.with_tag(index_tag(key)))
    except RegistryError as error:
        raise registry_failure(destination, error) from error


def _allowance(request: BuildRequest, reporter: Reporter) -> Allowance:
    limits = request.source_limits
    try:
        policy = AddressPolicy.parse(limits.denied_networks, limits.allowed_networks)
    except ValueError as error:
        raise fail(Reason.INVALID_REQUEST, f"The networks of sources are malformed: {error}") from error
    return Allowance(policy, limits.max_bytes, limits.timeout_seconds, on_bytes=reporter.bytes)


def _destination(request: BuildRequest, store: ImageStore) -> Destination:
    try:
        target, runtime = request.target_reference, request.runtime_reference
    except InvalidReference as error:
        raise fail(Reason.INVALID_REQUEST, str(error)) from error
    secret = request.image.push_secret
    return Destination(store, target, runtime, secret.name if secret else "")
