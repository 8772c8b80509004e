"""Short-lived signing certificates, as far as telling signers apart needs it. Nothing here verifies."""

from __future__ import annotations

import hashlib

from cryptography import x509

_ISSUER_V2 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.8")
_ISSUER_V1 = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
"""Where Fulcio writes who issued the identity (`docs/oid-info.md` of sigstore/fulcio)."""


def certificate_identity(der: bytes) -> str:
    """Name whom a certificate speaks of: one person or job keeps this name over all its certificates.

    Made of the subject's alternative names and the issuer of the identity; of the whole certificate, where it
    names nobody. Call it for verified certificates only: it is what a threshold counts.
    """
    named = _named(der) or [der]
    text = b"".join(b"%d:%s" % (len(part), part) for part in named)
    return f"identity:{hashlib.sha256(text).hexdigest()}"


def _named(der: bytes) -> list[bytes]:
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        by_oid = {one.oid: one.value.public_bytes() for one in extensions}
    except ValueError:
        return []
    if x509.SubjectAlternativeName.oid not in by_oid:
        return []
    return [by_oid.get(oid, b"") for oid in (x509.SubjectAlternativeName.oid, _ISSUER_V2, _ISSUER_V1)]
