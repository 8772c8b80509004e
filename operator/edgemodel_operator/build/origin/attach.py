"""Hanging the documents about an image on it in its repository: OCI 1.1 referrers, with fallback tags.

Each document is the one layer of a manifest without configuration whose `subject` is what it speaks of: the
bills of materials a platform's image, the provenance the index. Attaching twice adds nothing, and what a
killed build left half done is completed by the next one: the documents of a build are always the same bytes.
A build has succeeded only when everything is attached.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.build.failures import Reason, fail
from edgemodel_operator.build.graft import GraftedImage
from edgemodel_operator.build.origin.contents import (
    TOOL,
    ImageContents,
    Material,
    ModelContents,
    NamedFile,
    context_material,
    image_material,
    materials_of,
)
from edgemodel_operator.build.origin.cyclonedx import CYCLONEDX_TYPE, make_cyclonedx
from edgemodel_operator.build.origin.packages import PACKAGES_LABEL, InvalidPackages, Package, packages_of
from edgemodel_operator.build.origin.provenance import PROVENANCE_TYPE, BuildRecord, make_provenance
from edgemodel_operator.build.origin.spdx import SPDX_TYPE, make_spdx
from edgemodel_operator.build.publish import Destination, registry_failure
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.runtime import RuntimeChild
from edgemodel_operator.oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor, Platform, canonical_json
from edgemodel_operator.oci.errors import NotFound, ProtocolError, RegistryError
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference

_EMPTY = b"{}"
_MOST = 1000
"""Referrers of one image: a longer list is nobody's."""

