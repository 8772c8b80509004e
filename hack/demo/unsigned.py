"""Push an image that nobody signed: the platform manifests of a signed one under an index of their own."""

from __future__ import annotations

import asyncio
import json

from cluster.base import Cluster
from edgemodel_operator.oci.descriptor import OCI_INDEX, canonical_json, sha256_digest
from edgemodel_operator.oci.reference import parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


def push_unsigned_copy(cluster: Cluster, image: str) -> str:
    """Push a copy of an image with another annotation, hence another digest; give it as nodes name it."""
    return asyncio.run(_push(cluster, image))


async def _push(cluster: Cluster, image: str) -> str:
    name, _, _ = image.partition("@")
    on_host = parse_reference(image.replace(cluster.registry, cluster.registry_on_host, 1))
    async with new_session() as session:
        client = RegistryClient(session, plain_http=(cluster.registry_on_host,))
        index = json.loads((await client.get_manifest(on_host)).body)
        index.setdefault("annotations", {})["org.opencontainers.image.title"] = "nobody signed this"
        body = canonical_json(index)
        digest = sha256_digest(body)
        await client.put_manifest(on_host.with_digest(digest), body, OCI_INDEX)
    return f"{name}@{digest}"
