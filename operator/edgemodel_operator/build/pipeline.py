"""One build from request to result, as a straight line of steps. Runs inside the worker process."""

from __future__ import annotations

from pathlib import Path

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.compare.outputs import prove_outputs
from edgemodel_operator.build.dockerfile.docker_build import PublishedRuntime
from edgemodel_operator.build.dockerfile.from_request import runtime_of_dockerfile
from edgemodel_operator.build.failures import Reason, Step, fail
from edgemodel_operator.build.graft import Runtime, graft_image
from edgemodel_operator.build.inspection import inspect_model
from edgemodel_operator.build.layers import write_layers
from edgemodel_operator.build.layout import COMPRESSORS, ModelFacts, layer_entries
from edgemodel_operator.build.origin.attach import Origin, attach_origin
from edgemodel_operator.build.origin.contents import Material, context_material
from edgemodel_operator.build.publish import Destination, Publisher, registry_failure
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.runtime import read_runtime
from edgemodel_operator.build.sources import fetch_source
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.build.sources.wanted import wanted_files
from edgemodel_operator.build.split import split_model
from edgemodel_operator.build.together import both
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
        if request.image.dockerfile is not None:
            with reporter.step(Step.DOCKERFILE):
                published = PublishedRuntime(store, destination.runtime, runtime)
                context = _context_access(request)
                runtime = await runtime_of_dockerfile(request, published, allowance, context, work)
        with reporter.step(Step.DOWNLOAD):
            source, want = request.source, wanted_files(request.model)
            fetched = await fetch_source(source, want, work, allowance, _access(request))
        inputs = request.inputs([file.sha256 for file in fetched.fetched])
        facts = ModelFacts(request.model_name, request.model, fetched.files[0].sha256, build_key(inputs))
        with reporter.step(Step.INSPECT):
            parts = await split_model(request.model.format, fetched.files, request.image.sharding, work)
            found = await inspect_model(request.model.format, parts.skeleton, parts.pieces)
        with reporter.step(Step.ASSEMBLE):
            compressor = COMPRESSORS[request.image.compression]
            layers, _ = await both(
                write_layers(layer_entries(facts, parts), compressor, work),
                prove_outputs(fetched.files[0].path, parts, work),
            )
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


def _context_access(request: BuildRequest) -> SourceAccess:
    return SourceAccess(
        logins=request.logins(),
        plain_http=request.plain_http,
        configured=_configured(request),
        secret=request.context_fields() if request.context_secret else None,
    )


def _materials(request: BuildRequest) -> tuple[Material, ...]:
    dockerfile = request.image.dockerfile
    return () if dockerfile is None else (context_material(dockerfile.context),)


def _configured(request: BuildRequest) -> frozenset[str]:
    return frozenset({*request.plain_http, request.runtime_reference.registry})


def _access(request: BuildRequest) -> SourceAccess:
    return SourceAccess(
        logins=request.logins(),
        plain_http=request.plain_http,
        configured=_configured(request),
        secret=request.source_fields() if request.source_secret else None,
        volume=Path(request.volume) if request.volume else None,
        config_map=request.config_entries(),
    )


def _destination(request: BuildRequest, store: ImageStore) -> Destination:
    try:
        target, runtime = request.target_reference, request.runtime_reference
    except InvalidReference as error:
        raise fail(Reason.INVALID_REQUEST, str(error)) from error
    secret = request.image.push_secret
    return Destination(store, target, runtime, secret.name if secret else "")
