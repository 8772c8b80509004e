"""Attest: sign statements about a manifest, and put them beside it in cosign's two formats.

A statement is an in-toto Statement v1 whose only subject is the manifest, in one repository; it is signed in
a DSSE envelope. Legacy: a layer with the envelope under the tag `sha256-<hex>.att`. Bundle: a Sigstore bundle
that refers to the manifest. The same predicate by the same key is stored once; others' attestations stay.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edgemodel_operator.oci.descriptor import Descriptor, canonical_json
from edgemodel_operator.oci.errors import NotFound, TooLarge
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.attached import (
    MAX_REFERRERS_TO_KEEP,
    BundlePart,
    Part,
    keep_bundles,
    keep_layers,
    read_tag,
)
from edgemodel_operator.signing.errors import FormatError, NotSignable
from edgemodel_operator.signing.judge import Candidate
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.sign import BOTH
from edgemodel_operator.signing.stored import MAX_OBJECTS, Stored
from edgemodel_operator.signing.stored_attestations import (
    ENVELOPE_MEDIA_TYPE,
    attestation_tag,
    read_statement,
    turn,
    within_limits,
)
from edgemodel_operator.signing.strict_json import parse_strict_json
from edgemodel_operator.signing.tag_manifest import layers_of
from edgemodel_operator.signing.verdict import Format

PREDICATE_TYPE_ANNOTATION = "predicateType"
"""Annotation of an envelope's layer. Unsigned: it saves reading others, and decides nothing."""

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

MAX_PREDICATE_BYTES = 8 * 1024 * 1024
"""Base64 adds a third, and verifiers read bundles of up to `bundle.MAX_BUNDLE_BYTES`."""

MAX_AROUND_BYTES = 16 * 1024
"""What an envelope or a bundle holds besides its payload: names, and one signature with its key."""

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21-\x7e]+\Z")


@dataclass(frozen=True)
class Attestation:
    """What is said of an image: the type of the predicate as a URI, and the predicate, a JSON object."""

    predicate_type: str
    predicate: bytes = field(repr=False)


@dataclass(frozen=True)
class _Statement:
    """What one attestation has the signers sign."""

    predicate_type: str
    payload: bytes = field(repr=False)

    @property
    def message(self) -> bytes:
        return bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, self.payload)


class _Missing(NamedTuple):
    """A statement that a signer has not signed yet, as far as is known."""

    statement: _Statement
    signer: Signer

    def is_in(self, found: Candidate) -> bool:
        """Whether this is what was found; nobody has checked its signature before."""
        same = found.payload == self.statement.payload
        return same and self.signer.public_key.verifies(found.signature, self.statement.message)

    def may_have(self, size: int) -> bool:
        """Whether something stored of so many bytes can be this: what surely is not need not be read."""
        return 0 <= size - _base64_length(len(self.statement.payload)) <= MAX_AROUND_BYTES


def make_attestation(repository: str, digest: str, attestation: Attestation) -> bytes:
    """Return the statement that says the predicate of `digest` in `repository`. Raises NotSignable."""
    kind = attestation.predicate_type
    if _URI.match(kind) is None or len(kind) > 512:
        raise NotSignable(
            f"{kind[:128]!r} is no predicate type: give a URI such as https://spdx.dev/Document"
        )
    if kind == bundle.SIGN_PREDICATE_TYPE:
        raise NotSignable(f"{kind} is the type of a signature: sign the image instead of attesting that")
    try:
        predicate = parse_strict_json(
            attestation.predicate, max_bytes=MAX_PREDICATE_BYTES, what=f"the predicate of type {kind}"
        )
    except FormatError as error:
        raise NotSignable(str(error)) from None
    subject = {
        "name": repository,
        "digest": {"sha256": digest.removeprefix("sha256:")},
        "annotations": {bundle.REPOSITORY_ANNOTATION: repository},
    }
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": [subject], "predicateType": kind, "predicate": predicate}
    )


def make_envelope(statement: bytes, signature: bytes) -> bytes:
    """Return the DSSE envelope as cosign stores it in a layer, where each signature has an empty key id."""
    return canonical_json(
        {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": bundle.STATEMENT_MEDIA_TYPE,
            "signatures": [{"keyid": "", "sig": base64.b64encode(signature).decode()}],
        }
    )


async def attest_digest(
    client: RegistryClient,
    image: Reference,
    subject: Descriptor,
    attestations: Sequence[Attestation],
    signers: Sequence[Signer],
    formats: Collection[Format] = BOTH,
) -> frozenset[Format]:
    """Have every signer attest everything about the manifest `subject` in the repository of `image`.

    Tells in which formats something was written just now. Raises NotSignable, SignatureLost, RegistryError
    and what a signer raises.
    """
    statements = [
        _Statement(one.predicate_type, make_attestation(image.name, subject.digest, one))
        for one in attestations
    ]
    job = _Attesting(client, image, subject, tuple(statements), tuple(signers))
    return frozenset([kind for kind in sorted(set(formats)) if await job.attest(kind)])


