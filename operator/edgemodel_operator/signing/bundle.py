"""The Sigstore bundle v0.3 of cosign 3: a DSSE-signed in-toto statement, stored as an OCI 1.1 referrer.

Formats: `sigstore_bundle.proto` of sigstore/protobuf-specs, the DSSE protocol, in-toto Statement v1, and what
`cosign sign` writes. A bundle is made with a key, or with a short-lived certificate: then `signing.keyless`
verifies it as a whole, and what is parsed here only says what it is about.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from edgemodel_operator.oci.descriptor import (
    OCI_EMPTY,
    OCI_MANIFEST,
    Descriptor,
    InvalidDescriptor,
    annotations_from_json,
    canonical_json,
)
from edgemodel_operator.oci.reference import is_digest
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.strict_json import (
    list_member,
    member,
    object_member,
    parse_strict_json,
    refuse_unknown_members,
    string_member,
)

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT_MEDIA_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPES = frozenset({"https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"})
SIGN_PREDICATE_TYPE = "https://sigstore.dev/cosign/sign/v1"

CONTENT_ANNOTATION = "dev.sigstore.bundle.content"
PREDICATE_TYPE_ANNOTATION = "dev.sigstore.bundle.predicateType"
REPOSITORY_ANNOTATION = "dev.edgemodel.repository"
"""Annotation of the statement's subject: binds a signature to one repository, which cosign leaves open."""

MAX_BUNDLE_BYTES = 16 * 1024 * 1024
MAX_MANIFEST_BYTES = 64 * 1024
MAX_SUBJECTS = 1024
MAX_SIGNATURE_BYTES = 8 * 1024

EMPTY_BLOB = b"{}"
EMPTY_DESCRIPTOR = Descriptor.of(OCI_EMPTY, EMPTY_BLOB)

_MATERIAL = frozenset(
    {"publicKey", "certificate", "x509CertificateChain", "tlogEntries", "timestampVerificationData"}
)
_BUNDLE = "the bundle"
_STATEMENT = "the signed statement"
_MANIFEST = "the bundle's manifest"


@dataclass(frozen=True)
class Bundle:
    """A DSSE envelope: what is signed, of which type, and the one signature over it.

    `certificate` (DER) is set when it was made without a key of the signer's own.
    """

    payload_type: str
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    certificate: bytes = field(default=b"", repr=False)

    @property
    def message(self) -> bytes:
        """Return the bytes that the signature covers."""
        return pre_authentication_encoding(self.payload_type, self.payload)


@dataclass(frozen=True)
class Subject:
    """One thing a statement speaks of: its digests by algorithm, and its annotations."""

    digests: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """An in-toto statement: subjects and the type of what is said about them."""

    subjects: tuple[Subject, ...]
    predicate_type: str


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's PAE: type and payload with their lengths, so that neither can pose as the other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def make_statement(repository: str, digest: str) -> bytes:
    """Return the statement that signs `digest` as an image of `repository`."""
    subject = {
        "annotations": {REPOSITORY_ANNOTATION: repository},
        "digest": {"sha256": digest.removeprefix("sha256:")},
    }
    return canonical_json(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": {},
            "predicateType": SIGN_PREDICATE_TYPE,
            "subject": [subject],
        }
    )


def make_bundle(statement: bytes, signature: bytes, key_hint: str) -> bytes:
    """Return the bundle of a statement and the signature over its pre-authentication encoding."""
    return canonical_json(
        {
            "dsseEnvelope": {
                "payload": base64.b64encode(statement).decode(),
                "payloadType": STATEMENT_MEDIA_TYPE,
                "signatures": [{"sig": base64.b64encode(signature).decode()}],
            },
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {"publicKey": {"hint": key_hint}},
        }
    )


def manifest_annotations(predicate_type: str) -> dict[str, str]:
    """Return how cosign labels the manifest of a bundle. Unsigned, so nothing is decided by it."""
    return {CONTENT_ANNOTATION: "dsse-envelope", PREDICATE_TYPE_ANNOTATION: predicate_type}


def make_bundle_manifest(
    bundle: Descriptor, subject: Descriptor, predicate_type: str = SIGN_PREDICATE_TYPE
) -> bytes:
    """Return the manifest that attaches a bundle to the image manifest `subject`.

    It carries no creation time: the same signature always gets the same digest, and is stored once.
    """
    return canonical_json(
        {
            "annotations": manifest_annotations(predicate_type),
            "artifactType": BUNDLE_MEDIA_TYPE,
            "config": EMPTY_DESCRIPTOR.to_json(),
            "layers": [bundle.to_json()],
            "mediaType": OCI_MANIFEST,
            "schemaVersion": 2,
            "subject": Descriptor(subject.media_type, subject.digest, subject.size).to_json(),
        }
    )


def parse_bundle_manifest(body: bytes) -> Descriptor | None:
    """Return where the bundle of a referrer is, `None` when the referrer is something else (an SBOM, say).

    The manifest itself is looked at, never the list entry that led to it: on registries without the referrers
    API some clients write the list with the config's type in place of the artifact's. Raises `FormatError`.
    """
    document = parse_strict_json(body, max_bytes=MAX_MANIFEST_BYTES, what=_MANIFEST)
    layers = document.get("layers")
    try:
        descriptors = [Descriptor.from_json(layer) for layer in layers] if isinstance(layers, list) else []
        annotations_from_json(document.get("annotations"))
    except InvalidDescriptor as error:
        raise FormatError(f"{_MANIFEST}: {error}") from None
    bundles = [layer for layer in descriptors if layer.media_type == BUNDLE_MEDIA_TYPE]
    if not bundles:
        return None
    if len(descriptors) != 1:
        raise FormatError(f"{_MANIFEST} has {len(descriptors)} layers, not one")
    if bundles[0].size > MAX_BUNDLE_BYTES:
        raise FormatError(f"{_BUNDLE} is larger than {MAX_BUNDLE_BYTES} bytes")
    return bundles[0]


