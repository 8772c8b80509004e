"""`kubectl edgemodel audit`: from an image back to its source and on to the nodes that run it."""

from __future__ import annotations

import json
import sys

import click

from edgemodel_operator.cli.kubectl_cluster import (
    ClusterView,
    NotThere,
    Place,
    cluster_told,
    open_view,
    place_options,
)
from edgemodel_operator.cli.kubectl_trail import Trail, follow, images_with_digest
from edgemodel_operator.cli.kubectl_trail_report import SECTIONS, trail_document, trail_lines
from edgemodel_operator.cli.model_images import revision_images
from edgemodel_operator.cli.outcome import Exit, run
from edgemodel_operator.cli.registry import (
    Registries,
    parse_registry_image,
    pin,
    registry_client,
    registry_options,
)
from edgemodel_operator.oci.reference import Reference, is_digest


@click.command("audit")
@click.argument("what", metavar="IMAGE|DIGEST|NAME")
@place_options
@registry_options
def audit_image(*, what: str, place: Place, registries: Registries, output: str) -> None:
    """Join what is known of an image: source, build, signatures, attestations, events, nodes.

    IMAGE is `host/repository@sha256:…` or with a tag; DIGEST is looked for in the cluster; NAME is an
    EdgeModel, of which the images of its revisions are taken. Exit codes: 0 done; 1 there is no such thing;
    2 the command line is wrong; 3 a part could not be read.
    """
    with cluster_told(as_json=output == "json"):
        trails = run(_follow_all(place, what, registries))
    if output == "json":
        click.echo(json.dumps([trail_document(trail) for trail in trails], indent=2))
    else:
        lines = [line for trail in trails for line in (*trail_lines(trail), "")]
        click.echo("\n".join(_styled(line) for line in lines).rstrip())
    sys.exit(Exit.TRY_AGAIN if any(trail.problems for trail in trails) else Exit.DONE)


async def _follow_all(place: Place, what: str, registries: Registries) -> list[Trail]:
    async with open_view(place) as view:
        images = await _images(view, what, registries)
        return [await follow(view, image, registries) for image in images]


async def _images(view: ClusterView, what: str, registries: Registries) -> tuple[Reference, ...]:
    if is_digest(what):
        return await images_with_digest(view, what)
    if "/" in what:
        named = parse_registry_image(what)
        async with registry_client(named, registries) as client:
            return (await pin(client, named),)
    revisions = revision_images(await view.model(what))
    if not revisions:
        raise NotThere(f"the EdgeModel {what} has no image yet: look at its conditions")
    return tuple({str(image): image for one in revisions for image in one.images}.values())


def _styled(line: str) -> str:
    """Make headings stand out on a terminal; elsewhere the text is as it is."""
    return click.style(line, bold=True) if line in SECTIONS else line
