"""Finding an image that exists under the build key, and proving that it is the one we would build.

Whoever may push to the repository can put anything under our tag, and what is found here gets signed. So
annotations are only a hint: the model layer is read back, its files must have the wanted SHA-256, and
grafting it once more must give the very bytes of the index that is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

from edgemodel_operator.build.archives import ArchiveLimits, InvalidArchive, extract_file
from edgemodel_operator.build.graft import GraftedImage, graft_image, write_model_layer
from edgemodel_operator.build.layout import ANNOTATION_BUILD_KEY, ModelFacts
from edgemodel_operator.build.publish import Destination
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.build.sources.download import FetchedFile, describe
from edgemodel_operator.core.build_key import child_tag, index_tag
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest

_SECONDS = 600.0
_OVERHEAD_BYTES = 1024 * 1024
"""What a model layer may hold besides the model: tar headers and a small manifest."""


@dataclass(frozen=True)
class Wanted:
    """The image that is looked for; `max_bytes` bounds each of its model files."""

    facts: ModelFacts
    runtime_digest: str
    runtime: Sequence[RuntimeChild]
    max_bytes: int


@dataclass(frozen=True)
class ExistingImage:
    """An image that is in the repository, complete, and equal to what we would build."""

    image: GraftedImage
    model_size: int


async def find_existing(destination: Destination, wanted: Wanted, work: Path) -> ExistingImage | None:
    """Give the existing image, or None where there is none that passes. Raises RegistryError."""
    tagged = destination.target.with_tag(index_tag(wanted.facts.build_key))
    try:
        manifest = await destination.client.get_manifest(tagged)
        index = parse_index(manifest.body)
        if index.annotations.get(ANNOTATION_BUILD_KEY) != wanted.facts.build_key or not index.manifests:
            return None
        layer = await _top_layer(destination, index.manifests[0])
        found = await _rebuild(destination, wanted, layer, work)
        if found.image.descriptor.digest != manifest.descriptor.digest:
            return None
        complete = await _is_complete(destination, found.image, wanted.facts.build_key)
    except (errors.NotFound, errors.DigestMismatch, errors.ProtocolError, errors.TooLarge):
        return None  # something is missing or not what its name says: build it anew
    except (InvalidImage, InvalidArchive):
        return None
    return found if complete else None


async def _top_layer(destination: Destination, child: Descriptor) -> Descriptor:
    body = (await destination.client.get_manifest(destination.target.with_digest(child.digest))).body
    layers = parse_manifest(body).layers
    if not layers:
        raise InvalidImage("The image has no layers.")
    return layers[-1]


async def _rebuild(destination: Destination, wanted: Wanted, layer: Descriptor, work: Path) -> ExistingImage:
    """Build the image from the model in the existing layer instead of from the source."""
    limit = wanted.max_bytes * len(wanted.facts.paths) + _OVERHEAD_BYTES
    if layer.size > limit:
        raise errors.TooLarge(f"The layer has {layer.size} bytes.")
    blob, again = work / "existing-layer", work / "rebuilt-layer"
    with blob.open("wb") as out:
        async with aclosing(destination.client.open_blob(destination.target, layer)) as chunks:
            async for chunk in chunks:
                out.write(chunk)
    limits = ArchiveLimits(wanted.max_bytes, limit, time.monotonic() + _SECONDS)
    files = await asyncio.to_thread(_extract_model, wanted.facts, blob, work, limits)
    rebuilt = await asyncio.to_thread(write_model_layer, wanted.facts, files, again)
    for path in (blob, again, *(file.path for file in files)):
        path.unlink()
    image = graft_image(wanted.facts, wanted.runtime_digest, wanted.runtime, rebuilt)
    return ExistingImage(image, sum(file.size for file in files))


def _extract_model(facts: ModelFacts, blob: Path, work: Path, limits: ArchiveLimits) -> list[FetchedFile]:
    """Take the model's files out of a layer, and hold them against their SHA-256. Blocking."""
    files = []
    for path, name, sha256 in zip(facts.paths, facts.file_names, facts.model.source.digests, strict=True):
        destination = work / f"existing-{name}"
        if not extract_file(blob, path.__eq__, destination, limits):
            raise InvalidImage("The layer holds no model.")
        file = describe(destination)
        if file.sha256 != sha256:
            raise InvalidImage("The layer holds another model.")
        files.append(file)
    return files


async def _is_complete(destination: Destination, image: GraftedImage, build_key: str) -> bool:
    """Ask for every blob and platform image; a registry may have lost some."""
    client, target = destination.client, destination.target
    blobs = {image.layer.descriptor.digest}
    for child in image.children:
        tag = child_tag(build_key, str(child.platform))
        stored = await client.head_manifest(target.with_tag(tag))
        if stored is None or stored.digest != child.image.descriptor.digest:
            return False
        blobs |= {child.image.config_descriptor.digest, *(layer.digest for layer in child.runtime_layers)}
    for digest in sorted(blobs):
        if not await client.blob_exists(target, digest):
            return False
    return True
