"""Sign an image as `cosign sign --recursive` does: an index and each platform in it, in both formats.

Signing twice adds nothing: a valid signature by the same key is kept. Others' signatures are kept as well,
also when several signers work on one image at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from edgemodel_operator.oci.descriptor import (
    INDEX_TYPES,
    OCI_MANIFEST,
    Descriptor,
    sha256_digest,
)
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle, simple_signing
from edgemodel_operator.signing.contention import write_until_kept
from edgemodel_operator.signing.demand import Authority
from edgemodel_operator.signing.errors import FormatError, NotSignable
from edgemodel_operator.signing.judge import Wanted, judge_signature
from edgemodel_operator.signing.keys import Signer
from edgemodel_operator.signing.stored import read_image, read_signatures
from edgemodel_operator.signing.verdict import Format, Vouching

MAX_REFERRERS_TO_KEEP = 1000

BOTH = frozenset({Format.LEGACY, Format.BUNDLE})


@dataclass(frozen=True)
class SignedDigest:
    """One digest that now has a signature in each wanted format; `added` are the formats written just now."""

    digest: str
    platform: str
    added: frozenset[Format]


async def sign_image(
    client: RegistryClient,
    image: Reference,
    signer: Signer,
    *,
    formats: Collection[Format] = BOTH,
) -> tuple[SignedDigest, ...]:
    """Sign what `image` names by digest and, if that is an index, each manifest in it; the index comes first.

    Platforms are signed before their index: whoever sees a signed index can rely on its parts. Raises
    `NotSignable`, `SignatureLost` and `RegistryError`.
    """
    if image.digest is None:
        raise NotSignable(f"{image} names no digest; a tag cannot be signed, since it may move")
    top, platforms = await _read(client, image)
    job = _Signing(client, image, signer, frozenset(formats))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(job.sign_platform(platform)) for platform in platforms]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return (SignedDigest(image.digest, "", await job.sign(top)), *(task.result() for task in tasks))


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
    signer: Signer
    formats: frozenset[Format]

    async def sign_platform(self, platform: Descriptor) -> SignedDigest:
        # Read it first: a signature must not vouch for bytes that nobody could ever fetch.
        top, _ = await _read(self.client, self.image.with_digest(platform.digest))
        return SignedDigest(platform.digest, str(platform.platform or ""), await self.sign(top))

    async def sign(self, subject: Descriptor) -> frozenset[Format]:
        missing = [kind for kind in sorted(self.formats) if not await self.is_signed(subject.digest, kind)]
        for kind in missing:
            await (self.add_legacy(subject) if kind is Format.LEGACY else self.add_bundle(subject))
        return frozenset(missing)

    async def is_signed(self, digest: str, kind: Format) -> bool:
        found = await read_signatures(self.client, self.image, digest, kind)
        us = (Authority("this signer", (self.signer.public_key,)),)
        wanted = Wanted(self.image.name, digest)
        return any(isinstance(judge_signature(one, wanted, us), Vouching) for one in found.candidates)

    async def add_legacy(self, subject: Descriptor) -> None:
        payload = simple_signing.make_payload(self.image.name, subject.digest)
        described = Descriptor.of(simple_signing.PAYLOAD_MEDIA_TYPE, payload)
        layer = simple_signing.SignatureLayer(described, await self.signer.sign(payload))
        tag = self.image.with_tag(simple_signing.signature_tag(subject.digest))

        async def write() -> None:
            await self.client.put_blob(self.image, payload, described)
            digest, existing = await self.read_legacy(tag)
            made = simple_signing.make_signature_manifest(existing, [layer])
            await self.client.put_blob(self.image, made.config, made.config_descriptor)
            # Look once more, so that as little time as possible lies between what we read and our write.
            current = await self.client.head_manifest(tag)
            if (current.digest if current else "") == digest:
                await self.client.put_manifest(tag, made.body, OCI_MANIFEST)

        async def is_there() -> bool:
            _, existing = await self.read_legacy(tag)
            return existing is not None and layer in existing.layers

        await write_until_kept(write, is_there)

    async def read_legacy(self, tag: Reference) -> tuple[str, simple_signing.SignatureManifest | None]:
        try:
            manifest = await self.client.get_manifest(tag, max_bytes=simple_signing.MAX_MANIFEST_BYTES)
        except NotFound:
            return "", None
        try:
            return manifest.descriptor.digest, simple_signing.parse_signature_manifest(manifest.body)
        except FormatError:
            # Whatever stands there, no reader can take it for signatures: nothing is lost by replacing it.
            return manifest.descriptor.digest, None

    async def add_bundle(self, subject: Descriptor) -> None:
        statement = bundle.make_statement(self.image.name, subject.digest)
        message = bundle.pre_authentication_encoding(bundle.STATEMENT_MEDIA_TYPE, statement)
        signed = bundle.make_bundle(statement, await self.signer.sign(message), self.signer.public_key.hint)
        described = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, signed)
        body = bundle.make_bundle_manifest(described, subject)
        entry = Descriptor(
            OCI_MANIFEST,
            sha256_digest(body),
            len(body),
            annotations=bundle.MANIFEST_ANNOTATIONS,
            artifact_type=bundle.BUNDLE_MEDIA_TYPE,
        )

        async def write() -> None:
            await self.client.put_blob(self.image, bundle.EMPTY_BLOB, bundle.EMPTY_DESCRIPTOR)
            await self.client.put_blob(self.image, signed, described)
            put = await self.client.put_manifest(self.image.with_digest(entry.digest), body, OCI_MANIFEST)
            if not put.subject_acknowledged:
                await self.client.add_referrer_fallback(self.image, subject.digest, entry)

        async def is_there() -> bool:
            listed = await self.client.list_referrers(
                self.image, subject.digest, max_referrers=MAX_REFERRERS_TO_KEEP
            )
            return any(referrer.digest == entry.digest for referrer in listed)

        await write_until_kept(write, is_there)
