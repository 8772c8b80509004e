"""The trusted root that a site pins: whose certificates, logs and clocks count, and for which times.

Format: `sigstore_trustroot.proto` of sigstore/protobuf-specs, as `cosign trusted-root create` writes it. It
is given as bytes; nothing is fetched, renewed or looked up.

Each entry of it counts for a period. The `sigstore` library leaves gaps there, which are closed here: it
holds the period of an authority or log against the machine's clock instead of the time of the signature, and
it tries every known key when a log's id is unknown. So a signature is verified under a part of the root only:
what was valid at the times that the signature claims, and the very logs it names. The library then has to
prove those claims. One that it cannot prove is no signature, so claiming other times gains nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_der_x509_certificate
from pydantic import ValidationError
from sigstore.models import ClientTrustConfig
from sigstore.models import TrustedRoot as TrustedRootOfLibrary
from sigstore_models.common.v1 import TimeRange
from sigstore_models.trustroot import v1 as trustroot

from edgemodel_operator.signing.errors import BadTrustedRoot, NotInTrustedRoot

MAX_TRUSTED_ROOT_BYTES = 1024 * 1024

_MEDIA_TYPE = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
_HOW = "`cosign trusted-root create` writes one"
_NO_SERVICES = trustroot.SigningConfig(media_type="application/vnd.dev.sigstore.signingconfig.v0.2+json")
_SINCE_EVER = TimeRange(start=datetime.min.replace(tzinfo=UTC))


@dataclass(frozen=True)
class Claims:
    """What a keyless signature says about when and where it was recorded. Nothing of it is proved.

    `times` are those of its log entry and its timestamps; `log_id` names the transparency log;
    `certificate_log_id` and `certificate_logged` come from the certificate's own log entry (its SCT).
    """

    times: tuple[datetime, ...]
    log_id: bytes
    certificate_log_id: bytes
    certificate_logged: datetime


@dataclass(frozen=True)
class PinnedRoot:
    """A trusted root that was read and can be used. Two with the same `fingerprint` are the same bytes."""

    fingerprint: str
    _root: trustroot.TrustedRoot = field(repr=False, compare=False)

    def part_for(self, claims: Claims) -> TrustedRootOfLibrary:
        """Return the part of the root that speaks for what a signature claims, or raise `NotInTrustedRoot`.

        Periods are judged here, so the part carries none: the library would hold them against the machine's
        clock, which is wrong on a device that was off for long.
        """
        root = self._root
        authorities = [one for one in root.certificate_authorities if _covers(one.valid_for, claims.times)]
        if not authorities:
            raise NotInTrustedRoot(
                f"no certificate authority of the trusted root counted {_at(claims.times)}"
            )
        logs = _keep(root.tlogs, claims.log_id, claims.times, "transparency log")
        logged = (claims.certificate_logged,)
        ctlogs = _keep(root.ctlogs, claims.certificate_log_id, logged, "certificate transparency log")
        part = {
            "media_type": _MEDIA_TYPE,
            "certificate_authorities": [
                one.model_copy(update={"valid_for": _SINCE_EVER}) for one in authorities
            ],
            "tlogs": [_without_period(one) for one in logs],
            "ctlogs": [_without_period(one) for one in ctlogs],
        }
        return _for_library(root.model_copy(update=part))


def load_trusted_root(data: bytes) -> PinnedRoot:
    """Read a trusted root; raises `BadTrustedRoot`, also for one under which nothing could ever verify."""
    if len(data) > MAX_TRUSTED_ROOT_BYTES:
        raise BadTrustedRoot(f"the trusted root has more than {MAX_TRUSTED_ROOT_BYTES} bytes")
    try:
        root = trustroot.TrustedRoot.from_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the document"
        raise BadTrustedRoot(f"the trusted root cannot be read, at {where}: {first['msg']}; {_HOW}") from None
    _refuse_empty(root)
    return PinnedRoot(f"sha256:{hashlib.sha256(data).hexdigest()}", _checked(root))


def _refuse_empty(root: trustroot.TrustedRoot) -> None:
    kinds = {
        "certificate authority (--fulcio)": root.certificate_authorities,
        "transparency log (--rekor)": root.tlogs,
        "certificate transparency log (--ctfe)": root.ctlogs,
    }
    missing = [kind for kind, entries in kinds.items() if not entries]
    authorities = (*root.certificate_authorities, *root.timestamp_authorities)
    if any(not authority.cert_chain.certificates for authority in authorities):
        missing.append("certificate for one of its authorities")
    if missing:
        raise BadTrustedRoot(f"the trusted root names no {' and no '.join(missing)}; {_HOW}")


def _checked(root: trustroot.TrustedRoot) -> trustroot.TrustedRoot:
    """Find out now what would look like a bad signature later; end authorities with their certificates."""
    try:
        for log in (*root.tlogs, *root.ctlogs):
            load_der_public_key(log.public_key.raw_bytes or b"")
        authorities = [_ended(one) for one in root.certificate_authorities]
        clocks = [_ended(one) for one in root.timestamp_authorities]
    except Exception as error:
        raise BadTrustedRoot(
            f"the trusted root holds a certificate or key that cannot be read: {str(error)[:256]}"
        ) from None
    return root.model_copy(update={"certificate_authorities": authorities, "timestamp_authorities": clocks})


def _ended(authority: trustroot.CertificateAuthority) -> trustroot.CertificateAuthority:
    """Let an authority count only while all its certificates are valid.

    The library trusts each certificate of a chain by itself, and would not see that one above has expired.
    """
    chain = [load_der_x509_certificate(one.raw_bytes) for one in authority.cert_chain.certificates]
    period = authority.valid_for
    start = max(_aware(period.start), *(one.not_valid_before_utc for one in chain))
    ends = [one.not_valid_after_utc for one in chain] + ([_aware(period.end)] if period.end else [])
    return authority.model_copy(update={"valid_for": TimeRange(start=start, end=min(ends))})


def _keep(
    logs: Collection[trustroot.TransparencyLogInstance],
    log_id: bytes,
    times: Collection[datetime],
    kind: str,
) -> list[trustroot.TransparencyLogInstance]:
    """Return the logs with this id whose keys counted at all of these times."""
    named = [log for log in logs if log_id in _ids(log)]
    if not named:
        raise NotInTrustedRoot(f"the trusted root names no {kind} {log_id.hex()[:64]!r}")
    valid = [log for log in named if _covers(log.public_key.valid_for, times)]
    if not valid:
        raise NotInTrustedRoot(f"no key of the {kind} {log_id.hex()[:64]} counted {_at(times)}")
    return valid


def _ids(log: trustroot.TransparencyLogInstance) -> set[bytes]:
    return {one.key_id for one in (log.log_id, log.checkpoint_key_id) if one is not None}


def _covers(period: TimeRange | None, times: Collection[datetime]) -> bool:
    if period is None:
        return True
    start, end = _aware(period.start), period.end and _aware(period.end)
    return all(start <= time and (end is None or time <= end) for time in times)


def _aware(time: datetime) -> datetime:
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _without_period(log: trustroot.TransparencyLogInstance) -> trustroot.TransparencyLogInstance:
    return log.model_copy(update={"public_key": log.public_key.model_copy(update={"valid_for": None})})


def _for_library(root: trustroot.TrustedRoot) -> TrustedRootOfLibrary:
    """Hand the root over by the library's public way in, which reads it beside a list of services (none)."""
    document = trustroot.ClientTrustConfig(
        media_type="application/vnd.dev.sigstore.clienttrustconfig.v0.1+json",
        trusted_root=root,
        signing_config=_NO_SERVICES,
    )
    return ClientTrustConfig.from_json(document.to_json()).trusted_root


def _at(times: Collection[datetime]) -> str:
    return " and ".join(f"at {time:%Y-%m-%d %H:%M:%SZ}" for time in sorted(set(times)))
