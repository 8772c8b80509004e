"""A registry with a small image in it, as a program: `python -m support.registry_process KIND FOLDER`.

It prints the image with its tag and then the digest of its first platform, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from edgemodel_operator.oci.descriptor import OCI_INDEX
from edgemodel_operator.oci.reference import Reference
from support.registry_kinds import Kind, KnownRegistry, Way, start_kind
from support.signed_images import push_image


def main() -> None:
    """Serve until nobody wants it any more."""
    with start_kind(Kind(sys.argv[1]), Way.PLAIN, Path(sys.argv[2])) as registry:
        asyncio.run(_push(registry))
        sys.stdin.read()


async def _push(registry: KnownRegistry) -> None:
    name = Reference(registry.host, "models/nsfw", tag="1")
    async with registry.session() as session:
        client = registry.client(session)
        image = await push_image(client, name)
        index = await client.get_manifest(image.index)
        await client.put_manifest(name, index.body, OCI_INDEX)
    print(name, image.platforms[0].digest, flush=True)


if __name__ == "__main__":
    main()