def parse_bundle(data: bytes) -> Bundle | None:
    """Read a bundle strictly; `None` when it is well-formed but holds no envelope. Raises `FormatError`."""
    document = parse_strict_json(data, max_bytes=MAX_BUNDLE_BYTES, what=_BUNDLE)
    known = frozenset({"mediaType", "verificationMaterial", "dsseEnvelope", "messageSignature"})
    refuse_unknown_members(document, known, _BUNDLE)
    if string_member(document, "mediaType", _BUNDLE) != BUNDLE_MEDIA_TYPE:
        raise FormatError(f"{_BUNDLE} is not of media type {BUNDLE_MEDIA_TYPE}")
    material = object_member(document, "verificationMaterial", _BUNDLE)
    refuse_unknown_members(material, _MATERIAL, _BUNDLE)
    if "dsseEnvelope" not in document:
        return None
    kinds = [name for name in ("publicKey", "certificate", "x509CertificateChain") if name in material]
    if len(kinds) > 1 or "messageSignature" in document:
        raise FormatError(f"{_BUNDLE} has two kinds of key or content")
    if kinds not in (["publicKey"], ["certificate"]):
        raise FormatError(f"{_BUNDLE} has neither a key nor a single certificate")
    envelope = parse_envelope(object_member(document, "dsseEnvelope", _BUNDLE))
    if kinds == ["publicKey"]:
        return envelope
    certificate = object_member(material, "certificate", _BUNDLE)
    return replace(envelope, certificate=_decode(string_member(certificate, "rawBytes", _BUNDLE)))


def parse_envelope(envelope: dict[str, object]) -> Bundle:
    """Read a DSSE envelope strictly, as it stands in a bundle or alone. Raises `FormatError`."""
    refuse_unknown_members(envelope, frozenset({"payload", "payloadType", "signatures"}), _BUNDLE)
    payload_type = string_member(envelope, "payloadType", _BUNDLE)
    if not (payload_type.isascii() and payload_type.isprintable()):
        raise FormatError(f"{_BUNDLE} has a payload type that is no media type")
    return Bundle(
        payload_type=payload_type,
        payload=_decode(string_member(envelope, "payload", _BUNDLE)),
        signature=_only_signature(list_member(envelope, "signatures", _BUNDLE)),
    )


def parse_statement(payload_type: str, payload: bytes) -> Statement:
    """Read the signed statement strictly; raises `FormatError`. Call it on verified bytes only."""
    if payload_type != STATEMENT_MEDIA_TYPE:
        raise FormatError(f"{_STATEMENT} is not of type {STATEMENT_MEDIA_TYPE}")
    document = parse_strict_json(payload, max_bytes=MAX_BUNDLE_BYTES, what=_STATEMENT)
    if string_member(document, "_type", _STATEMENT) not in STATEMENT_TYPES:
        raise FormatError(f"{_STATEMENT} is not an in-toto statement of version 1 or 0.1")
    subjects = list_member(document, "subject", _STATEMENT)
    if not 0 < len(subjects) <= MAX_SUBJECTS:
        raise FormatError(f"{_STATEMENT} has {len(subjects)} subjects")
    return Statement(
        subjects=tuple(_parse_subject(subject) for subject in subjects),
        predicate_type=string_member(document, "predicateType", _STATEMENT),
    )


def _parse_subject(subject: object) -> Subject:
    if not isinstance(subject, dict):
        raise FormatError(f"{_STATEMENT} has a subject that is no object")
    digests = object_member(subject, "digest", _STATEMENT)
    annotations = member(subject, "annotations", _STATEMENT) or {}
    sha256 = member(digests, "sha256", _STATEMENT)
    if sha256 is not None and not (isinstance(sha256, str) and is_digest(f"sha256:{sha256}")):
        raise FormatError(f"{_STATEMENT} has a malformed sha256 digest")
    if not isinstance(annotations, dict):
        raise FormatError(f"{_STATEMENT} has annotations that are no object")
    member(annotations, REPOSITORY_ANNOTATION, _STATEMENT)
    return Subject(_strings(digests), _strings(annotations))


def _strings(members: dict[str, object]) -> dict[str, str]:
    strings = {name: value for name, value in members.items() if isinstance(value, str)}
    if len(strings) != len(members):
        raise FormatError(f"{_STATEMENT} has a digest or annotation that is no string")
    return strings


def _only_signature(signatures: list[object]) -> bytes:
    if len(signatures) != 1 or not isinstance(signatures[0], dict):
        raise FormatError(f"{_BUNDLE} has {len(signatures)} signatures, not one")
    entry: dict[str, object] = signatures[0]
    refuse_unknown_members(entry, frozenset({"sig", "keyid"}), _BUNDLE)
    signature = _decode(string_member(entry, "sig", _BUNDLE))
    if not 0 < len(signature) <= MAX_SIGNATURE_BYTES:
        raise FormatError(f"{_BUNDLE} has a signature of {len(signature)} bytes")
    return signature


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        raise FormatError(f"{_BUNDLE} has a member that is not base64") from None
