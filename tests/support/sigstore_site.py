"""A keyless signing service in memory: authority, certificate log and transparency log, all of one plant.

Its keys are real and so are its signatures; its transparency log has one entry, and its clock says what a
test wants. Timestamps by a timestamp authority come from the real one, in the adapter tests.
Formats: RFC 6962 (certificate log), Rekor v1 (entries, promises), C2SP signed notes (checkpoints).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.hazmat import asn1
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.signing.bundle import (
    BUNDLE_MEDIA_TYPE,
    STATEMENT_MEDIA_TYPE,
    pre_authentication_encoding,
)
from edgemodel_operator.signing.keyless_bundle import ISSUER_OID, PLAIN_ISSUER_OID

ISSUER = "https://ci.plant-a.local"
SUBJECT = "https://ci.plant-a.local/models/press/.build.yaml@refs/heads/main"
THEN = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)
"""When things are signed, unless a test says otherwise."""

LONG = timedelta(days=3650)
LIFETIME = timedelta(minutes=10)
SCT_LIST_OID = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
ORIGIN = "log.plant-a.local"

Json: TypeAlias = dict[str, Any]
Change: TypeAlias = Callable[[Json], object]


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the public half as DER."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Sign with ECDSA over SHA-256."""
    return key.sign(data, ec.ECDSA(hashes.SHA256()))


def b64(data: bytes) -> str:
    """Return standard base64."""
    return base64.b64encode(data).decode()


@dataclass(frozen=True)
class Log:
    """A log: its key, and by it its id."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    @property
    def id(self) -> bytes:
        """Return the hash of the public key, by which signatures name the log."""
        return hashlib.sha256(spki(self.key)).digest()

    def instance(self, period: Json | None = None) -> Json:
        """Return the log's entry in a trusted root."""
        key = {"rawBytes": b64(spki(self.key)), "keyDetails": "PKIX_ECDSA_P256_SHA_256"}
        return {
            "baseUrl": f"https://{ORIGIN}",
            "hashAlgorithm": "SHA2_256",
            "publicKey": key | ({"validFor": period} if period else {}),
            "logId": {"keyId": b64(self.id)},
        }

    def sct(self, precertificate: bytes, issuer: x509.Certificate, at: datetime) -> bytes:
        """Return the signed timestamp of a certificate that is yet without it (RFC 6962, 3.2)."""
        issuer_key = issuer.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        entry = hashlib.sha256(issuer_key).digest() + len(precertificate).to_bytes(3) + precertificate
        milliseconds = int(at.timestamp() * 1000)
        signed = struct.pack("!BBQH", 0, 0, milliseconds, 1) + entry + struct.pack("!H", 0)
        signature = sign(self.key, signed)
        head = struct.pack("!B32sQHBB", 0, self.id, milliseconds, 0, 4, 3)
        return head + struct.pack("!H", len(signature)) + signature


@dataclass(frozen=True)
class Authority:
    """A root, and an intermediate under it that issues the certificates."""

    root_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    since: datetime = THEN - LONG
    until: datetime = THEN + LONG
    """The intermediate's own validity."""
    root_until: datetime = THEN + LONG

    @cached_property
    def root(self) -> x509.Certificate:
        """Return the root's certificate."""
        return _ca("root", self.root_key, "root", self.root_key, THEN - LONG, self.root_until)

    @cached_property
    def intermediate(self) -> x509.Certificate:
        """Return the intermediate's certificate."""
        return _ca("issuing", self.key, "root", self.root_key, self.since, self.until)

    def instance(self, period: Json | None = None) -> Json:
        """Return the authority's entry in a trusted root."""
        chain = [self.intermediate, self.root]
        raw = [{"rawBytes": b64(one.public_bytes(serialization.Encoding.DER))} for one in chain]
        return {
            "subject": {"organization": "plant-a.local", "commonName": "root"},
            "uri": "https://ca.plant-a.local",
            "certChain": {"certificates": raw},
            "validFor": period or {"start": stamp(THEN - LONG)},
        }


