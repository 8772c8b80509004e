"""Find the signed statements that a registry keeps beside a digest, in both formats. Reads only.

Statements may be large, so that they are described first and read one by one, the smallest first: what is
large and foreign then crowds out nothing that is small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import Candidate
from edgemodel_operator.signing.stored import MAX_OBJECTS, Stored, bundle_candidate, list_bundles
from edgemodel_operator.signing.strict_json import parse_strict_json
from edgemodel_operator.signing.tag_manifest import layers_of
from edgemodel_operator.signing.verdict import Format

ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"
MAX_ENVELOPE_BYTES = bundle.MAX_BUNDLE_BYTES
MAX_TAG_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""What is read of one digest's attestations, all together."""

LARGE_BYTES = 1024 * 1024
MAX_LARGE = 2
"""Large statements held at a time in one event loop: each takes a multiple of its size while it is parsed."""

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_ENVELOPE = "the attestation's envelope"


@dataclass(frozen=True)
class Listing:
    """The statements beside a digest, those to be read in order.

    `left_out` counts those beyond the limits, `errors` holds what the registry lists and failed to deliver.
    """

    stored: tuple[Stored, ...]
    left_out: int = 0
    errors: tuple[RegistryError, ...] = ()


def attestation_tag(digest: str) -> str:
    """Return the tag under which cosign keeps the attestations of `digest`: `sha256-<hex>.att`."""
    return f"{digest.replace(':', '-')}.att"


async def list_statements(client: RegistryClient, image: Reference, digest: str, kind: Format) -> Listing:
    """List what may be statements about a digest in one format. Raises `RegistryError`."""
    if kind is Format.BUNDLE:
        found = await list_bundles(client, image, digest, max_bytes=bundle.MAX_BUNDLE_BYTES)
        return replace(within_limits(found.stored), errors=found.errors)
    try:
        tag = image.with_tag(attestation_tag(digest))
        manifest = await client.get_manifest(tag, max_bytes=MAX_TAG_MANIFEST_BYTES)
        document = parse_strict_json(manifest.body, max_bytes=MAX_TAG_MANIFEST_BYTES, what=str(tag))
    except (NotFound, FormatError):
        return Listing(())
    layers = [layer for layer in layers_of(document) if layer.media_type == ENVELOPE_MEDIA_TYPE]
    return within_limits([Stored(layer.digest, layer) for layer in layers])


async def read_statement(
    client: RegistryClient, image: Reference, stored: Stored, kind: Format
) -> Candidate | None:
    """Read one statement with its signature; None for a bundle of other content.

    Raises `FormatError` and `RegistryError`.
    """
    data = await client.get_blob(image, stored.blob.digest, max_bytes=stored.blob.size)
    if kind is Format.BUNDLE:
        return bundle_candidate(stored.source, data)
    envelope = bundle.parse_envelope(parse_strict_json(data, max_bytes=MAX_ENVELOPE_BYTES, what=_ENVELOPE))
    return Candidate(
        format=Format.LEGACY,
        source=stored.source,
        signature=envelope.signature,
        message=envelope.message,
        payload=envelope.payload,
        payload_type=envelope.payload_type,
    )


def turn(stored: Stored) -> AbstractAsyncContextManager[None]:
    """Wait, for a large statement, until few enough others are held."""
    if stored.blob.size <= LARGE_BYTES:
        return nullcontext()
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_LARGE))


def within_limits(found: Iterable[Stored]) -> Listing:
    """Choose what may be read of one digest's statements, the smallest first."""
    kept: list[Stored] = []
    ordered = sorted(found, key=lambda stored: stored.blob.size)
    total = 0
    for one in ordered:
        total += one.blob.size
        if one.blob.size <= MAX_ENVELOPE_BYTES and total <= MAX_TOTAL_BYTES and len(kept) < MAX_OBJECTS:
            kept.append(one)
    return Listing(tuple(kept), len(ordered) - len(kept))
