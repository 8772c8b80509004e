"""Find the signed statements that a registry keeps beside a digest, in both formats. Reads only.

Statements may be large, so that they are described first and read one by one, the smallest first: what is
large and foreign then crowds out nothing that is small.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemodel_operator.oci.errors import NotFound, RegistryError
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.attest import ENVELOPE_MEDIA_TYPE, MAX_ENVELOPE_BYTES, attestation_tag
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import Candidate
from edgemodel_operator.signing.stored import MAX_OBJECTS, Stored, bundle_candidate, list_bundles
from edgemodel_operator.signing.strict_json import parse_strict_json
from edgemodel_operator.signing.tag_manifest import layers_of
from edgemodel_operator.signing.verdict import Format

MAX_TAG_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_TOTAL_BYTES = 64 * 1024 * 1024
"""What is read of one digest's attestations, all together."""

_ENVELOPE = "the attestation's envelope"


@dataclass(frozen=True)
class Listing:
    """The statements beside a digest, those to be read in order.

    `left_out` counts those beyond the limits, `errors` holds what the registry lists and failed to deliver.
    """

    stored: tuple[Stored, ...]
    left_out: int = 0
    errors: tuple[RegistryError, ...] = ()


async def list_statements(client: RegistryClient, image: Reference, digest: str, kind: Format) -> Listing:
    """List what may be statements about a digest in one format. Raises `RegistryError`."""
    if kind is Format.BUNDLE:
        found = await list_bundles(client, image, digest, max_bytes=bundle.MAX_BUNDLE_BYTES)
        return replace(_within_limits(found.stored), errors=found.errors)
    try:
        tag = image.with_tag(attestation_tag(digest))
        manifest = await client.get_manifest(tag, max_bytes=MAX_TAG_MANIFEST_BYTES)
        document = parse_strict_json(manifest.body, max_bytes=MAX_TAG_MANIFEST_BYTES, what=str(tag))
    except (NotFound, FormatError):
        return Listing(())
    layers = [layer for layer in layers_of(document) if layer.media_type == ENVELOPE_MEDIA_TYPE]
    return _within_limits([Stored(layer.digest, layer) for layer in layers])


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


def _within_limits(found: list[Stored] | tuple[Stored, ...]) -> Listing:
    kept: list[Stored] = []
    total = 0
    for one in sorted(found, key=lambda stored: stored.blob.size):
        total += one.blob.size
        if one.blob.size <= MAX_ENVELOPE_BYTES and total <= MAX_TOTAL_BYTES and len(kept) < MAX_OBJECTS:
            kept.append(one)
    return Listing(tuple(kept), len(found) - len(kept))
