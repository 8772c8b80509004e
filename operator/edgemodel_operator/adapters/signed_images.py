"""Finding an image under its build key, by a signature of ours: nothing is read but manifests.

Whoever may push to the repository can put anything under our tag. What we signed ourselves is the image that
we built for that key, for the key stands in the signed index, and we sign nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from edgemodel_operator.adapters.attested import PROVENANCE
from edgemodel_operator.core.annotations import BUILD_KEY, read_report
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.core.supply import BuiltImage
from edgemodel_operator.oci import errors
from edgemodel_operator.oci.descriptor import Descriptor
from edgemodel_operator.oci.image import InvalidImage, parse_index, parse_manifest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority, Demand, WantedAttestation
from edgemodel_operator.signing.keys import PublicKey
from edgemodel_operator.signing.verdict import Trusted
from edgemodel_operator.signing.verify import verify_image


async def find_signed(
    client: RegistryClient, repository: Reference, build_key: str, keys: Sequence[PublicKey]
) -> BuiltImage | None:
    """Give the image of the build key if one of `keys` signed it and every part of it is there, else None.

    Raises RegistryError where the registry does not say.
    """
    ours = Demand(
        (Authority("operator", tuple(keys)),),
        # Without it a build that an older version signed is done again: it told nobody what it is made of.
        attestations=(WantedAttestation("provenance", PROVENANCE),),
        platforms_signed=True,
    )
    try:
        found = await client.get_manifest(repository.with_tag(index_tag(build_key)))
        index = parse_index(found.body)
        report = read_report(index.annotations)
        if index.annotations.get(BUILD_KEY) != build_key or report is None:
            return None
        image = repository.with_digest(found.descriptor.digest)
        verdict = await verify_image(client, image, ours)
        if not isinstance(verdict, Trusted):
            return None
        search = _Search(client, repository)
        complete = await asyncio.gather(*(search.is_complete(child) for child in index.manifests))
    except (errors.NotFound, errors.DigestMismatch, errors.ProtocolError, errors.TooLarge, InvalidImage):
        return None  # something is missing or not what its name says: it is built anew
    if not all(complete):
        return None
    platforms = tuple(sorted(str(child.platform) for child in index.manifests))
    return BuiltImage(str(image), platforms, build_key=build_key, report=report)


@dataclass(frozen=True)
class _Search:
    client: RegistryClient
    repository: Reference

    async def is_complete(self, child: Descriptor) -> bool:
        """Ask for every blob of a platform's image: a registry may have lost some."""
        manifest = await self.client.get_manifest(self.repository.with_digest(child.digest))
        image = parse_manifest(manifest.body)
        blobs = {image.config.digest, *(layer.digest for layer in image.layers)}
        there = await asyncio.gather(
            *(self.client.blob_exists(self.repository, digest) for digest in sorted(blobs))
        )
        return all(there)
