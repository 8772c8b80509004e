"""A program's own certificates: what they are, when they are due, and the next ones. No I/O, no clock.

The steps are those of a rotation without a gap. A certificate authority (CA) lives two years and a server
certificate (leaf) ninety days; each is replaced at two thirds of its life:

1. A new CA is added in front of the bundle. The clients (the API server, or the operator) are told the whole
   bundle, so they accept leaves of the new CA and of the old one; the leaf in use stays.
2. Only when the new CA has been in the bundle for OVERLAP, which gives every client time to hear of it, a
   leaf by the new CA is issued.
3. CAs leave the bundle when they expire.

Certificates are valid from one day before they were made, because clocks on the edge are often behind. One
that seems to come from further in the future was made under a wrong clock and is replaced.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=730)
LEAF_LIFE = timedelta(days=90)
OVERLAP = timedelta(minutes=10)
BACKDATED = timedelta(days=1)
MAX_BUNDLE = 4
"""CAs kept at most; more can only come from clocks that jump."""

FIELD_CA, FIELD_CA_KEY = "ca.crt", "ca.key"
FIELD_LEAF, FIELD_LEAF_KEY = "tls.crt", "tls.key"

_Key: TypeAlias = ec.EllipticCurvePrivateKey


class InvalidMaterial(ValueError):  # noqa: N818 - reads as the fact it states
    """The stored certificates are incomplete, do not belong together or cannot be read."""


@dataclass(frozen=True)
class Material:
    """What the Secret holds: the bundle (newest CA first), the newest CA's key, the leaf and its key."""

    bundle: tuple[x509.Certificate, ...]
    ca_key: _Key = field(repr=False, compare=False)
    leaf: x509.Certificate
    leaf_key: _Key = field(repr=False, compare=False)

    @property
    def ca_bundle(self) -> bytes:
        """The bundle in PEM form, as it belongs into a webhook configuration."""
        return b"".join(_pem(certificate) for certificate in self.bundle)

    @property
    def leaf_pem(self) -> bytes:
        """The leaf's key and certificate in one PEM text, as a TLS server loads them."""
        return _key_pem(self.leaf_key) + _pem(self.leaf)

    @property
    def expires(self) -> datetime:
        """When the leaf expires."""
        return self.leaf.not_valid_after_utc


def next_material(current: Material | None, host: str, now: datetime) -> Material:
    """Give the material that should be in use now: `current` itself when nothing is due.

    `host` is the name that the clients call, `PROGRAM.NAMESPACE.svc`. Random keys are made; all else follows
    from the arguments.
    """
    if current is None:
        return _fresh(host, now, ())
    alive = tuple(ca for ca in current.bundle if ca.not_valid_after_utc > now)
    if not alive or alive[0] != current.bundle[0]:
        return _fresh(host, now, alive)
    if _due(current.bundle[0], now):
        key = _new_key()
        bundle = (_issue_ca(host, key, now), *alive)[:MAX_BUNDLE]
        current = replace(current, bundle=bundle, ca_key=key)
    elif len(alive) != len(current.bundle):
        current = replace(current, bundle=alive)
    return _with_due_leaf(current, host, now)


def parse_material(data: Mapping[str, bytes]) -> Material | None:
    """Read the decoded fields of the Secret; None when it is still empty. Raises InvalidMaterial."""
    fields = (FIELD_CA, FIELD_CA_KEY, FIELD_LEAF, FIELD_LEAF_KEY)
    if not any(data.get(name) for name in fields):
        return None
    try:
        material = Material(
            bundle=tuple(x509.load_pem_x509_certificates(data[FIELD_CA])),
            ca_key=_load_key(data[FIELD_CA_KEY]),
            leaf=x509.load_pem_x509_certificate(data[FIELD_LEAF]),
            leaf_key=_load_key(data[FIELD_LEAF_KEY]),
        )
    except KeyError as error:
        raise InvalidMaterial(f"the field {error.args[0]} is missing") from error
    except (ValueError, TypeError) as error:
        # Never the parser's own words: they may quote what it was given.
        raise InvalidMaterial("a field is not a PEM certificate or key") from error
    _require_belonging(material)
    return material


def dump_material(material: Material) -> dict[str, bytes]:
    """Give the fields of the Secret, not yet base64-encoded."""
    return {
        FIELD_CA: material.ca_bundle,
        FIELD_CA_KEY: _key_pem(material.ca_key),
        FIELD_LEAF: _pem(material.leaf),
        FIELD_LEAF_KEY: _key_pem(material.leaf_key),
    }


def _fresh(host: str, now: datetime, alive: Sequence[x509.Certificate]) -> Material:
    ca_key, leaf_key = _new_key(), _new_key()
    ca = _issue_ca(host, ca_key, now)
    leaf = _issue_leaf(host, leaf_key, (ca, ca_key), now)
    return Material((ca, *alive)[:MAX_BUNDLE], ca_key, leaf, leaf_key)


def _with_due_leaf(current: Material, host: str, now: datetime) -> Material:
    ca, leaf = current.bundle[0], current.leaf
    valid = leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc
    usable = valid and _names(leaf) == (host,) and _signed_by_any(leaf, current.bundle)
    old_ca = not _signed_by_any(leaf, (ca,))
    known_everywhere = now >= _made(ca) + OVERLAP
    if usable and not ((_due(leaf, now) or old_ca) and known_everywhere):
        return current
    key = _new_key()
    return replace(current, leaf=_issue_leaf(host, key, (ca, current.ca_key), now), leaf_key=key)


def _due(certificate: x509.Certificate, now: datetime) -> bool:
    made, end = _made(certificate), certificate.not_valid_after_utc
    return now >= made + (end - made) * 2 / 3 or made > now + BACKDATED


def _made(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc + BACKDATED


def _issue_ca(host: str, key: _Key, now: datetime) -> x509.Certificate:
    program = host.partition(".")[0][:40]  # a common name may have 64 characters
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{program} CA {now:%Y-%m-%d %H:%M}")])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    builder = _builder(name, key, now, now + CA_LIFE).issuer_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA256())


def _issue_leaf(
    host: str, key: _Key, authority: tuple[x509.Certificate, _Key], now: datetime
) -> x509.Certificate:
    ca, ca_key = authority
    # The common name may have 64 characters only; the name that counts is the alternative one.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64])])
    end = min(now + LEAF_LIFE, ca.not_valid_after_utc)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = _builder(name, key, now, end).issuer_name(ca.subject)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(issuer_key, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _builder(name: x509.Name, key: _Key, now: datetime, end: datetime) -> x509.CertificateBuilder:
    # Without the subject key identifier a verifier that follows RFC 5280 strictly refuses the CA.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(identifier, critical=False)
    )


def _require_belonging(material: Material) -> None:
    if not material.bundle or material.bundle[0].public_key() != material.ca_key.public_key():
        raise InvalidMaterial(f"{FIELD_CA_KEY} is not the key of the first certificate in {FIELD_CA}")
    if material.leaf.public_key() != material.leaf_key.public_key():
        raise InvalidMaterial(f"{FIELD_LEAF_KEY} is not the key of {FIELD_LEAF}")


def _signed_by_any(leaf: x509.Certificate, authorities: Sequence[x509.Certificate]) -> bool:
    return any(_signed_by(leaf, authority) for authority in authorities)


def _signed_by(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        extension = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError):
        return ()
    return tuple(extension.value.get_values_for_type(x509.DNSName))


def _load_key(pem: bytes) -> _Key:
    key = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _new_key() -> _Key:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: _Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
