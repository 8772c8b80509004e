"""Find the signature objects that a registry keeps beside a digest, in both formats. Reads only.

What the registry cannot deliver, or what is more than is read, is kept apart from what it does not have: the
former are errors, and the caller must not take them for "unsigned".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.errors import NotFound, RegistryError, TooLarge
from edgemodel_operator.oci.image import InvalidImage, parse_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import Manifest, RegistryClient
from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import Candidate
from edgemodel_operator.signing.strict_json import member, parse_strict_json
from edgemodel_operator.signing.verdict import Format

MAX_OBJECTS = 100
"""Signature objects looked at per digest and format; who may push could else have us read for hours."""

MAX_SIGNATURE_BUNDLE_BYTES = 256 * 1024
"""A bundle that signs an image has about a kilobyte; larger ones are attestations and do not count here."""

MAX_IMAGE_MANIFEST_BYTES = 4 * 1024 * 1024
CONCURRENT_READS = 8

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Stored:
    """A signed object in a registry: the digest that names it, and the blob that holds it."""

    source: str
    blob: Descriptor


@dataclass(frozen=True)
class ListedBundles:
    """Bundles that refer to a digest; the other two as in `Found`."""

    stored: tuple[Stored, ...] = ()
    unreadable: int = 0
    errors: tuple[RegistryError, ...] = ()


@dataclass(frozen=True)
class Found:
    """Signature objects of one digest and format.

    `unreadable` counts those that are no such thing on a closer look, `errors` holds what the registry lists
    and failed to deliver, and TooLarge where it lists more than is read.
    """

    candidates: tuple[Candidate, ...] = ()
    unreadable: int = 0
    errors: tuple[RegistryError, ...] = ()


async def read_signatures(client: RegistryClient, image: Reference, digest: str, kind: Format) -> Found:
    """Read the signature objects of `digest`, stored in the repository of `image`, in one format.

    Raises `RegistryError` when the registry does not even tell which there are.
    """
    if kind is Format.LEGACY:
        return await _read_legacy(client, image, digest)
    return await _read_bundles(client, image, digest)


async def read_image(client: RegistryClient, image: Reference) -> tuple[Manifest, tuple[Descriptor, ...]]:
    """Read the manifest that `image` names by digest and the manifests it lists (none, if it is no index).

    Raises `FormatError` for a body that two readers could take for two things, `RegistryError` otherwise.
    """
    manifest = await client.get_manifest(image, max_bytes=MAX_IMAGE_MANIFEST_BYTES)
    what = f"the manifest {manifest.descriptor.digest}"
    document = parse_strict_json(manifest.body, max_bytes=MAX_IMAGE_MANIFEST_BYTES, what=what)
    member(document, "mediaType", what)  # the client compared it; here it must not occur twice
    is_index = member(document, "manifests", what) is not None
    is_manifest = any(member(document, name, what) is not None for name in ("config", "layers"))
    if is_index == is_manifest:
        raise FormatError(f"{what} is neither clearly an image nor clearly an index")
    try:
        return manifest, parse_index(manifest.body).manifests if is_index else ()
    except InvalidImage as error:
        raise FormatError(f"{what}: {error}") from None


def runnable_platforms(children: Sequence[Descriptor]) -> tuple[Descriptor, ...]:
    """Give those manifests of an index that a node could run: not what buildkit stores about them.

    Left out is only what says so in the index' own bytes and is for no platform that exists.
    """
    return tuple(one for one in children if not _is_attestation_manifest(one))


def _is_attestation_manifest(child: Descriptor) -> bool:
    about = child.annotations.get("vnd.docker.reference.type") == "attestation-manifest"
    return about and str(child.platform) == "unknown/unknown"


async def _read_legacy(client: RegistryClient, image: Reference, digest: str) -> Found:
    tag = image.with_tag(simple_signing.signature_tag(digest))
    try:
        manifest = await client.get_manifest(tag, max_bytes=simple_signing.MAX_MANIFEST_BYTES)
        parsed = simple_signing.parse_signature_manifest(manifest.body)
    except NotFound:
        return Found()
    except FormatError:
        return Found(unreadable=1)
    layers = parsed.layers[:MAX_OBJECTS]

    async def read(layer: simple_signing.SignatureLayer) -> Candidate:
        payload = await client.get_blob(
            image, layer.payload.digest, max_bytes=simple_signing.MAX_PAYLOAD_BYTES
        )
        return Candidate(
            format=Format.LEGACY,
            source=layer.payload.digest,
            signature=layer.signature,
            message=payload,
            payload=payload,
        )

    candidates, unreadable, errors = await _each(layers, read)
    if len(parsed.layers) > MAX_OBJECTS:
        sentence = f"{tag} has {len(parsed.layers)} signatures; only the first {MAX_OBJECTS} are read."
        errors = (*errors, TooLarge(sentence))
    return Found(candidates, unreadable + parsed.junk + len(parsed.layers) - len(layers), errors)


async def list_bundles(
    client: RegistryClient, image: Reference, digest: str, *, max_bytes: int
) -> ListedBundles:
    """Find the bundles that refer to a digest, without reading them. Raises `RegistryError`."""
    referrers = await client.list_referrers(image, digest, max_referrers=MAX_OBJECTS)

    async def look(referrer: Descriptor) -> Stored | None:
        manifest = await client.get_manifest(
            image.with_digest(referrer.digest), max_bytes=bundle.MAX_MANIFEST_BYTES
        )
        where = bundle.parse_bundle_manifest(manifest.body)
        if where is None:
            return None
        if where.size > max_bytes:
            raise FormatError(f"the bundle has {where.size} bytes, more than the {max_bytes} allowed")
        return Stored(referrer.digest, where)

    outcomes = await _each(referrers, look)
    return ListedBundles(*outcomes)


def bundle_candidate(source: str, data: bytes) -> Candidate | None:
    """Read a bundle; None for one that holds no envelope. Raises `FormatError`."""
    parsed = bundle.parse_bundle(data)
    if parsed is None:
        return None
    return Candidate(
        format=Format.BUNDLE,
        source=source,
        signature=parsed.signature,
        message=parsed.message,
        payload=parsed.payload,
        payload_type=parsed.payload_type,
        certificate=parsed.certificate,
        bundle=data if parsed.certificate else b"",
    )


async def _read_bundles(client: RegistryClient, image: Reference, digest: str) -> Found:
    listed = await list_bundles(client, image, digest, max_bytes=MAX_SIGNATURE_BUNDLE_BYTES)

    async def read(stored: Stored) -> Candidate | None:
        data = await client.get_blob(image, stored.blob.digest, max_bytes=MAX_SIGNATURE_BUNDLE_BYTES)
        return bundle_candidate(stored.source, data)

    candidates, unreadable, errors = await _each(listed.stored, read)
    return Found(candidates, listed.unreadable + unreadable, (*listed.errors, *errors))


async def _each(
    items: Iterable[_Item], read: Callable[[_Item], Awaitable[_Read | None]]
) -> tuple[tuple[_Read, ...], int, tuple[RegistryError, ...]]:
    """Read a few at a time; give what was read, how many were unusable, and what was not delivered."""
    slots = asyncio.Semaphore(CONCURRENT_READS)
    unreadable = 0
    errors: list[RegistryError] = []

    async def outcome(item: _Item) -> _Read | None:
        nonlocal unreadable
        async with slots:
            try:
                return await read(item)
            # Listed and gone, or larger than any signature: that is the registry's plain answer.
            except (NotFound, TooLarge, FormatError):
                unreadable += 1
            except RegistryError as error:
                errors.append(error)
            return None

    outcomes = await asyncio.gather(*(outcome(item) for item in items))
    return tuple(one for one in outcomes if one is not None), unreadable, tuple(errors)
