"""Model files in OCI registries: a titled layer of an artifact, or a file inside the layers of an image.

Titles: annotation `org.opencontainers.image.title`, as ORAS and others write it. Files of images are looked
for from the top layer down, as a container would see them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from edgemodel_operator.api.source import OciFile
from edgemodel_operator.build.addresses import AddressPolicy, ForbiddenAddress, guarded_session
from edgemodel_operator.build.archives import ArchiveLimits, InvalidArchive, extract_file
from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.sources.download import (
    Allowance,
    FetchedFile,
    check_digest,
    check_size,
    describe,
    save,
)
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import INDEX_TYPES, Descriptor, InvalidDescriptor, Platform
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest
from edgemodel_operator.oci.reference import InvalidReference, Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient

TITLE = "org.opencontainers.image.title"
EXPANSION = 4
"""A layer may unpack to this many times the size cap of a model file."""

_PREFERRED = Platform("linux", "amd64")


@dataclass(frozen=True)
class _Place:
    """Where a file is read: client, reference, and what was asked for there."""

    client: RegistryClient
    reference: Reference
    path: str
    suffix: str

    def wanted(self, path: str) -> bool:
        """Tell whether a title or path is the one asked for: the given one, or any with the suffix."""
        if self.path:
            return path == self.path.strip("/")
        return path.endswith(self.suffix)


async def fetch_oci(
    request: BuildRequest, artifact: str, file: OciFile, suffix: str, destination: Path, allowance: Allowance
) -> FetchedFile:
    """Fetch a file of an artifact or image to `destination`, check its SHA-256, and describe it.

    Without a path it is the only one whose name ends with `suffix`. Registries that the operator's own
    configuration names may lie at addresses that are refused to others. Raises BuildError.
    """
    try:
        reference = parse_reference(artifact)
    except InvalidReference as error:
        raise fail(Reason.SOURCE_INVALID, str(error)) from error
    configured = {*request.plain_http, request.runtime_reference.registry}
    policy = _ANYWHERE if reference.registry in configured else allowance.policy
    async with guarded_session(policy) as session:
        client = RegistryClient(session, credentials=request.logins(), plain_http=request.plain_http)
        place = _Place(client, reference, file.path, suffix)
        try:
            async with asyncio.timeout(allowance.total_seconds):
                fetched = await _fetch(place, destination, allowance)
        except TimeoutError as error:
            sentence = f"{reference} was not complete after {allowance.total_seconds:g} seconds."
            raise fail(Reason.SOURCE_TIMEOUT, sentence) from error
        except (errors.RegistryError, ForbiddenAddress, aiohttp.ClientError) as error:
            raise _failure(reference, error) from error
        except (InvalidImage, InvalidDescriptor, InvalidArchive) as error:
            raise fail(Reason.SOURCE_INVALID, f"{reference}: {error}") from error
    return check_digest(fetched, file.sha256)


_ANYWHERE = AddressPolicy.parse(allowed=("0.0.0.0/0", "::/0"))


async def _fetch(place: _Place, destination: Path, allowance: Allowance) -> FetchedFile:
    manifest = await place.client.get_manifest(place.reference)
    if manifest.descriptor.media_type in INDEX_TYPES:
        child = _any_child(parse_index(manifest.body).manifests)
        manifest = await place.client.get_manifest(place.reference.with_digest(child.digest))
    layers = parse_manifest(manifest.body).layers
    titled = [layer for layer in layers if place.wanted(layer.annotations.get(TITLE, "").strip("/"))]
    if titled:
        _check_single(place, [layer.annotations[TITLE] for layer in titled])
        return await _save_blob(place, titled[0], destination, allowance)
    return await _search_layers(place, layers, destination, allowance)


def _any_child(children: Sequence[Descriptor]) -> Descriptor:
    # A model is the same for every platform, and its SHA-256 is checked: any child will do.
    if not children:
        raise InvalidImage("The index is empty.")
    real = [child for child in children if child.platform is None or child.platform.os != "unknown"]
    return next((child for child in real if child.platform == _PREFERRED), (real or children)[0])


async def _search_layers(
    place: _Place, layers: Sequence[Descriptor], destination: Path, allowance: Allowance
) -> FetchedFile:
    deadline = time.monotonic() + allowance.total_seconds
    limits = ArchiveLimits(allowance.max_bytes, allowance.max_bytes * EXPANSION, deadline)
    found: list[str] = []
    for layer in reversed([layer for layer in layers if "tar" in layer.media_type]):
        blob, inner = destination.with_suffix(".layer"), destination.with_suffix(".found")
        await _save_blob(place, layer, blob, allowance)
        fresh = await asyncio.to_thread(extract_file, blob, _not_yet(place, found), inner, limits)
        blob.unlink()
        if fresh and not found:
            inner.replace(destination)
        found += fresh
        if found and place.path:
            break  # a file of a lower layer would be hidden by this one
    if not found:
        what = f"no file {place.path!r}" if place.path else f"no {place.suffix} file"
        raise fail(Reason.SOURCE_INVALID, f"{place.reference} holds {what}.")
    _check_single(place, found)
    return await asyncio.to_thread(describe, destination)


def _not_yet(place: _Place, found: Sequence[str]) -> Callable[[str], bool]:
    known = frozenset(found)
    return lambda path: place.wanted(path) and path not in known


def _check_single(place: _Place, paths: Sequence[str]) -> None:
    if len(paths) > 1:
        shown = ", ".join(sorted(paths)[:5])
        raise fail(
            Reason.SOURCE_INVALID,
            f"{place.reference} holds {len(paths)} files that could be meant ({shown}): name one by `path`.",
        )


async def _save_blob(
    place: _Place, layer: Descriptor, destination: Path, allowance: Allowance
) -> FetchedFile:
    check_size(layer.size, allowance.max_bytes)
    async with aclosing(place.client.open_blob(place.reference, layer)) as chunks:
        return await save(chunks, destination, layer.size, allowance)


def _failure(reference: Reference, error: Exception) -> BuildError:
    match error:
        case ForbiddenAddress():
            return fail(Reason.SOURCE_FORBIDDEN_ADDRESS, f"{reference} is refused: {error}.")
        case errors.NotFound():
            return fail(Reason.SOURCE_NOT_FOUND, f"{reference} does not exist, or is hidden from us.")
        case errors.Unauthorized():
            return fail(Reason.SOURCE_DENIED, f"{reference} cannot be read: {error}")
        case errors.TooLarge():
            return fail(Reason.SOURCE_TOO_LARGE, f"{reference}: {error}")
        case errors.ProtocolError() | errors.DigestMismatch():
            return fail(Reason.SOURCE_UNAVAILABLE, f"{reference}: {error}")
        case _:
            return fail(Reason.SOURCE_UNAVAILABLE, f"{reference} cannot be read: {error}")