@dataclass(frozen=True)
class _Attesting:
    """What stays the same in both formats."""

    client: RegistryClient
    image: Reference
    subject: Descriptor
    statements: tuple[_Statement, ...]
    signers: tuple[Signer, ...]

    @property
    def types(self) -> frozenset[str]:
        return frozenset(statement.predicate_type for statement in self.statements)

    @property
    def tag(self) -> Reference:
        return self.image.with_tag(attestation_tag(self.subject.digest))

    async def attest(self, kind: Format) -> bool:
        missing = await self.missing(kind)
        signed = [(one, signer, await signer.sign(one.message)) for one, signer in missing]
        if signed and kind is Format.LEGACY:
            parts = [_layer(one.predicate_type, make_envelope(one.payload, made)) for one, _, made in signed]
            await keep_layers(self.client, self.tag, parts)
        elif signed:
            bundles = [
                BundlePart(bundle.make_bundle(one.payload, made, signer.public_key.hint), one.predicate_type)
                for one, signer, made in signed
            ]
            await keep_bundles(self.client, self.image, self.subject, bundles)
        return bool(signed)

    async def missing(self, kind: Format) -> list[_Missing]:
        """Tell who has not signed what yet, each key once.

        Whoever may push can store as much as they like: little is read, one after the other, nothing kept.
        """
        by_key = {signer.public_key.fingerprint: signer for signer in self.signers}
        missing = [
            _Missing(statement, signer)
            for statement in dict.fromkeys(self.statements)
            for signer in by_key.values()
        ]
        stored = await (self.stored_legacy() if kind is Format.LEGACY else self.stored_bundles())
        likely = [one for one in stored if any(our.may_have(one.blob.size) for our in missing)]
        for one in within_limits(likely).stored:
            async with turn(one):
                missing = await self.without(one, missing, kind)
        return missing

    async def without(self, stored: Stored, missing: list[_Missing], kind: Format) -> list[_Missing]:
        """Leave out what one stored statement is, which is read unless it can be none of them."""
        if not any(our.may_have(stored.blob.size) for our in missing):
            return missing
        try:
            found = await read_statement(self.client, self.image, stored, kind)
        except (NotFound, TooLarge, FormatError):
            return missing
        return [our for our in missing if found is None or not our.is_in(found)]

    async def stored_legacy(self) -> list[Stored]:
        _, document = await read_tag(self.client, self.tag)
        return [
            Stored(layer.digest, layer)
            for layer in layers_of(document)
            if layer.media_type == ENVELOPE_MEDIA_TYPE
            and layer.annotations.get(PREDICATE_TYPE_ANNOTATION) in self.types
        ]

    async def stored_bundles(self) -> list[Stored]:
        listed = await self.client.list_referrers(
            self.image, self.subject.digest, max_referrers=MAX_REFERRERS_TO_KEEP
        )
        found = await asyncio.gather(*(self.find_bundle(one) for one in _worth_reading(listed, self.types)))
        return [one for one in found if one is not None]

    async def find_bundle(self, referrer: Descriptor) -> Stored | None:
        try:
            manifest = await self.client.get_manifest(
                self.image.with_digest(referrer.digest), max_bytes=bundle.MAX_MANIFEST_BYTES
            )
            where = bundle.parse_bundle_manifest(manifest.body)
        except (NotFound, TooLarge, FormatError):
            return None
        return Stored(referrer.digest, where) if where is not None else None


def _base64_length(size: int) -> int:
    """Give how many characters so many bytes take in base64."""
    return (size + 2) // 3 * 4


def _layer(predicate_type: str, envelope: bytes) -> Part:
    described = Descriptor.of(ENVELOPE_MEDIA_TYPE, envelope)
    # Cosign's readers want the signature's annotation to be there, although it stands in the envelope.
    annotations = {"dev.cosignproject.cosign/signature": "", PREDICATE_TYPE_ANNOTATION: predicate_type}
    return Part(
        Descriptor(described.media_type, described.digest, described.size, annotations=annotations), envelope
    )


def _worth_reading(listed: Iterable[Descriptor], types: frozenset[str]) -> list[Descriptor]:
    """Leave out what calls itself an attestation of other types; lists need not say of what type one is."""
    named = [one for one in listed if one.annotations.get(bundle.PREDICATE_TYPE_ANNOTATION) in {None, *types}]
    return named[:MAX_OBJECTS]
