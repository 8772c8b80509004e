"""Who made a keyless bundle: the steps that prove it, under a pinned trusted root.

Everything comes from the bundle and from the trusted root. Nothing is contacted, no update is looked for, and
the machine's clock is not asked. The steps, whose numbers the code carries:

 1. The bundle is read strictly: one certificate, one DSSE envelope with one signature, one log entry.
 2. The certificate names one issuer and one subject, and they are the wanted ones. That proves nothing yet,
    but costs little: bundles of everybody else end here.
 3. The logs that it names, and the times that it claims, are among those the trusted root speaks for.
 4. The `sigstore` library proves: a time (by a timestamp or by the log's promise); the certificate's chain at
    that time; its entry in the certificate log; that it may sign code; the entry's inclusion in the
    transparency log, under the log's signature; the signature over the envelope; and that the entry is about
    this very certificate, signature and payload. It asks once more whether the certificate is wanted.
 5. What the library verified is what everybody else here reads out of the bundle.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat import asn1
from rfc3161_client import decode_timestamp_response
from sigstore.errors import Error
from sigstore.models import Bundle
from sigstore.verify import Verifier
from sigstore_models.bundle.v1 import Bundle as BundleModel

from edgemodel_operator.signing.bundle import Bundle as Envelope
from edgemodel_operator.signing.bundle import parse_bundle
from edgemodel_operator.signing.errors import FormatError, NotThisIdentity, SigningError
from edgemodel_operator.signing.keyless_root import Claims, PinnedRoot

ISSUER_OID = "1.3.6.1.4.1.57264.1.8"
PLAIN_ISSUER_OID = "1.3.6.1.4.1.57264.1.1"
OTHER_NAME_OID = "1.3.6.1.4.1.57264.1.7"
"""From Fulcio's `docs/oid-info.md`: the issuer as a DER string, the issuer as plain bytes, and the kind of
subject that is neither a mail address nor a URI."""

_BUNDLE = "the bundle"


class _Wanted:
    """The library's protocol for a policy, around a function that gets issuer and subject."""

    def __init__(self, check: Callable[[str, str], None]) -> None:
        self._check = check

    def verify(self, cert: x509.Certificate) -> None:
        self._check(issuer_of(cert), subject_of(cert))


def verify_bundle(data: bytes, root: PinnedRoot, check: Callable[[str, str], None]) -> None:
    """Verify a bundle. `check` gets issuer and subject, and raises `NotThisIdentity` for others.

    Raises `SigningError`, with the reason, for anything but a valid bundle of a wanted identity.
    """
    try:
        # 1
        signed = _read_strictly(data)
        certificate = x509.load_der_x509_certificate(signed.certificate)
        # 2
        wanted = _Wanted(check)
        wanted.verify(certificate)
        # 3
        part = root.part_for(_claims(data, certificate))
        # 4
        verified = Verifier(trusted_root=part).verify_dsse(Bundle.from_json(data), wanted)
    except SigningError:
        raise
    except Error as error:
        raise NotThisIdentity(f"{_BUNDLE} proves nothing: {str(error)[:512]}") from None
    except Exception as error:
        raise FormatError(f"{_BUNDLE} cannot be read: {type(error).__name__}: {str(error)[:256]}") from None
    # 5
    if verified != (signed.payload_type, signed.payload):
        raise FormatError(f"{_BUNDLE} can be read in two ways")


def issuer_of(certificate: x509.Certificate) -> str:
    """Return the login service that a certificate names; raises `NotThisIdentity` for none, or two."""
    encoded, plain = _extension(certificate, ISSUER_OID), _extension(certificate, PLAIN_ISSUER_OID)
    names = {asn1.decode_der(str, encoded)} if encoded is not None else set()
    names |= {plain.decode()} if plain is not None else set()
    if len(names) != 1:
        raise NotThisIdentity(f"its certificate names {len(names)} issuers, not one")
    return names.pop()


def subject_of(certificate: x509.Certificate) -> str:
    """Return whom a certificate names: a mail address, a URI, or a name of the issuer's own kind.

    Raises `NotThisIdentity` where it names nobody, several, or somebody by another kind of name.
    """
    names = list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    if len(names) != 1:
        raise NotThisIdentity(f"its certificate names {len(names)} subjects, not one")
    name = names[0]
    if isinstance(name, x509.RFC822Name | x509.UniformResourceIdentifier):
        return name.value
    if isinstance(name, x509.OtherName) and name.type_id.dotted_string == OTHER_NAME_OID:
        return asn1.decode_der(str, name.value)
    raise NotThisIdentity("its certificate names a subject that is neither a mail address nor a URI")


def _extension(certificate: x509.Certificate, oid: str) -> bytes | None:
    found = [one.value for one in certificate.extensions if one.oid.dotted_string == oid]
    return found[0].value if found and isinstance(found[0], x509.UnrecognizedExtension) else None


def _read_strictly(data: bytes) -> Envelope:
    parsed = parse_bundle(data)
    if parsed is None or not parsed.certificate:
        raise NotThisIdentity(f"{_BUNDLE} was made with a key: it has no certificate")
    return parsed


def _claims(data: bytes, certificate: x509.Certificate) -> Claims:
    """Read what the bundle says about when and where it was recorded, with the library's own models."""
    material = BundleModel.from_json(data).verification_material
    if len(material.tlog_entries) != 1:
        raise FormatError(f"{_BUNDLE} does not have exactly one log entry")
    entry = material.tlog_entries[0]
    stamped = material.timestamp_verification_data
    times = [
        decode_timestamp_response(stamp.signed_timestamp).tst_info.gen_time
        for stamp in (stamped.rfc3161_timestamps if stamped else ())
    ]
    if entry.integrated_time and entry.inclusion_promise:
        times.append(datetime.fromtimestamp(entry.integrated_time, UTC))
    if not times:
        raise NotThisIdentity(f"{_BUNDLE} has neither a signed timestamp nor a log's promise")
    recorded = certificate.extensions.get_extension_for_class(x509.PrecertificateSignedCertificateTimestamps)
    (sct,) = recorded.value
    return Claims(
        times=tuple(times),
        log_id=entry.log_id.key_id,
        certificate_log_id=sct.log_id,
        certificate_logged=sct.timestamp.replace(tzinfo=UTC),
    )
