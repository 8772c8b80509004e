"""`edgemodel inspect`: what is in an image and where it comes from, or what an update would move."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from edgemodel_operator.cli.docker_config import docker_config_path, read_logins
from edgemodel_operator.cli.image_facts import read_attached, read_contents, read_image
from edgemodel_operator.cli.inspect_report import ImageReport, UpdateReport
from edgemodel_operator.cli.outcome import run, told
from edgemodel_operator.cli.registry import Registries, registry_options
from edgemodel_operator.cli.update import compare
from edgemodel_operator.oci.image_layout import is_layout, parse_location
from edgemodel_operator.oci.image_store import AnyStore
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


@click.command("inspect")
@click.argument("image")
@click.argument("newer", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, digests in full.")
@registry_options
def inspect_command(*, image: str, newer: str | None, registries: Registries, as_json: bool) -> None:
    """Show what is in IMAGE: platforms, layers, sizes, and what is attached to it.

    With a second image: what a node that has IMAGE pulls for NEWER. An image is `host/repository:tag` or
    `…@sha256:…`, or `oci:FOLDER[:TAG]`. Exit codes are those of `edgemodel build`.
    """
    with told(as_json=as_json):
        places = [parse_location(text) for text in (image, newer) if text]
        report = run(_inspect(places, registries))
    click.echo(json.dumps(report.document(), indent=2) if as_json else "\n".join(report.lines()))


async def _inspect(places: Sequence[Reference], registries: Registries) -> ImageReport | UpdateReport:
    logins = read_logins(docker_config_path(), {place.registry for place in places if not is_layout(place)})
    async with new_session(authorities=registries.authorities) as session:
        store = AnyStore(RegistryClient(session, credentials=logins, plain_http=registries.plain_http))
        facts = [await read_image(store, place) for place in places]
        if len(facts) > 1:
            old, new = facts
            return UpdateReport(old, new, compare(old, new))
        (found,) = facts
        return ImageReport(found, await read_contents(store, found), await read_attached(store, found))
