"""Reading the runtime image on which a model is grafted: manifests and configurations, no layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgemodel_operator.build.failures import BuildError, Reason, fail
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import INDEX_TYPES, Descriptor, Platform
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest, platform_of
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference

_MAX_CONFIG_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class RuntimeChild:
    """The runtime image of one platform."""

    platform: Platform
    digest: str
    manifest: bytes
    config: bytes
    blobs: Mapping[str, Path] = field(default_factory=dict, hash=False)
    """The blobs that no registry has yet, by digest: local files, of a runtime that a Dockerfile made."""

    @property
    def layers(self) -> tuple[Descriptor, ...]:
        """Its layers, bottom first."""
        return parse_manifest(self.manifest).layers


async def read_runtime(
    client: ImageStore, reference: Reference, platforms: Sequence[str]
) -> tuple[RuntimeChild, ...]:
    """Read the runtime image of every wanted platform (none named: all of them), sorted by platform.

    Raises BuildError.
    """
    try:
        children = await _read_children(client, reference)
    except errors.RegistryError as error:
        raise runtime_failure(reference, error) from error
    except InvalidImage as error:
        raise fail(
            Reason.RUNTIME_IMAGE_INVALID, f"The runtime image {reference} cannot be used: {error}"
        ) from error
    by_platform = {str(child.platform): child for child in children}
    missing = sorted(set(platforms) - by_platform.keys())
    if missing:
        has = ", ".join(sorted(by_platform)) or "none"
        raise fail(
            Reason.PLATFORM_MISSING,
            f"The runtime image {reference} is not there for {', '.join(missing)}; it has {has}.",
        )
    if not by_platform:
        raise fail(Reason.RUNTIME_IMAGE_INVALID, f"The runtime image {reference} has no platform.")
    return tuple(by_platform[name] for name in sorted(set(platforms) or by_platform))


async def _read_children(client: ImageStore, reference: Reference) -> list[RuntimeChild]:
    manifest = await client.get_manifest(reference)
    if manifest.descriptor.media_type not in INDEX_TYPES:
        return [await _read_child(client, reference, manifest.body, manifest.descriptor.digest)]
    children = []
    for child in parse_index(manifest.body).manifests:
        if child.platform is None or child.platform.os == "unknown":
            continue  # attestations of other builders
        body = (await client.get_manifest(reference.with_digest(child.digest))).body
        children.append(await _read_child(client, reference, body, child.digest))
    return children


async def _read_child(client: ImageStore, reference: Reference, manifest: bytes, digest: str) -> RuntimeChild:
    config_digest = parse_manifest(manifest).config.digest
    config = await client.get_blob(reference, config_digest, max_bytes=_MAX_CONFIG_BYTES)
    return RuntimeChild(platform_of(config), digest, manifest, config)


def runtime_failure(reference: Reference, error: errors.RegistryError) -> BuildError:
    """Put an error of the registry of the runtime image into words."""
    match error:
        case errors.NotFound():
            return fail(
                Reason.RUNTIME_IMAGE_MISSING,
                f"The runtime image {reference} does not exist: push it, or change `runtimes`.",
            )
        case errors.Unauthorized():
            return fail(Reason.RUNTIME_IMAGE_DENIED, f"The runtime image {reference} cannot be read: {error}")
        case errors.RegistryUnavailable():
            return fail(
                Reason.REGISTRY_UNAVAILABLE, f"The runtime image {reference} cannot be read now: {error}"
            )
        case _:
            return fail(
                Reason.RUNTIME_IMAGE_INVALID, f"The runtime image {reference} cannot be used: {error}"
            )
