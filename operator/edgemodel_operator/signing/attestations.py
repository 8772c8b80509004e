"""Decide whether a signed statement is an attestation that is asked for: no I/O, no clock.

What a statement says is about bytes, not about where they lie: it is bound to a digest, and the repository is
bound by the image's signature, which is asked for in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemodel_operator.signing.bundle import Statement, parse_statement
from edgemodel_operator.signing.demand import Authority, WantedAttestation
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.judge import Candidate, Signer, find_signer
from edgemodel_operator.signing.verdict import Attested, Reason, Rejected

NOTHING_FOUND = "is missing"
"""How the sentence ends when nothing at all is there that could have been the attestation."""

_TELLS_MOST = (
    Reason.ATTESTATION_CHECK_FAILED,
    Reason.OTHER_DIGEST,
    Reason.MALFORMED,
    Reason.UNKNOWN_KEY,
    Reason.ATTESTATION_MISSING,
)


@dataclass(frozen=True)
class SignedStatement:
    """A statement by somebody known, about the digest in question."""

    candidate: Candidate
    signer: Signer
    predicate_type: str


def judge_statement(
    candidate: Candidate, digest: str, authorities: Sequence[Authority]
) -> SignedStatement | Rejected:
    """Weigh one signed statement, whatever its type. Never raises."""
    signer = find_signer(candidate, authorities)
    if signer is None:
        message = "it is signed by none of the keys and identities that count here"
        return Rejected(Reason.UNKNOWN_KEY, message, step=11)
    try:
        statement = parse_statement(candidate.payload_type, candidate.payload)
    except FormatError as error:
        return Rejected(Reason.MALFORMED, f"the one by {signer.authorities[0]}: {error}", step=11)
    if not _is_about(statement, digest):
        message = f"the one by {signer.authorities[0]} is not about {digest}"
        return Rejected(Reason.OTHER_DIGEST, message, step=11)
    return SignedStatement(candidate, signer, statement.predicate_type)


def match_attestation(statement: SignedStatement, wanted: WantedAttestation) -> Attested | Rejected:
    """Tell whether a statement is of the type asked for and by somebody who may say so."""
    if statement.predicate_type != wanted.predicate_type:
        message = f"there is one of type {statement.predicate_type[:128]!r} only"
        return Rejected(Reason.ATTESTATION_MISSING, message, step=11)
    names = statement.signer.authorities
    allowed = tuple(name for name in names if not wanted.authorities or name in wanted.authorities)
    if not allowed:
        message = f"there is one by {names[0]}, who is not among {', '.join(sorted(wanted.authorities))}"
        return Rejected(Reason.UNKNOWN_KEY, message, step=11)
    source, key = statement.candidate.source, statement.signer.key
    return Attested(wanted.name, wanted.predicate_type, source, allowed, key)


def missing_attestation(wanted: WantedAttestation, rejected: Sequence[Rejected]) -> Rejected:
    """Say that an attestation is not there, and of what was found instead that which tells most."""
    what = f'the attestation "{wanted.name}" of type {wanted.predicate_type}'
    if not rejected:
        return Rejected(Reason.ATTESTATION_MISSING, f"{what} {NOTHING_FOUND}", step=11)
    best = min(rejected, key=lambda one: _TELLS_MOST.index(one.reason))
    if best.reason is Reason.ATTESTATION_CHECK_FAILED:
        return Rejected(best.reason, f"{what} does not pass: {best.message}", step=11)
    return Rejected(Reason.ATTESTATION_MISSING, f"{what} is missing: {best.message}", step=11)


def _is_about(statement: Statement, digest: str) -> bool:
    return any(f"sha256:{subject.digests.get('sha256')}" == digest for subject in statement.subjects)
