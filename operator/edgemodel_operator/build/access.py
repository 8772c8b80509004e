"""What a build takes from its request to reach registries and sources."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from edgemodel_operator.build.addresses import AddressPolicy
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.publish import Destination, registry_failure
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.sources.access import SourceAccess
from edgemodel_operator.build.sources.download import Allowance
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image_store import AnyStore, ImageStore
from edgemodel_operator.oci.reference import InvalidReference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


@asynccontextmanager
async def open_store(request: BuildRequest) -> AsyncGenerator[ImageStore, None]:
    """Open what reads and writes images, with the request's logins."""
    async with new_session(authorities=request.authorities) as session:
        client = RegistryClient(
            session,
            credentials=request.logins(),
            plain_http=request.plain_http,
            upload_hosts=request.upload_hosts,
        )
        yield AnyStore(client)


def make_allowance(request: BuildRequest, reporter: Reporter) -> Allowance:
    """Give what downloads may do; raises BuildError."""
    limits = request.source_limits
    try:
        policy = AddressPolicy.parse(limits.denied_networks, limits.allowed_networks)
    except ValueError as error:
        raise fail(Reason.INVALID_REQUEST, f"The networks of sources are malformed: {error}") from error
    return Allowance(policy, limits.max_bytes, limits.timeout_seconds, on_bytes=reporter.bytes)


def make_destination(request: BuildRequest, store: ImageStore) -> Destination:
    """Give where the image goes; raises BuildError."""
    try:
        target, runtime = request.target_reference, request.runtime_reference
    except InvalidReference as error:
        raise fail(Reason.INVALID_REQUEST, str(error)) from error
    secret = request.image.push_secret
    return Destination(store, target, runtime, secret.name if secret else "")


async def reach(destination: Destination, key: str) -> None:
    """Ask the repository something, so that nothing is fetched for a registry that is not there."""
    try:
        await destination.client.head_manifest(destination.target.with_tag(index_tag(key)))
    except RegistryError as error:
        raise registry_failure(destination, error) from error


def source_access(request: BuildRequest) -> SourceAccess:
    """Give what the build may use to reach the source of the model."""
    return SourceAccess(
        logins=request.logins(),
        plain_http=request.plain_http,
        authorities=request.authorities,
        configured=_configured(request),
        secret=request.source_fields() if request.source_secret else None,
        volume=Path(request.volume) if request.volume else None,
        config_map=request.config_entries(),
    )


def context_access(request: BuildRequest) -> SourceAccess:
    """Give what the build may use to reach the context of the Dockerfile."""
    return SourceAccess(
        logins=request.logins(),
        plain_http=request.plain_http,
        authorities=request.authorities,
        configured=_configured(request),
        secret=request.context_fields() if request.context_secret else None,
    )


def _configured(request: BuildRequest) -> frozenset[str]:
    return frozenset({*request.plain_http, request.runtime_reference.registry})
