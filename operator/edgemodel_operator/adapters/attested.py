"""Attesting what a build says of its image: bills of materials and provenance become signed statements.

A document is named by the digest of the manifest that ties it to its image, as the build reported it: what
else is attached to the image may be anybody's, and is never signed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from edgemodel_operator.oci.descriptor import Descriptor, InvalidDescriptor, canonical_json
from edgemodel_operator.oci.image import parse_index
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.attestations import SignedStatement, judge_statement
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import FormatError, NotSignable
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.stored_attestations import list_statements, read_statement
from edgemodel_operator.signing.strict_json import object_member, parse_strict_json, string_member
from edgemodel_operator.signing.verdict import Format

MAX_DOCUMENT_BYTES = 16 * 1024 * 1024

SPDX = "https://spdx.dev/Document"
CYCLONEDX = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
ATTESTED = frozenset({SPDX, CYCLONEDX, PROVENANCE})
"""The types of predicates that are attested of every image."""

_BILLS = {"application/spdx+json": SPDX, "application/vnd.cyclonedx+json": CYCLONEDX}
_STATEMENT = "application/vnd.in-toto+json"


async def attest_documents(
    client: RegistryClient, image: Reference, documents: Sequence[str], signers: Sequence[Signer]
) -> None:
    """Attest with every signer what the documents say of the index `image` and of its platforms.

    `documents` are digests of manifests. What is attested already adds nothing. The index comes last: who
    finds its provenance finds the rest. Raises `NotSignable` for a document that is about something else or
    of no known kind, `SigningError` and `RegistryError`.
    """
    subjects = await _subjects(client, image)
    attestations: dict[str, list[Attestation]] = {digest: [] for digest in subjects}
    for document in documents:
        subject, attestation = await _read_document(client, image.with_digest(document))
        if subject not in subjects:
            raise NotSignable(f"the document {document} is about {subject}, which is no part of {image}")
        attestations[subject].append(attestation)
    for digest, described in subjects.items():
        await attest_digest(client, image, described, attestations[digest], signers)


async def renew_attestations(client: RegistryClient, image: Reference, signers: Sequence[Signer]) -> None:
    """Have every signer attest what any of them attested before: a new key takes over what an old one said.

    Raises `SigningError` and `RegistryError`.
    """
    ours = Authority("operator", tuple(signer.public_key for signer in signers))
    for subject in (await _subjects(client, image)).values():
        found = {
            statement.candidate.payload: statement
            async for statement in _statements(client, image, subject.digest, ours)
            if statement.predicate_type in ATTESTED
        }
        attestations = [_predicate_of(statement.candidate.payload) for statement in found.values()]
        await attest_digest(client, image, subject, attestations, signers)


async def _subjects(client: RegistryClient, image: Reference) -> Mapping[str, Descriptor]:
    """Give what can be attested by its digest: the platforms of an index, and then itself."""
    index = await client.get_manifest(image)
    return {one.digest: one for one in (*parse_index(index.body).manifests, index.descriptor)}


async def _read_document(client: RegistryClient, document: Reference) -> tuple[str, Attestation]:
    """Read what a document is about (a digest), and what it says."""
    manifest = (await client.get_manifest(document)).json()
    try:
        subject = Descriptor.from_json(manifest.get("subject"))
        (layer,) = (Descriptor.from_json(one) for one in manifest.get("layers", ()))
    except (InvalidDescriptor, ValueError, TypeError):
        raise NotSignable(f"{document} is not the manifest of a document") from None
    content = await client.get_blob(document, layer.digest, max_bytes=MAX_DOCUMENT_BYTES)
    try:
        return subject.digest, _attestation(layer.media_type, content)
    except (FormatError, KeyError) as error:
        raise NotSignable(f"{document} cannot be attested: {error}") from None


def _attestation(media_type: str, content: bytes) -> Attestation:
    return _predicate_of(content) if media_type == _STATEMENT else Attestation(_BILLS[media_type], content)


def _predicate_of(statement: bytes) -> Attestation:
    what = "the statement"
    document = parse_strict_json(statement, max_bytes=MAX_DOCUMENT_BYTES, what=what)
    predicate = canonical_json(object_member(document, "predicate", what))
    return Attestation(string_member(document, "predicateType", what), predicate)


async def _statements(
    client: RegistryClient, image: Reference, digest: str, by: Authority
) -> AsyncIterator[SignedStatement]:
    """Give the statements about a digest that somebody signed."""
    for kind in Format:
        listing = await list_statements(client, image, digest, kind)
        if listing.errors:
            raise listing.errors[0]
        for stored in listing.stored:
            try:
                candidate = await read_statement(client, image, stored, kind)
            except FormatError:
                continue  # what cannot be read is none of ours
            judged = judge_statement(candidate, digest, (by,)) if candidate is not None else None
            if isinstance(judged, SignedStatement):
                yield judged
