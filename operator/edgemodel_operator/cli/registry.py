"""The registry that a command speaks to, with the logins of the person who calls it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from edgemodel_operator.cli.docker_config import docker_config_path, read_logins
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.image_layout import is_layout, parse_location
from edgemodel_operator.oci.reference import InvalidReference, Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


@dataclass(frozen=True)
class Registries:
    """How registries are reached: which without TLS, and the authorities (PEM) of a site's own ones."""

    plain_http: tuple[str, ...] = ()
    authorities: str = ""


def registry_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options by which registries are reached, and what they say as `registries`."""

    @wraps(command)
    def called(*, plain_http: tuple[str, ...], registry_cacert: Path | None, **given: Any) -> None:
        authorities = "" if registry_cacert is None else _read_authorities(registry_cacert)
        command(registries=Registries(plain_http, authorities), **given)

    for option in (
        click.option(
            "--registry-cacert",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            metavar="FILE",
            help="Certificates (PEM) to trust for registries, besides those of the system.",
        ),
        click.option(
            "--plain-http",
            multiple=True,
            metavar="HOST[:PORT]",
            help="A registry that is spoken to without TLS. Repeatable.",
        ),
    ):
        called = option(called)
    return called


def _read_authorities(file: Path) -> str:
    try:
        text = file.read_text()
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, TypeError, ValueError):
        raise click.BadParameter(
            f"{file} holds no certificate: give the PEM file of the authority, which begins with "
            "-----BEGIN CERTIFICATE-----",
            param_hint="--registry-cacert",
        ) from None
    return text


def parse_registry_image(text: str) -> Reference:
    """Read the name of an image in a registry. Raises InvalidReference, also for one in a folder."""
    image = parse_location(text)
    if is_layout(image):
        raise InvalidReference(
            f"{text}: signatures are kept in registries; copy the image to one first, then name it there"
        )
    return image


@asynccontextmanager
async def registry_client(image: Reference, registries: Registries) -> AsyncIterator[RegistryClient]:
    """Open a client for the registry of an image. Raises InvalidCredentials."""
    logins = read_logins(docker_config_path(), {image.registry})
    async with new_session(authorities=registries.authorities) as session:
        yield RegistryClient(session, credentials=logins, plain_http=registries.plain_http)


async def pin(client: RegistryClient, image: Reference) -> Reference:
    """Give an image by its digest; a tag is asked for once, here. Raises RegistryError."""
    if image.digest is not None:
        return image.with_digest(image.digest)
    found = await client.head_manifest(image)
    if found is None:
        raise NotFound(f"{image} does not exist: name an image that does")
    return image.with_digest(found.digest)
