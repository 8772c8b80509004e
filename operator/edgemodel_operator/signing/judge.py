"""Decide who vouches for a digest, from facts alone: no I/O, no clock.

`judge_signature` weighs one signature object, `judge_digest` all of those found for one digest. Steps 5 to 8
of the procedure that `verify` writes down are here; each block carries its number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemodel_operator.signing.bundle import (
    REPOSITORY_ANNOTATION,
    SIGN_PREDICATE_TYPE,
    Statement,
    Subject,
    parse_statement,
)
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.simple_signing import parse_payload
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
    the document inside, `payload_type` its DSSE type (empty in the legacy format).
    """

    format: Format
    source: str
    signature: bytes = field(repr=False)
    message: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    payload_type: str = ""


def judge_signature(
    candidate: Candidate, wanted: Wanted, authorities: Sequence[Authority]
) -> Vouching | Rejected:
    """Weigh one signature object. Never raises: whatever is wrong with it is a reason not to count it."""
    # (5) A configured key signed exactly these bytes. Nothing inside them is looked at before that.
    matching = [
        (authority.name, key)
        for authority in authorities
        for key in authority.keys
        if key.verifies(candidate.signature, candidate.message)
    ]
    if not matching:
        return Rejected(Reason.UNKNOWN_KEY, "it is signed, but with none of the keys that count here")
    # (6) The signed document is of the right type and has one meaning only; (7) it is about this digest;
    # (8) it is about this repository.
    names = tuple(dict.fromkeys(name for name, _ in matching))
    try:
        if candidate.format is Format.LEGACY:
            repository, rejected = _check_payload(candidate, wanted)
        else:
            repository, rejected = _check_statement(candidate, wanted)
    except FormatError as error:
        return Rejected(Reason.MALFORMED, f"a signature by {names[0]} cannot be used: {error}")
    if rejected is not None:
        return rejected
    bound = repository == wanted.repository
    return Vouching(candidate.format, candidate.source, names, matching[0][1].fingerprint, bound)


def judge_digest(
    found: Sequence[Vouching | Rejected], unreadable: int, wanted: Wanted
) -> tuple[Evidence, Rejected | None]:
    """Sum up all signature objects of one digest; the second value says why nobody vouches, if so.

    Formats and objects are alternatives: one good signature suffices, and junk beside it, which anybody who
    may push can leave there, changes nothing. `unreadable` counts objects that did not even parse.
    """
    vouchings = tuple(one for one in found if isinstance(one, Vouching))
    rejections = [one for one in found if isinstance(one, Rejected)]
    by = tuple(dict.fromkeys(name for one in vouchings for name in one.authorities))
    evidence = Evidence(wanted.digest, by, signatures=vouchings, ignored=len(rejections) + unreadable)
    if by:
        return evidence, None
    if rejections:
        order = list(Reason)
        return evidence, min(rejections, key=lambda one: order.index(one.reason))
    if unreadable:
        sentence = f"it has no signature, only {unreadable} objects beside it that cannot be used as one"
        return evidence, Rejected(Reason.UNSIGNED, sentence)
    return evidence, Rejected(Reason.UNSIGNED, "it is not signed")


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
        return None, Rejected(Reason.ONLY_ATTESTATION, sentence)
    subject = _only_subject(statement)
    digest = f"sha256:{subject.digests.get('sha256', '')}"
    if digest != wanted.digest:  # (7)
        return None, _other_digest(digest, wanted)
    repository = subject.annotations.get(REPOSITORY_ANNOTATION)
    if repository not in {None, wanted.repository} and not wanted.any_repository:  # (8)
        return None, _other_repository(str(repository), wanted)
    return repository, None


def _only_subject(statement: Statement) -> Subject:
    # An attestation may speak of many things; a signature over two would let one pass for the other.
    if len(statement.subjects) != 1:
        raise FormatError(f"the signed statement has {len(statement.subjects)} subjects, not one")
    return statement.subjects[0]


def _other_digest(digest: str, wanted: Wanted) -> Rejected:
    return Rejected(
        Reason.OTHER_DIGEST, f"the signature stored for {wanted.digest} is about {digest}: it was moved"
    )


def _other_repository(repository: str, wanted: Wanted) -> Rejected:
    return Rejected(
        Reason.OTHER_REPOSITORY,
        f"its signature is for the repository {repository[:256]!r}, not for {wanted.repository!r}",
    )
