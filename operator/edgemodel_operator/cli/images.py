"""Making the images that were planned, one after the other, each in a worker process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

from edgemodel_operator.api.model import ModelSpec
from edgemodel_operator.build.conversion import converter_id
from edgemodel_operator.build.request import BuildResult
from edgemodel_operator.build.supplier import WorkerBuilder
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.cli.progress import Style, showing
from edgemodel_operator.core.supply import BuildAccess, SupplyJob
from edgemodel_operator.oci.errors import NotFound
from edgemodel_operator.oci.image_layout import is_layout, layout_folder, parse_location
from edgemodel_operator.oci.image_store import AnyStore, ImageStore
from edgemodel_operator.oci.layout_transaction import layout_transaction
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.oci.transport import new_session


@dataclass(frozen=True)
class Order:
    """The images to make, and what that takes."""

    jobs: tuple[SupplyJob, ...]
    target: Reference | None
    """Where they go instead of the repository of the spec; its tag is given to the only image."""
    access: BuildAccess
    builder: WorkerBuilder
    volume: str
    """The folder of a local source; empty: the source is where the spec says."""
    style: Style


@dataclass(frozen=True)
class Made:
    """An image that was made."""

    variant: str
    result: BuildResult


async def make_images(order: Order) -> tuple[Made, ...]:
    """Make all images. Raises BuildError, RegistryError, LayoutBusy, InvalidReference, ValidationError."""
    async with new_session(authorities=order.builder.authorities) as session:
        logins = order.access.registries
        client = RegistryClient(session, credentials=logins, plain_http=order.builder.plain_http)
        store = AnyStore(client)
        return tuple([await _make(order, job, store) for job in order.jobs])


async def _make(order: Order, job: SupplyJob, store: ImageStore) -> Made:
    runtime = await pin_image(store, job.runtime)
    asked = order.builder.request(replace(job, runtime=str(runtime)), order.access)
    target = order.target or parse_location(job.repository)
    here = {"target": target.name, "volume": order.volume, "converter": _converter(job.model)}
    request = asked.model_copy(update=here)
    with _writing_to(target), showing(order.style, job.variant) as display:
        result = await run_build(request, on_progress=display.show)
        if target.tag:
            await _tag(store, target, result)
    return Made(job.variant, result)


def _converter(model: ModelSpec) -> str:
    """Name what converts the model here: no image does, but what is installed. Raises BuildError."""
    return converter_id(model.convert.origin) if model.convert is not None else ""


def _writing_to(target: Reference) -> AbstractContextManager[None]:
    return layout_transaction(layout_folder(target)) if is_layout(target) else nullcontext()


async def pin_image(store: ImageStore, text: str) -> Reference:
    """Give an image by its digest, whatever it was named by. Raises InvalidReference, RegistryError."""
    place = parse_location(text)
    if place.digest:
        return place.with_digest(place.digest)
    found = await store.head_manifest(place)
    if found is None:
        raise NotFound(f"{place} does not exist: name an image that does")
    return place.with_digest(found.digest)


async def _tag(store: ImageStore, target: Reference, result: BuildResult) -> None:
    manifest = await store.get_manifest(target.with_digest(result.index_digest))
    await store.put_manifest(target, manifest.body, manifest.descriptor.media_type)


def registries_of(jobs: tuple[SupplyJob, ...], target: Reference | None) -> tuple[str, ...]:
    """Name every registry that the images touch. Raises InvalidReference."""
    places = [place for job in jobs for place in _places(job, target)]
    return tuple(sorted({place.registry for place in places if not is_layout(place)}))


def _places(job: SupplyJob, target: Reference | None) -> Iterator[Reference]:
    yield parse_location(job.runtime)
    yield target or parse_location(job.repository)
    for source in (job.model.source, job.image.dockerfile.context if job.image.dockerfile else None):
        if source is not None and source.oci is not None:
            yield parse_reference(source.oci.reference)
