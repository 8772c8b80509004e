"""Cosign's first storage format: an image manifest under the tag `sha256-<hex>.sig`, one layer per signature.

Each layer is a JSON payload that names the signed digest; the signature over its exact bytes stands in an
annotation of the layer. Format: `specs/SIGNATURE_SPEC.md` of sigstore/cosign, and `pkg/oci/static` there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemodel_operator.oci.descriptor import Descriptor, InvalidDescriptor, canonical_json
from edgemodel_operator.oci.reference import is_digest
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.strict_json import (
    list_member,
    object_member,
    parse_strict_json,
    string_member,
)
from edgemodel_operator.signing.tag_manifest import ManifestToPut, add_layers

PAYLOAD_MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
CLAIM_TYPE = "cosign container image signature"

MAX_PAYLOAD_BYTES = 64 * 1024
MAX_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_SIGNATURE_BYTES = 8 * 1024

_PAYLOAD = "the signature payload"
_MANIFEST = "the signature manifest"


@dataclass(frozen=True)
class ImageClaims:
    """What a payload says: this digest, known under this repository name."""

    repository: str
    digest: str


@dataclass(frozen=True)
class SignatureLayer:
    """One signature of a signature manifest: where its payload is, and the raw signature over it."""

    payload: Descriptor
    signature: bytes


@dataclass(frozen=True)
class SignatureManifest:
    """A parsed `.sig` manifest: its usable layers, how many others it has, and all as written."""

    layers: tuple[SignatureLayer, ...] = ()
    junk: int = 0
    document: dict[str, object] = field(default_factory=dict, repr=False)


def signature_tag(digest: str) -> str:
    """Return the tag under which the signatures of `digest` are kept: `sha256-<hex>.sig`."""
    return f"{digest.replace(':', '-')}.sig"


def make_payload(repository: str, digest: str) -> bytes:
    """Return the bytes to sign, equal to what `cosign sign REPOSITORY@DIGEST` signs."""
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest},
                "type": CLAIM_TYPE,
            },
            "optional": None,
        }
    )


def parse_payload(data: bytes) -> ImageClaims:
    """Read a payload strictly; raises `FormatError`.

    A foreign `critical.type`, another digest algorithm, upper-case hex and every second spelling of a member
    are refused, although cosign itself accepts some of them.
    """
    payload = parse_strict_json(data, max_bytes=MAX_PAYLOAD_BYTES, what=_PAYLOAD)
    critical = object_member(payload, "critical", _PAYLOAD)
    if string_member(critical, "type", _PAYLOAD) != CLAIM_TYPE:
        raise FormatError(f"{_PAYLOAD} is of another type than {CLAIM_TYPE!r}")
    identity = object_member(critical, "identity", _PAYLOAD)
    image = object_member(critical, "image", _PAYLOAD)
    digest = string_member(image, "docker-manifest-digest", _PAYLOAD)
    if not is_digest(digest):
        raise FormatError(f"{_PAYLOAD} names no sha256 digest")
    return ImageClaims(string_member(identity, "docker-reference", _PAYLOAD), digest)


def parse_signature_manifest(body: bytes) -> SignatureManifest:
    """Read a `.sig` manifest; raises `FormatError` when it is none. Unusable layers are only counted."""
    document = parse_strict_json(body, max_bytes=MAX_MANIFEST_BYTES, what=_MANIFEST)
    entries = list_member(document, "layers", _MANIFEST)
    layers = tuple(layer for entry in entries if (layer := _parse_layer(entry)) is not None)
    return SignatureManifest(layers, len(entries) - len(layers), document)


def make_signature_manifest(
    existing: SignatureManifest | None, additions: Sequence[SignatureLayer]
) -> ManifestToPut:
    """Return `existing` with layers added at its end: other signers' layers stay as they are, byte for byte.

    The same input gives the same bytes, so that two signers who add the same layer write the same manifest.
    """
    return add_layers(existing.document if existing else {}, [describe_layer(layer) for layer in additions])


def describe_layer(layer: SignatureLayer) -> Descriptor:
    """Describe a layer as the manifest does: its payload, with the signature as annotation."""
    annotations = {SIGNATURE_ANNOTATION: base64.b64encode(layer.signature).decode()}
    payload = layer.payload
    return Descriptor(payload.media_type, payload.digest, payload.size, annotations=annotations)


def _parse_layer(entry: object) -> SignatureLayer | None:
    try:
        descriptor = Descriptor.from_json(entry)
        signature = base64.b64decode(descriptor.annotations.get(SIGNATURE_ANNOTATION, ""), validate=True)
    except (InvalidDescriptor, binascii.Error, ValueError):
        return None
    usable = (
        descriptor.media_type == PAYLOAD_MEDIA_TYPE
        and descriptor.size <= MAX_PAYLOAD_BYTES
        and 0 < len(signature) <= MAX_SIGNATURE_BYTES
    )
    payload = Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)
    return SignatureLayer(payload, signature) if usable else None
