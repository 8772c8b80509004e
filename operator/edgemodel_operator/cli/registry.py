"""The registry that a command speaks to, with the logins of the person who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from edgemodel_operator.cli.docker_config import docker_config_path, read_logins
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.image_layout import is_layout, parse_location
from edgemodel_operator.oci.reference import InvalidReference, Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


def parse_registry_image(text: str) -> Reference:
    """Read the name of an image in a registry. Raises InvalidReference, also for one in a folder."""
    image = parse_location(text)
    if is_layout(image):
        raise InvalidReference(
            f"{text}: signatures are kept in registries; copy the image to one first, then name it there"
        )
    return image


@asynccontextmanager
async def registry_client(image: Reference, plain_http: Collection[str]) -> AsyncIterator[RegistryClient]:
    """Open a client for the registry of an image. Raises InvalidCredentials."""
    logins = read_logins(docker_config_path(), {image.registry})
    async with new_session() as session:
        yield RegistryClient(session, credentials=logins, plain_http=plain_http)


async def pin(client: RegistryClient, image: Reference) -> Reference:
    """Give an image by its digest; a tag is asked for once, here. Raises RegistryError."""
    if image.digest is not None:
        return image.with_digest(image.digest)
    found = await client.head_manifest(image)
    if found is None:
        raise NotFound(f"{image} does not exist: name an image that does")
    return image.with_digest(found.digest)