_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Between two attempts to attach a document (seconds)."""

_TITLES = {
    SPDX_TYPE: "sbom.spdx.json",
    CYCLONEDX_TYPE: "sbom.cdx.json",
    PROVENANCE_TYPE: "provenance.intoto.json",
}


@dataclass(frozen=True)
class Origin:
    """All that is known of a build when its image has been pushed.

    `fetched` are the files of the source in its order, `files` those in the image, the main one first,
    `materials` what else went into it: a converter's image, the context of a Dockerfile. `version` is that of
    the operator.
    """

    request: BuildRequest
    build_key: str
    runtime: Sequence[RuntimeChild]
    fetched: Sequence[NamedFile]
    files: Sequence[NamedFile]
    report: ModelReport
    materials: tuple[Material, ...] = ()
    version: str = field(default_factory=lambda: version(TOOL))


def origin_of(
    request: BuildRequest,
    key: str,
    runtime: Sequence[RuntimeChild],
    fetched: Sequence[NamedFile],
    files: Sequence[NamedFile],
    report: ModelReport,
) -> Origin:
    """Give the origin of an image that is built as the request says, with all that had a part in it."""
    dockerfile, converter = request.image.dockerfile, request.converter
    context = (context_material(dockerfile.context),) if dockerfile is not None else ()
    converted = (image_material(converter, "converter"),) if "@sha256:" in converter else ()
    return Origin(request, key, runtime, fetched, files, report, materials=(*context, *converted))


@dataclass(frozen=True)
class Document:
    """A document about an image, and the manifest that ties it to its subject."""

    subject: Descriptor
    media_type: str
    content: bytes = field(repr=False)

    @property
    def layer(self) -> Descriptor:
        """Describe the document itself: what a signer of attestations signs."""
        described = Descriptor.of(self.media_type, self.content)
        annotations = {"org.opencontainers.image.title": _TITLES[self.media_type]}
        return Descriptor(described.media_type, described.digest, described.size, annotations=annotations)

    @property
    def manifest(self) -> bytes:
        """The artifact manifest, byte for byte."""
        subject = Descriptor(self.subject.media_type, self.subject.digest, self.subject.size)
        return canonical_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "artifactType": self.media_type,
                "config": Descriptor.of(OCI_EMPTY, _EMPTY).to_json(),
                "layers": [self.layer.to_json()],
                "subject": subject.to_json(),
            }
        )

    @property
    def descriptor(self) -> Descriptor:
        """Describe the manifest as lists of referrers do."""
        described = Descriptor.of(OCI_MANIFEST, self.manifest)
        return Descriptor(OCI_MANIFEST, described.digest, described.size, artifact_type=self.media_type)


def make_documents(origin: Origin, index: Descriptor, children: Sequence[Descriptor]) -> tuple[Document, ...]:
    """Make all documents: two bills of materials for each platform, then the provenance.

    `children` describe the images in the index, with their platforms. Raises BuildError(RuntimeImageInvalid)
    when a runtime image lies about its packages in a way that can be seen.
    """
    sources = materials_of(origin.request.source, origin.fetched)
    model = origin.request.model
    contents = ModelContents(
        origin.request.model_name,
        model.version,
        model.format.value,
        tuple(origin.files),
        sources,
        origin.report,
    )
    altered = origin.request.image.dockerfile is not None
    runtimes: Mapping[Platform | None, RuntimeChild] = {child.platform: child for child in origin.runtime}
    documents: list[Document] = []
    for child in children:
        runtime = runtimes[child.platform]
        packages = _packages(runtime)
        image = ImageContents(child, runtime.digest, packages, contents, origin.version, altered)
        documents += [
            Document(child, SPDX_TYPE, make_spdx(image)),
            Document(child, CYCLONEDX_TYPE, make_cyclonedx(image)),
        ]
    digests = tuple(file.sha256 for file in origin.fetched)
    materials = (*sources, *origin.materials)
    record = BuildRecord(origin.request, digests, origin.build_key, materials, origin.version)
    return (*documents, Document(index, PROVENANCE_TYPE, make_provenance(record, index, children)))


async def attach_origin(to: Destination, image: GraftedImage, origin: Origin) -> tuple[Document, ...]:
    """Make the documents about an image that was just pushed, and attach them. Raises BuildError.

    Gives what is attached now, whether or not it was before: what a signer of attestations goes on with.
    """
    documents = make_documents(origin, image.descriptor, [child.image.descriptor for child in image.children])
    try:
        await attach_documents(to.client, to.target, documents)
    except RegistryError as error:
        raise registry_failure(to, error) from error
    return documents


async def attach_documents(store: ImageStore, target: Reference, documents: Sequence[Document]) -> None:
    """Bring the documents into the repository of their subjects; raises RegistryError.

    What is attached already is not sent again. The last subject comes after all others: who finds the
    provenance of an index finds the bills of materials as well.
    """
    by_subject: dict[str, list[Document]] = {}
    for document in documents:
        by_subject.setdefault(document.subject.digest, []).append(document)
    *platforms, index = by_subject.items()
    try:
        async with asyncio.TaskGroup() as group:
            for subject, wanted in platforms:
                group.create_task(_attach_all(store, target, subject, wanted))
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    await _attach_all(store, target, *index)


async def _attach_all(
    store: ImageStore, target: Reference, subject: str, documents: Sequence[Document]
) -> None:
    try:
        listed = {one.digest for one in await store.list_referrers(target, subject, max_referrers=_MOST)}
    except ProtocolError:
        listed = set()  # who does not tell what is attached gets all of it again
    for document in documents:
        there = target.with_digest(document.descriptor.digest)
        if document.descriptor.digest not in listed or await store.head_manifest(there) is None:
            await _attach_again(store, target, document)


async def _attach_again(store: ImageStore, target: Reference, document: Document) -> None:
    """Attach one document, more than once if need be.

    docker-registry calls blobs and manifests unknown that it has just taken, while others push to the same
    repository.
    """
    for pause in _PAUSES:
        try:
            await _attach(store, target, document)
        except (NotFound, ProtocolError):
            await asyncio.sleep(pause)
        else:
            return
    await _attach(store, target, document)


async def _attach(store: ImageStore, target: Reference, document: Document) -> None:
    await store.put_blob(target, _EMPTY, Descriptor.of(OCI_EMPTY, _EMPTY))
    await store.put_blob(target, document.content, document.layer)
    descriptor = document.descriptor
    put = await store.put_manifest(target.with_digest(descriptor.digest), document.manifest, OCI_MANIFEST)
    if not put.subject_acknowledged:
        await store.add_referrer_fallback(target, document.subject.digest, descriptor)


def _packages(runtime: RuntimeChild) -> tuple[Package, ...] | None:
    try:
        return packages_of(runtime.config)
    except InvalidPackages as error:
        raise fail(
            Reason.RUNTIME_IMAGE_INVALID,
            f"The label {PACKAGES_LABEL} of the runtime image for {runtime.platform} is unusable: {error}.",
        ) from error
