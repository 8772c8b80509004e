"""Put signed objects beside an image: as layers under a tag of cosign's, or as bundles that refer to it.

Whatever others keep there stays, also when several write at the same time (see `contention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgemodel_operator.oci.descriptor import OCI_MANIFEST, Descriptor, sha256_digest
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.contention import write_until_kept
from edgemodel_operator.signing.errors import FormatError
from edgemodel_operator.signing.strict_json import parse_strict_json
from edgemodel_operator.signing.tag_manifest import add_layers, layers_of

MAX_TAG_MANIFEST_BYTES = 4 * 1024 * 1024
MAX_REFERRERS_TO_KEEP = 1000


@dataclass(frozen=True)
class Part:
    """A blob to store, and how the manifest that holds it describes it (with annotations)."""

    descriptor: Descriptor
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class BundlePart:
    """A Sigstore bundle (its JSON) to attach, and the type of what it says."""

    content: bytes = field(repr=False)
    predicate_type: str = bundle.SIGN_PREDICATE_TYPE


@dataclass(frozen=True)
class _Referrer:
    """A bundle, the manifest that attaches it, and how lists of referrers describe that."""

    bundle: Part
    manifest: bytes
    entry: Descriptor


async def read_tag(client: RegistryClient, tag: Reference) -> tuple[str, dict[str, object]]:
    """Give the digest of what stands under a tag and its document; both empty if there is nothing."""
    try:
        manifest = await client.get_manifest(tag, max_bytes=MAX_TAG_MANIFEST_BYTES)
    except NotFound:
        return "", {}
    try:
        document = parse_strict_json(manifest.body, max_bytes=MAX_TAG_MANIFEST_BYTES, what=str(tag))
    except FormatError:
        document = {}
    # Whatever else stands there, no reader can take it for signed objects: nothing is lost by replacing it.
    return manifest.descriptor.digest, document if isinstance(document.get("layers"), list) else {}


async def keep_layers(client: RegistryClient, tag: Reference, parts: Sequence[Part]) -> None:
    """Add layers to the manifest under a tag; those that are there already are not added again.

    Raises SignatureLost when other writers replace them again and again, and RegistryError.
    """
    wanted = [part.descriptor for part in parts]

    async def write() -> None:
        for part in parts:
            await client.put_blob(tag, part.content, part.descriptor)
        digest, existing = await read_tag(client, tag)
        there = layers_of(existing)
        made = add_layers(existing, [one for one in wanted if one not in there])
        await client.put_blob(tag, made.config, made.config_descriptor)
        # Look once more, so that as little time as possible lies between what we read and our write.
        current = await client.head_manifest(tag)
        if (current.digest if current else "") == digest:
            await client.put_manifest(tag, made.body, OCI_MANIFEST)

    async def look() -> str:
        digest, existing = await read_tag(client, tag)
        there = layers_of(existing)
        return digest if all(one in there for one in wanted) else ""

    await write_until_kept(write, look)


async def keep_bundles(
    client: RegistryClient, image: Reference, subject: Descriptor, bundles: Sequence[BundlePart]
) -> None:
    """Attach bundles to the manifest `subject` in the repository of `image`.

    Raises SignatureLost when other writers replace them again and again, and RegistryError.
    """
    referrers = [_referrer(one, subject) for one in bundles]

    async def write() -> None:
        await client.put_blob(image, bundle.EMPTY_BLOB, bundle.EMPTY_DESCRIPTOR)
        for one in referrers:
            await client.put_blob(image, one.bundle.content, one.bundle.descriptor)
            put = await client.put_manifest(image.with_digest(one.entry.digest), one.manifest, OCI_MANIFEST)
            if not put.subject_acknowledged:
                await client.add_referrer_fallback(image, subject.digest, one.entry)

    async def look() -> str:
        found = await client.list_referrers(image, subject.digest, max_referrers=MAX_REFERRERS_TO_KEEP)
        listed = {referrer.digest for referrer in found}
        return " ".join(sorted(listed)) if {one.entry.digest for one in referrers} <= listed else ""

    await write_until_kept(write, look)


def _referrer(part: BundlePart, subject: Descriptor) -> _Referrer:
    described = Descriptor.of(bundle.BUNDLE_MEDIA_TYPE, part.content)
    manifest = bundle.make_bundle_manifest(described, subject, part.predicate_type)
    entry = Descriptor(
        OCI_MANIFEST,
        sha256_digest(manifest),
        len(manifest),
        annotations=bundle.manifest_annotations(part.predicate_type),
        artifact_type=bundle.BUNDLE_MEDIA_TYPE,
    )
    return _Referrer(Part(described, part.content), manifest, entry)
