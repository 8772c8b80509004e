"""Sign an image as `cosign sign --recursive` does: an index and each platform in it, in both formats.

Signing twice adds nothing: a signature by the same key over the same claims is kept. Others' signatures are
kept as well, also when several signers work on one image at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from edgemodel_operator.oci.descriptor import INDEX_TYPES, Descriptor
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.attached import BundlePart, Part, keep_bundles, keep_layers
from edgemodel_operator.signing.errors import FormatError, NotSignable
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.stored import read_image, read_signatures
from edgemodel_operator.signing.verdict import Format

BOTH = frozenset({Format.LEGACY, Format.BUNDLE})

SignManifest: TypeAlias = Callable[[Descriptor], Awaitable[frozenset[Format]]]
"""Signs one manifest, and tells in which formats something was written."""


@dataclass(frozen=True)
class SignedDigest:
    """One digest that each signer has now signed in each wanted format.

    `descriptor` describes its manifest, `platform` is empty for the index itself and for a single image;
    `added` are the formats in which at least one signature was written just now.
    """

    descriptor: Descriptor
    platform: str
    added: frozenset[Format]

    @property
    def digest(self) -> str:
        """Name the manifest."""
        return self.descriptor.digest


async def sign_image(
    client: RegistryClient,
    image: Reference,
    signers: Sequence[Signer],
    *,
    formats: Collection[Format] = BOTH,
) -> tuple[SignedDigest, ...]:
    """Sign what `image` names by digest and, if that is an index, each manifest in it; the index comes first.

    All signers sign everything, as in the overlap of a rotation. Platforms are signed before their index:
    whoever sees a signed index can rely on its parts. Raises `NotSignable`, `SignatureLost` and
    `RegistryError`, and what a signer raises.
    """
    job = _Signing(client, image, tuple(signers), frozenset(formats))
    return await for_each_manifest(client, image, job.sign)


async def for_each_manifest(
    client: RegistryClient, image: Reference, sign: SignManifest
) -> tuple[SignedDigest, ...]:
    """Sign each platform that an index lists, then the index; the answer has the index first."""
    if image.digest is None:
        raise NotSignable(f"{image} names no digest; a tag cannot be signed, since it may move")
    top, platforms = await _read(client, image)

    async def sign_platform(platform: Descriptor) -> SignedDigest:
        # Read it first: a signature must not vouch for bytes that nobody could ever fetch.
        descriptor, _ = await _read(client, image.with_digest(platform.digest))
        return SignedDigest(descriptor, str(platform.platform or ""), await sign(descriptor))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(sign_platform(platform)) for platform in platforms]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return (SignedDigest(top, "", await sign(top)), *(task.result() for task in tasks))


async def _read(client: RegistryClient, image: Reference) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    try:
        manifest, platforms = await read_image(client, image)
    except FormatError as error:
        raise NotSignable(f"{image} cannot be signed: {error}") from None
    if any(platform.media_type in INDEX_TYPES for platform in platforms):
        raise NotSignable(f"{image} cannot be signed: it is an index of indexes")
    return manifest.descriptor, platforms


@dataclass(frozen=True)
class _Signing:
    """What stays the same for all digests of one image."""

    client: RegistryClient
    image: Reference
    signers: tuple[Signer, ...]
    formats: frozenset[Format]

    async def sign(self, subject: Descriptor) -> frozenset[Format]:
        added = set()
        for kind in sorted(self.formats):
            claims = self.claims(subject.digest, kind)
            missing = await self.missing(subject.digest, kind, claims)
            if missing:
                add = self.add_legacy if kind is Format.LEGACY else self.add_bundles
                await add(subject, claims, missing)
                added.add(kind)
        return frozenset(added)

    def claims(self, digest: str, kind: Format) -> bytes:
        """Give the document that is signed."""
        if kind is Format.LEGACY:
            return simple_signing.make_payload(self.image.name, digest)
        return bundle.make_statement(self.image.name, digest)

    async def missing(self, digest: str, kind: Format, claims: bytes) -> list[Signer]:
        """Tell which signers have not signed exactly these claims yet, each key once."""
        found = await read_signatures(self.client, self.image, digest, kind)
        ours = [one for one in found.candidates if one.payload == claims]
        by_key = {signer.public_key.fingerprint: signer for signer in self.signers}
        return [
            signer
            for signer in by_key.values()
            if not any(signer.public_key.verifies(one.signature, one.message) for one in ours)
        ]

    async def add_legacy(self, subject: Descriptor, claims: bytes, signers: Sequence[Signer]) -> None:
        described = Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, claims)
        layers = [simple_signing.SignatureLayer(described, await signer.sign(claims)) for signer in signers]
        tag = self.image.with_tag(simple_signing.signature_tag(subject.digest))
        parts = [Part(simple_signing.describe_layer(layer), claims) for layer in layers]
        await keep_layers(self.client, tag, parts)

    async def add_bundles(self, subject: Descriptor, claims: bytes, signers: Sequence[Signer]) -> None:
        message = bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, claims)
        bundles = [
            bundle.make_bundle(claims, await signer.sign(message), signer.public_key.hint)
            for signer in signers
        ]
        await keep_bundles(self.client, self.image, subject, [BundlePart(one) for one in bundles])
