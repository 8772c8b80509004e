"""What may be signed: one of our own documents about an image, and no other bytes. Pure.

A signature is a statement to everybody who trusts the key. So the message is read as strictly as a verifier
reads it, and its bytes must be those that our own code writes for what it says: nothing can hide in it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from edgemodel_operator.adapters.attested import CYCLONEDX, PROVENANCE, SPDX
from edgemodel_operator.adapters.signer_protocol import MAX_MESSAGE_BYTES
from edgemodel_operator.core.glob import glob_matches
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.reference import InvalidReference, parse_reference
from edgemodel_operator.signing.bundle import (
    REPOSITORY_ANNOTATION,
    SIGN_PREDICATE_TYPE,
    STATEMENT_MEDIA_TYPE,
    STATEMENT_TYPES,
    make_statement,
    parse_statement,
    pre_authentication_encoding,
)
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.simple_signing import make_payload, parse_payload
from edgemodel_operator.signing.strict_json import (
    list_member,
    parse_strict_json,
    refuse_unknown_members,
    string_member,
)


class Kind(StrEnum):
    """What a document says about an image."""

    SIMPLE_SIGNING = "simple-signing"
    """That it is signed, in cosign's first format."""
    SIGNATURE = "signature"
    """That it is signed, as an in-toto statement."""
    PROVENANCE = "provenance"
    """How it was built."""
    SPDX = "spdx"
    """What it consists of."""
    CYCLONEDX = "cyclonedx"
    """What it consists of."""


PREDICATE_KINDS = {
    SIGN_PREDICATE_TYPE: Kind.SIGNATURE,
    PROVENANCE: Kind.PROVENANCE,
    SPDX: Kind.SPDX,
    CYCLONEDX: Kind.CYCLONEDX,
}
"""The types of in-toto predicates that are signed."""

_STATEMENT = "the statement"
_STATEMENT_MEMBERS = frozenset({"_type", "subject", "predicateType", "predicate"})
_SUBJECT_MEMBERS = frozenset({"name", "digest", "annotations"})
_PAE = b"DSSEv1 "


class RefusalReason(StrEnum):
    """Why something is not signed."""

    NOT_A_DOCUMENT = "NotADocument"
    """It is none of the documents that are signed, or not written as we write it."""
    PREDICATE_TYPE = "PredicateTypeNotAllowed"
    """A statement of a type that is not signed."""
    REPOSITORY = "RepositoryNotAllowed"
    """It speaks of a repository that the configuration does not name."""


class Refused(Exception):  # noqa: N818 - reads as the fact it states
    """The message is not signed; the text says why, and what is signed instead."""

    def __init__(self, reason: RefusalReason, message: str, claim: Claim | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.claim = claim
        """What the message says, if it could be read."""


@dataclass(frozen=True)
class Claim:
    """What a message says about which image."""

    kind: Kind
    repository: str
    digest: str
    predicate_type: str = ""
    """Of a statement."""


def read_message(message: bytes, repositories: Collection[str]) -> Claim:
    """Say what a message claims, if it may be signed for one of the repositories (globs). Raises Refused.

    Takes about ten times the memory of the message, and a second for the largest.
    """
    try:
        claim = _read_statement(message) if message.startswith(_PAE) else _read_payload(message)
    except FormatError as error:
        raise Refused(
            RefusalReason.NOT_A_DOCUMENT,
            f"this is not signed: {error}; cosign's payload for an image is, and DSSE's encoding of an "
            "in-toto statement about one image",
        ) from None
    _require_name(claim)
    if not any(glob_matches(glob, claim.repository) for glob in repositories):
        raise Refused(
            RefusalReason.REPOSITORY,
            f"nothing is signed about {claim.repository}: name it in signing.repositories of the chart",
            claim,
        )
    return claim


def _read_payload(message: bytes) -> Claim:
    claims = parse_payload(message)
    if make_payload(claims.repository, claims.digest) != message:
        raise FormatError("the payload is not written as the operator writes it")
    return Claim(Kind.SIMPLE_SIGNING, claims.repository, claims.digest)


def _read_statement(message: bytes) -> Claim:
    # Type and length stand before the payload; writing them again proves that they are right.
    payload = message.split(b" ", 4)[-1]
    if pre_authentication_encoding(STATEMENT_MEDIA_TYPE, payload) != message:
        raise FormatError(f"it is not DSSE's encoding of one {STATEMENT_MEDIA_TYPE}")
    document = parse_strict_json(payload, max_bytes=MAX_MESSAGE_BYTES, what=_STATEMENT)
    refuse_unknown_members(document, _STATEMENT_MEMBERS, _STATEMENT)
    if string_member(document, "_type", _STATEMENT) not in STATEMENT_TYPES:
        raise FormatError(f"{_STATEMENT} is not an in-toto statement of version 1 or 0.1")
    predicate_type = string_member(document, "predicateType", _STATEMENT)
    if predicate_type not in PREDICATE_KINDS:
        raise Refused(
            RefusalReason.PREDICATE_TYPE,
            f"statements of type {predicate_type[:128]!r} are not signed; those of "
            f"{', '.join(PREDICATE_KINDS)} are",
        )
    if not isinstance(document.get("predicate"), dict) or canonical_json(document) != payload:
        raise FormatError(f"{_STATEMENT} is not written as the operator writes it")
    repository, digest = _read_subject(document, payload)
    if predicate_type == SIGN_PREDICATE_TYPE and make_statement(repository, digest) != payload:
        raise FormatError(f"{_STATEMENT} says more than that the image is signed")
    return Claim(PREDICATE_KINDS[predicate_type], repository, digest, predicate_type)


def _read_subject(document: dict[str, object], payload: bytes) -> tuple[str, str]:
    """Give repository and digest of the one subject, which names nothing else."""
    subjects = list_member(document, "subject", _STATEMENT)
    if len(subjects) != 1 or not isinstance(subjects[0], dict):
        raise FormatError(f"{_STATEMENT} has {len(subjects)} subjects, not one")
    refuse_unknown_members(subjects[0], _SUBJECT_MEMBERS, "the subject of the statement")
    (subject,) = parse_statement(STATEMENT_MEDIA_TYPE, payload).subjects
    if subject.digests.keys() != {"sha256"} or subject.annotations.keys() != {REPOSITORY_ANNOTATION}:
        raise FormatError(
            f"{_STATEMENT} must name its subject by a sha256 digest and the annotation "
            f"{REPOSITORY_ANNOTATION}, and by nothing else"
        )
    repository = subject.annotations[REPOSITORY_ANNOTATION]
    if subjects[0].get("name", repository) != repository:
        raise FormatError(f"{_STATEMENT} gives its subject two names")
    return repository, f"sha256:{subject.digests['sha256']}"


def _require_name(claim: Claim) -> None:
    try:
        plain = parse_reference(claim.repository).name == claim.repository
    except InvalidReference:
        plain = False
    if not plain:
        sentence = f"{claim.repository[:255]!r} is no name of a repository: write host/path without tag"
        raise Refused(RefusalReason.NOT_A_DOCUMENT, f"this is not signed: {sentence}", claim)
