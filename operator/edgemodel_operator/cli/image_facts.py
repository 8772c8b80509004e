"""Everything that there is to see of an image: platforms, layers, labels, and what is attached to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgemodel_operator.build.origin.cyclonedx import CYCLONEDX_TYPE
from edgemodel_operator.build.origin.provenance import PROVENANCE_TYPE
from edgemodel_operator.build.origin.spdx import SPDX_TYPE
from edgemodel_operator.cli.layer_contents import describe_layer
from edgemodel_operator.oci.descriptor import INDEX_TYPES, Descriptor, Platform
from edgemodel_operator.oci.image import parse_index, parse_manifest, platform_of
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import Manifest, fallback_tag
from edgemodel_operator.signing.bundle import BUNDLE_MEDIA_TYPE

_MAX_CONFIG_BYTES = 4 * 1024 * 1024
_MOST_REFERRERS = 1000
_MAX_DOCUMENT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Attached:
    """A document or signature that is attached to an image."""

    what: str
    subject: str
    """The digest that it is attached to."""
    digest: str
    size: int
    """Of the document, in bytes."""
    says: str = ""


@dataclass(frozen=True)
class PlatformImage:
    """The image of one platform."""

    platform: str
    digest: str
    layers: tuple[Descriptor, ...]
    overhead: int
    """Size of its manifest and configuration (bytes)."""

    @property
    def size(self) -> int:
        """All that a node without any of it pulls (bytes)."""
        return self.overhead + sum(layer.size for layer in self.layers)


@dataclass(frozen=True)
class ImageFacts:
    """An image, or the index of one."""

    image: Reference
    """By digest."""
    annotations: Mapping[str, str]
    platforms: tuple[PlatformImage, ...]

    @property
    def layers(self) -> dict[str, Descriptor]:
        """Every layer once, by digest."""
        return {layer.digest: layer for one in self.platforms for layer in one.layers}


async def read_image(store: ImageStore, image: Reference) -> ImageFacts:
    """Read what the manifests say. Raises RegistryError, InvalidImage."""
    manifest = await store.get_manifest(image)
    pinned = image.with_digest(manifest.descriptor.digest)
    if manifest.descriptor.media_type not in INDEX_TYPES:
        annotations = parse_manifest(manifest.body).annotations
        return ImageFacts(pinned, annotations, (await _read_platform(store, pinned, manifest, None),))
    index = parse_index(manifest.body)
    platforms = []
    for child in index.manifests:
        if child.platform is not None and child.platform.os != "unknown":
            body = await store.get_manifest(image.with_digest(child.digest))
            platforms.append(await _read_platform(store, pinned, body, child.platform))
    return ImageFacts(pinned, index.annotations, tuple(sorted(platforms, key=lambda one: one.platform)))


async def _read_platform(
    store: ImageStore, image: Reference, manifest: Manifest, platform: Platform | None
) -> PlatformImage:
    parsed = parse_manifest(manifest.body)
    if platform is None:
        config = await store.get_blob(image, parsed.config.digest, max_bytes=_MAX_CONFIG_BYTES)
        platform = platform_of(config)
    overhead = len(manifest.body) + parsed.config.size
    return PlatformImage(str(platform), manifest.descriptor.digest, parsed.layers, overhead)


async def read_contents(store: ImageStore, facts: ImageFacts) -> dict[str, str]:
    """Say of each layer, by digest, what it holds. Raises RegistryError."""
    return {digest: await describe_layer(store, facts.image, layer) for digest, layer in facts.layers.items()}


async def read_attached(store: ImageStore, facts: ImageFacts) -> tuple[Attached, ...]:
    """List what is attached to the index and to the image of each platform. Raises RegistryError."""
    subjects = dict.fromkeys((str(facts.image.digest), *(one.digest for one in facts.platforms)))
    found: list[Attached] = []
    for subject in subjects:
        referrers = await store.list_referrers(facts.image, subject, max_referrers=_MOST_REFERRERS)
        found += [await _describe(store, facts.image, subject, referrer) for referrer in referrers]
        legacy = facts.image.with_tag(f"{fallback_tag(subject)}.sig")
        signature = await store.head_manifest(legacy)
        if signature is not None:
            found.append(Attached("signature", subject, signature.digest, signature.size, "simple signing"))
    return tuple(found)


async def _describe(store: ImageStore, image: Reference, subject: str, referrer: Descriptor) -> Attached:
    kind = referrer.artifact_type or referrer.media_type
    what, describe = _KINDS.get(kind, (kind, _nothing))
    try:
        manifest = parse_manifest((await store.get_manifest(image.with_digest(referrer.digest))).body)
        document = manifest.layers[0]
        body = await store.get_blob(image, document.digest, max_bytes=_MAX_DOCUMENT_BYTES)
        says = describe(json.loads(body))
    except (ValueError, IndexError, KeyError, TypeError, AttributeError):
        return Attached(what, subject, referrer.digest, referrer.size, "not readable")
    return Attached(what, subject, referrer.digest, document.size, says)


def _nothing(document: Any) -> str:
    return ""


def _provenance(statement: Any) -> str:
    run = statement["predicate"]["runDetails"]["builder"]
    version = ", ".join(f"{name} {number}" for name, number in (run.get("version") or {}).items())
    return f"built by {run['id']}" + (f" ({version})" if version else "")


def _spdx(document: Any) -> str:
    return f"{document['spdxVersion']}, {len(document['packages'])} packages"


def _cyclonedx(document: Any) -> str:
    return f"CycloneDX {document['specVersion']}, {len(document['components'])} components"


_KINDS = {
    PROVENANCE_TYPE: ("provenance", _provenance),
    SPDX_TYPE: ("bill of materials", _spdx),
    CYCLONEDX_TYPE: ("bill of materials", _cyclonedx),
    BUNDLE_MEDIA_TYPE: ("signature", lambda bundle: "Sigstore bundle"),
}
