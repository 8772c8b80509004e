"""Signed documents and what holds them: the statement, the bundle, the payload, and their manifests."""

import base64
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from random import Random

from edgemodel_operator.oci.descriptor import OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.signing import bundle, simple_signing
from fuzz.trust.oracle import Lax, lax_json, outcome_of, same, spliced

_REPOSITORY = "registry.plant-a.local:5000/models/line"
_DIGEST = "sha256:" + "5d" * 32
_SUBJECT = Descriptor(OCI_MANIFEST, _DIGEST, 1234)
_STATEMENT = bundle.make_statement(_REPOSITORY, _DIGEST)
_BUNDLE = bundle.make_bundle(_STATEMENT, b"\x30\x06\x02\x01\x01\x02\x01\x01", "aGludA==")
_PAYLOAD = simple_signing.make_payload(_REPOSITORY, _DIGEST)
_LAYER = simple_signing.SignatureLayer(
    Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, _PAYLOAD), b"signature"
)

_PIECES = (
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"null", b"true", b"0", b"1", b"-1", b"1e9", b"NaN", b'""',
    b"\\u0000", b"\\ud800", b"\xff", b"\xef\xbb\xbf", b" ", b"\n", "\u212a".encode(), "\u017f".encode(),
    b'"sha256":', b'"SHA256":', b'"sha512":', b'"digest":', b'"Digest":', b'"subject":', b'"Subject":',
    b'"predicateType":', b'"predicatetype":', b'"_type":', b'"_Type":', b'"annotations":', b'"predicate":{}',
    b'"payload":', b'"payloadType":', b'"signatures":', b'"sig":', b'"keyid":""', b'"dsseEnvelope":',
    b'"verificationMaterial":', b'"publicKey":{"hint":""}', b'"certificate":{"rawBytes":""}', b'"mediaType":',
    b'"messageSignature":{}', b'"critical":', b'"Critical":', b'"docker-manifest-digest":',
    b'"Docker-manifest-digest":', b'"docker-reference":', b'"identity":', b'"image":', b'"optional":null',
    b'"layers":', b'"Layers":', b'"config":', b'"size":', b'"artifactType":', _DIGEST.encode(), b"5d" * 32,
    _DIGEST.upper().encode(), b'"' + b"0" * 64 + b'"', base64.b64encode(_STATEMENT),
    b"https://sigstore.dev/cosign/sign/v1", b"https://slsa.dev/provenance/v1", b"dev.edgemodel.repository",
    b"https://in-toto.io/Statement/v1", b"https://in-toto.io/Statement/v0.1",
)  # fmt: skip


def _read_statement(data: bytes) -> Hashable:
    statement = bundle.parse_statement(bundle.STATEMENT_MEDIA_TYPE, data)
    lax = lax_json(data)
    same(statement.predicate_type, lax.of("predicateType"))
    theirs = lax.of("subject")
    same(len(statement.subjects), len(theirs))
    for subject, other in zip(statement.subjects, theirs, strict=True):
        same(subject.digests.get("sha256"), other.of("digest", "sha256"))
        named = other.of("annotations", bundle.REPOSITORY_ANNOTATION)
        same(subject.annotations.get(bundle.REPOSITORY_ANNOTATION), named)
    return "read", len(statement.subjects), statement.predicate_type[:24]


def _read_bundle(data: bytes) -> Hashable:
    parsed = bundle.parse_bundle(data)
    if parsed is None:
        return "foreign"
    lax = lax_json(data)
    same(parsed.payload, base64.b64decode(lax.of("dsseEnvelope", "payload")))
    same(parsed.payload_type, lax.of("dsseEnvelope", "payloadType"))
    (signature,) = lax.of("dsseEnvelope", "signatures")
    same(parsed.signature, base64.b64decode(signature.of("sig")))
    return "read", len(parsed.signature) > 16


def _read_payload(data: bytes) -> Hashable:
    claims, lax = simple_signing.parse_payload(data), lax_json(data)
    same(claims.digest, lax.of("critical", "image", "docker-manifest-digest"))
    same(claims.repository, lax.of("critical", "identity", "docker-reference"))
    return "read", claims.repository == _REPOSITORY


def _read_signatures(data: bytes) -> Hashable:
    manifest = simple_signing.parse_signature_manifest(data)
    theirs = lax_json(data).of("layers")
    same(len(manifest.layers) + manifest.junk, len(theirs))
    listed = [layer.of("digest") for layer in theirs if isinstance(layer, Lax)]
    for layer in manifest.layers:
        assert layer.payload.digest in listed
    return "read", len(manifest.layers), manifest.junk


def _read_bundle_manifest(data: bytes) -> Hashable:
    where = bundle.parse_bundle_manifest(data)
    if where is None:
        return "something else"
    (layer,) = lax_json(data).of("layers")
    same((where.digest, where.size), (layer.of("digest"), layer.of("size")))
    return "read", where.size > 1000


@dataclass(frozen=True)
class DocumentTarget:
    """One kind of document with its reader, which compares what it read with the lax one."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], Hashable]
    words: Sequence[bytes] = _PIECES

    def make(self, random: Random) -> bytes:
        """Return an input of the language, right or nearly so."""
        return spliced(random, self.seeds)

    def check(self, data: bytes) -> Hashable:
        """Feed the input; return what kind of outcome it was."""
        return outcome_of(lambda: self.read(data))


def statement_target() -> DocumentTarget:
    """Fuzz in-toto statements."""
    both = canonical_json(
        {
            "_type": "https://in-toto.io/Statement/v0.1",
            "predicate": {"buildDefinition": {}},
            "predicateType": "https://slsa.dev/provenance/v1",
            "subject": [{"name": "a", "digest": {"sha256": "5d" * 32}}, {"digest": {"sha512": "0"}}],
        }
    )
    return DocumentTarget("statement", (_STATEMENT, both), _read_statement)


def bundle_target() -> DocumentTarget:
    """Fuzz Sigstore bundles, and with them the DSSE envelope."""
    keyless = _BUNDLE.replace(b'{"publicKey":{"hint":"aGludA=="}}', b'{"certificate":{"rawBytes":"MAA="}}')
    return DocumentTarget("bundle", (_BUNDLE, keyless), _read_bundle)


def payload_target() -> DocumentTarget:
    """Fuzz payloads of legacy signatures."""
    return DocumentTarget("payload", (_PAYLOAD, _PAYLOAD.replace(b"null", b'{"a":"b"}')), _read_payload)


def signatures_target() -> DocumentTarget:
    """Fuzz manifests of legacy signatures."""
    made = simple_signing.make_signature_manifest(None, [_LAYER])
    parsed = simple_signing.parse_signature_manifest(made.body)
    more = simple_signing.make_signature_manifest(parsed, [_LAYER])
    return DocumentTarget("signatures", (made.body, more.body), _read_signatures)


def bundle_manifest_target() -> DocumentTarget:
    """Fuzz manifests of bundles."""
    described = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, _BUNDLE)
    made = bundle.make_bundle_manifest(described, _SUBJECT)
    return DocumentTarget("bundle-manifest", (made,), _read_bundle_manifest)