@dataclass(frozen=True)
class Site:
    """All three services; replace one to make a site that shares the others."""

    authority: Authority = field(default_factory=Authority)
    certificate_log: Log = field(default_factory=Log)
    log: Log = field(default_factory=Log)

    def trusted_root(self, change: Change | None = None) -> bytes:
        """Return the trusted root of the site, after a change to its JSON."""
        document: Json = {
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [self.log.instance()],
            "certificateAuthorities": [self.authority.instance()],
            "ctlogs": [self.certificate_log.instance()],
            "timestampAuthorities": [],
        }
        if change:
            change(document)
        return json.dumps(document).encode()

    def certificate(
        self,
        key: ec.EllipticCurvePrivateKey,
        at: datetime = THEN,
        *,
        issuer: str = ISSUER,
        plain_issuer: str | None = None,
        names: tuple[x509.GeneralName, ...] = (x509.UniformResourceIdentifier(SUBJECT),),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
    ) -> x509.Certificate:
        """Issue a certificate as Fulcio does, with its log entry in it."""
        builder = _builder("", key, "issuing", at, at + LIFETIME)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        builder = builder.add_extension(_issued_by(self.authority.key), critical=False)
        plain = (plain_issuer or issuer).encode()
        for oid, value in ((PLAIN_ISSUER_OID, plain), (ISSUER_OID, asn1.encode_der(issuer))):
            extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
            builder = builder.add_extension(extension, critical=False)
        precertificate = builder.sign(self.authority.key, hashes.SHA256())
        sct = self.certificate_log.sct(precertificate.tbs_certificate_bytes, self.authority.intermediate, at)
        listed = struct.pack("!HH", len(sct) + 2, len(sct)) + sct
        extension = x509.UnrecognizedExtension(SCT_LIST_OID, asn1.encode_der(listed))
        return builder.add_extension(extension, critical=False).sign(self.authority.key, hashes.SHA256())

    def bundle(
        self,
        statement: bytes,
        at: datetime = THEN,
        *,
        certificate: x509.Certificate | None = None,
        key: ec.EllipticCurvePrivateKey | None = None,
        recorded: datetime | None = None,
    ) -> Json:
        """Sign a statement, record it, and return the bundle's JSON. `recorded` is when the log saw it."""
        key = key or new_key()
        certificate = certificate or self.certificate(key, at)
        signature = sign(key, pre_authentication_encoding(STATEMENT_MEDIA_TYPE, statement))
        body = entry_body(statement, signature, certificate)
        return {
            "mediaType": BUNDLE_MEDIA_TYPE,
            "verificationMaterial": {
                "certificate": {"rawBytes": b64(certificate.public_bytes(serialization.Encoding.DER))},
                "tlogEntries": [self.entry(body, recorded or at + timedelta(seconds=1))],
            },
            "dsseEnvelope": {
                "payload": b64(statement),
                "payloadType": STATEMENT_MEDIA_TYPE,
                "signatures": [{"sig": b64(signature)}],
            },
        }

    def entry(self, body: bytes, recorded: datetime, *, by: Log | None = None) -> Json:
        """Record an entry in a log of this one entry: proof of inclusion, checkpoint, and promise."""
        log = by or self.log
        root = hashlib.sha256(b"\0" + body).digest()
        note = f"{ORIGIN}\n1\n{b64(root)}\n"
        noted = b64(log.id[:4] + sign(log.key, note.encode()))
        promised = canonical_json(
            {
                "body": b64(body),
                "integratedTime": int(recorded.timestamp()),
                "logID": log.id.hex(),
                "logIndex": 7,
            }
        )
        return {
            "logIndex": "7",
            "logId": {"keyId": b64(log.id)},
            "kindVersion": {"kind": "dsse", "version": "0.0.1"},
            "integratedTime": str(int(recorded.timestamp())),
            "inclusionPromise": {"signedEntryTimestamp": b64(sign(log.key, promised))},
            "inclusionProof": {
                "logIndex": "0",
                "rootHash": b64(root),
                "treeSize": "1",
                "hashes": [],
                "checkpoint": {"envelope": f"{note}\n— {ORIGIN} {noted}\n"},
            },
            "canonicalizedBody": b64(body),
        }


def entry_body(statement: bytes, signature: bytes, certificate: x509.Certificate) -> bytes:
    """Return what Rekor v1 records of a DSSE envelope."""
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return canonical_json(
        {
            "apiVersion": "0.0.1",
            "kind": "dsse",
            "spec": {
                "envelopeHash": {"algorithm": "sha256", "value": "0" * 64},
                "payloadHash": {"algorithm": "sha256", "value": hashlib.sha256(statement).hexdigest()},
                "signatures": [{"signature": b64(signature), "verifier": b64(pem)}],
            },
        }
    )


def stamp(time: datetime) -> str:
    """Write a time as trusted roots do."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def period(start: datetime, end: datetime | None = None) -> Json:
    """Write a period as trusted roots do."""
    return {"start": stamp(start)} | ({"end": stamp(end)} if end else {})


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: str, since: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _ca(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    since: datetime,
    until: datetime,
) -> x509.Certificate:
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        _builder(name, key, issuer, since, until)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(_issued_by(issuer_key), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _issued_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(*, digital_signature: bool = False, key_cert_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
