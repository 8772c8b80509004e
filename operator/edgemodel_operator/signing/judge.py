"""Decide who vouches for a digest, from facts alone: no I/O, no clock.

`judge_signature` weighs one signature object, `judge_digest` all of those found for one digest. Steps 5 to 9
of the procedure that `verify` writes down are here; each block carries its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from edgemodel_operator.signing.bundle import (
    REPOSITORY_ANNOTATION,
    SIGN_PREDICATE_TYPE,
    Statement,
    Subject,
    parse_statement,
)
from edgemodel_operator.signing.certificate import certificate_identity
from edgemodel_operator.signing.demand import Authority, Demand
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.simple_signing import parse_payload
from edgemodel_operator.signing.threshold import different_authorities, unmatched_authorities
from edgemodel_operator.signing.verdict import Evidence, Format, Reason, Rejected, Vouching


@dataclass(frozen=True)
class Wanted:
    """What a signature has to be about. `any_repository` also lets signatures for other names count."""

    repository: str
    digest: str
    any_repository: bool = False


@dataclass(frozen=True)
class Candidate:
    """A signature object as found, nothing in it checked yet.

    `source` is the digest of the object that holds it, `message` the bytes the signature covers, `payload`
    the document inside, `payload_type` its DSSE type (empty in the legacy format). Where the signer has no
    key of their own, `certificate` is what they signed with (DER) and `bundle` the whole of what was stored.
    """

    format: Format
    source: str
    signature: bytes = field(repr=False)
    message: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    payload_type: str = ""
    certificate: bytes = field(default=b"", repr=False)
    bundle: bytes = field(default=b"", repr=False)


def judge_signature(
    candidate: Candidate, wanted: Wanted, authorities: Sequence[Authority]
) -> Vouching | Rejected:
    """Weigh one signature object. Never raises: whatever is wrong with it is a reason not to count it."""
    # (5) Somebody known signed exactly these bytes. Nothing inside them is looked at before that.
    signer = find_signer(candidate, authorities)
    if signer is None:
        message = "it is signed, but by none of the keys and identities that count here"
        return Rejected(Reason.UNKNOWN_KEY, message, step=5)
    # (6) The signed document is of the right type and has one meaning only; (7) it is about this digest;
    # (8) it is about this repository.
    try:
        if candidate.format is Format.LEGACY:
            repository, rejected = _check_payload(candidate, wanted)
        else:
            repository, rejected = _check_statement(candidate, wanted)
    except FormatError as error:
        message = f"a signature by {signer.authorities[0]} cannot be used: {error}"
        return Rejected(Reason.MALFORMED, message, step=6)
    if rejected is not None:
        return rejected
    bound = repository == wanted.repository
    return Vouching(candidate.format, candidate.source, signer.authorities, signer.key, bound)


def judge_digest(
    found: Sequence[Vouching | Rejected], unreadable: int, digest: str, demand: Demand
) -> tuple[Evidence, Rejected | None]:
    """Sum up all signature objects of one digest; the second value says what is missing, if something is.

    Formats and objects are alternatives: one good signature of an authority suffices, and junk beside it,
    which anybody who may push can leave there, changes nothing. `unreadable` counts objects that did not even
    parse.
    """
    vouchings = tuple(one for one in found if isinstance(one, Vouching))
    rejections = [one for one in found if isinstance(one, Rejected)]
    by = tuple(dict.fromkeys(name for one in vouchings for name in one.authorities))
    evidence = Evidence(digest, by, signatures=vouchings, ignored=len(rejections) + unreadable)
    if by:
        return evidence, judge_signers(evidence, demand)
    if rejections:
        order = list(Reason)
        return evidence, min(rejections, key=lambda one: order.index(one.reason))
    if unreadable:
        sentence = f"it has no signature, only {unreadable} objects beside it that cannot be used as one"
        return evidence, Rejected(Reason.UNSIGNED, sentence)
    return evidence, Rejected(Reason.UNSIGNED, "it is not signed")


def judge_signers(
    evidence: Evidence, demand: Demand, only: AbstractSet[str] | None = None
) -> Rejected | None:
    """Tell what the signers of a digest lack of the demand, None for nothing; `only` these names count."""
    # (9) Enough different authorities, each with a signer that stands for no other; the required among them.
    signers: dict[str, set[str]] = {}
    for one in evidence.signatures:
        names = {name for name in one.authorities if only is None or name in only}
        signers.setdefault(one.key, set()).update(names)
    count = different_authorities(signers)
    if count < demand.threshold:
        message = (
            f"{count} of the {demand.threshold} different authorities that are asked for signed it "
            f"({', '.join(evidence.by) or 'nobody'}; one key counts once)"
        )
        return Rejected(Reason.TOO_FEW_AUTHORITIES, message, step=9)
    missing = unmatched_authorities(signers, demand.required)
    if missing:
        message = f"{', '.join(sorted(missing))} has not signed it, and must have"
        return Rejected(Reason.REQUIRED_AUTHORITY_MISSING, message, step=9)
    return None


@dataclass(frozen=True)
class Signer:
    """Who made a signature: the authorities that it stands for, and what tells it from other signers."""

    authorities: tuple[str, ...]
    key: str


def find_signer(candidate: Candidate, authorities: Sequence[Authority]) -> Signer | None:
    """Find who signed a candidate's message, None for nobody known. The algorithm is the key's own.

    Several keys cannot be told apart by one signature, so that it counts as one signer in any case.
    """
    if candidate.certificate:
        names = tuple(
            authority.name
            for authority in authorities
            if any(identity.verifies(candidate.bundle) for identity in authority.identities)
        )
        return Signer(names, certificate_identity(candidate.certificate)) if names else None
    matching = [
        (authority.name, key)
        for authority in authorities
        for key in authority.keys
        if key.verifies(candidate.signature, candidate.message)
    ]
    if not matching:
        return None
    return Signer(tuple(dict.fromkeys(name for name, _ in matching)), matching[0][1].fingerprint)


def _check_payload(candidate: Candidate, wanted: Wanted) -> tuple[str | None, Rejected | None]:
    claims = parse_payload(candidate.payload)  # (6)
    if claims.digest != wanted.digest:  # (7)
        return None, _other_digest(claims.digest, wanted)
    if claims.repository != wanted.repository and not wanted.any_repository:  # (8)
        return None, _other_repository(claims.repository, wanted)
    return claims.repository, None


def _check_statement(candidate: Candidate, wanted: Wanted) -> tuple[str | None, Rejected | None]:
    statement = parse_statement(candidate.payload_type, candidate.payload)  # (6)
    if statement.predicate_type != SIGN_PREDICATE_TYPE:
        sentence = (
            f"it has only an attestation of type {statement.predicate_type[:128]!r}, which is no signature"
        )
        return None, Rejected(Reason.ONLY_ATTESTATION, sentence, step=6)
    subject = _only_subject(statement)
    digest = f"sha256:{subject.digests.get('sha256', '')}"
    if digest != wanted.digest:  # (7)
        return None, _other_digest(digest, wanted)
    repository = subject.annotations.get(REPOSITORY_ANNOTATION)
    if repository != wanted.repository and not wanted.any_repository:  # (8)
        return None, _other_repository(repository, wanted)
    return repository, None


def _only_subject(statement: Statement) -> Subject:
    # An attestation may speak of many things; a signature over two would let one pass for the other.
    if len(statement.subjects) != 1:
        raise FormatError(f"the signed statement has {len(statement.subjects)} subjects, not one")
    return statement.subjects[0]


def _other_digest(digest: str, wanted: Wanted) -> Rejected:
    message = f"the signature stored for {wanted.digest} is about {digest}: it was moved"
    return Rejected(Reason.OTHER_DIGEST, message, step=7)


def _other_repository(repository: str | None, wanted: Wanted) -> Rejected:
    if repository is None:
        message = (
            f"its signature names no repository, so it would be as good for a copy elsewhere; sign with "
            f"`cosign sign -a {REPOSITORY_ANNOTATION}={wanted.repository}` or set `acceptCopies`"
        )
    else:
        message = f"its signature is for the repository {repository[:256]!r}, not for {wanted.repository!r}"
    return Rejected(Reason.OTHER_REPOSITORY, message, step=8)
