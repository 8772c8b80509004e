"""Bills of materials and provenance in real registries; an image is built again from its provenance."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from edgemodel_operator.build.failures import BuildError, Reason, Step
from edgemodel_operator.build.origin.attach import Document, attach_documents, make_documents
from edgemodel_operator.build.origin.cyclonedx import CYCLONEDX_TYPE
from edgemodel_operator.build.origin.provenance import PROVENANCE_TYPE, request_from_provenance
from edgemodel_operator.build.origin.spdx import SPDX_TYPE
from edgemodel_operator.build.request import BuildRequest
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.descriptor import OCI_EMPTY, OCI_MANIFEST, Descriptor, canonical_json
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image import parse_index, parse_manifest
from edgemodel_operator.oci.image_layout import LayoutStore, parse_location
from edgemodel_operator.oci.image_store import ImageStore
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient, fallback_tag
from support.build import (
    SourceServer,
    make_onnx,
    make_request,
    missing_parts,
    sha256,
    source_server,
    with_image,
)
from support.origin import make_origin, push_runtime
from support.referrers_registry import referrers_registry
from support.registry import FaultyRegistry, RegistryServer, fail_times
from support.registry_kinds import Kind, Way, start_kind

MODEL = make_onnx()


@dataclass(frozen=True)
class Pushed:
    """An image in a store, and the documents that are to be attached to it."""

    store: ImageStore
    target: Reference
    index: Descriptor
    documents: tuple[Document, ...]

    async def attach(self) -> None:
        await attach_documents(self.store, self.target, self.documents)

    async def attached(self) -> dict[str, list[str]]:
        """Give the types of what is attached, by the digest of its subject."""
        return {
            subject: sorted(
                one.artifact_type or "" for one in await self.store.list_referrers(self.target, subject)
            )
            for subject in dict.fromkeys(document.subject.digest for document in self.documents)
        }

    @property
    def wanted(self) -> dict[str, list[str]]:
        """Give what is attached when all is."""
        types = {document.subject.digest: sorted([CYCLONEDX_TYPE, SPDX_TYPE]) for document in self.documents}
        return {**types, self.index.digest: [PROVENANCE_TYPE]}


async def push_example(store: RegistryClient | LayoutStore, target: Reference) -> Pushed:
    index = await push_runtime(store, target)
    children = parse_index((await store.get_manifest(target.with_digest(index.digest))).body).manifests
    return Pushed(store, target, index, make_documents(make_origin(), index, children))


@pytest.fixture
def target(registry: RegistryServer, request: pytest.FixtureRequest) -> Reference:
    name = sha256(request.node.name.encode())[:12]
    return parse_reference(f"{registry.host}/origin/{name}:1")


@pytest.fixture
async def pushed(client: RegistryClient, target: Reference) -> Pushed:
    """Push to a registry without the referrers API."""
    return await push_example(client, target)


@pytest.fixture
async def pushed_with_referrers(
    registry: RegistryServer, http_session: aiohttp.ClientSession, target: Reference
) -> AsyncIterator[Pushed]:
    """Push to a registry that has the referrers API."""
    async with referrers_registry(registry) as api:
        client = RegistryClient(http_session, plain_http={api.host})
        yield await push_example(client, parse_reference(f"{api.host}/{target.repository}:1"))


async def test_documents_are_found_by_the_fallback_tag(pushed: Pushed) -> None:
    await pushed.attach()
    assert await pushed.attached() == pushed.wanted
    assert await pushed.store.head_manifest(pushed.target.with_tag(fallback_tag(pushed.index.digest)))


async def test_documents_are_found_by_the_referrers_api(pushed_with_referrers: Pushed) -> None:
    pushed = pushed_with_referrers
    await pushed.attach()
    assert await pushed.attached() == pushed.wanted
    assert await pushed.store.head_manifest(pushed.target.with_tag(fallback_tag(pushed.index.digest))) is None


WAYS = [(Kind.DISTRIBUTION_2, Way.BASIC), (Kind.DISTRIBUTION_3, Way.TOKEN), (Kind.OCI_1_1, Way.TLS)]


@pytest.mark.parametrize(("kind", "way"), WAYS, ids=str)
async def test_every_registry_takes_documents(kind: Kind, way: Way, tmp_path: Path) -> None:
    with start_kind(kind, way, tmp_path) as known:
        async with known.session() as session:
            pushed = await push_example(known.client(session), parse_reference(f"{known.host}/origin/line:1"))
            await asyncio.gather(*(pushed.attach() for _ in range(3)))
            assert await pushed.attached() == pushed.wanted


async def test_documents_are_found_in_a_folder(tmp_path: Path) -> None:
    pushed = await push_example(LayoutStore(), parse_location(f"oci:{tmp_path}/layout:1"))
    await pushed.attach()
    await pushed.attach()
    assert await pushed.attached() == pushed.wanted


async def test_a_document_is_read_as_it_was_made(pushed: Pushed) -> None:
    await pushed.attach()
    for document in pushed.documents:
        stored = await pushed.store.get_manifest(pushed.target.with_digest(document.descriptor.digest))
        manifest = parse_manifest(stored.body)
        assert (manifest.artifact_type, manifest.config.media_type) == (document.media_type, OCI_EMPTY)
        assert manifest.subject is not None
        assert manifest.subject.digest == document.subject.digest
        (layer,) = manifest.layers
        content = await pushed.store.get_blob(pushed.target, layer.digest, max_bytes=layer.size)
        assert (content, layer.media_type) == (document.content, document.media_type)


@pytest.fixture
def through_proxy(pushed: Pushed, faulty: FaultyRegistry, faulty_client: RegistryClient) -> Pushed:
    """Attach through the proxy, so that it can count and refuse."""
    target = parse_reference(f"{faulty.host}/{pushed.target.repository}:1")
    return replace(pushed, store=faulty_client, target=target)


async def test_attaching_twice_sends_nothing(through_proxy: Pushed, faulty: FaultyRegistry) -> None:
    await through_proxy.attach()
    faulty.seen.clear()
    await through_proxy.attach()
    assert [method for method, _, _ in faulty.seen if method not in {"GET", "HEAD"}] == []


@pytest.mark.parametrize("passed", range(0, 12, 3))
async def test_what_is_half_attached_is_completed(
    through_proxy: Pushed, faulty: FaultyRegistry, passed: int
) -> None:
    left = passed

    async def refuse(request: web.Request) -> web.Response | None:
        nonlocal left
        if request.method == "PUT" and "/manifests/" in request.path:
            left -= 1
            return web.Response(status=400) if left < 0 else None
        return None

    faulty.faults.append(refuse)
    with pytest.raises(RegistryError):
        await through_proxy.attach()
    half = await through_proxy.attached()
    assert half != through_proxy.wanted
    assert half[through_proxy.index.digest] == []  # the provenance comes last
    faulty.faults.clear()
    await through_proxy.attach()
    assert await through_proxy.attached() == through_proxy.wanted


async def test_a_listed_document_that_was_lost_is_sent_again(client: RegistryClient, pushed: Pushed) -> None:
    await pushed.attach()
    lost = pushed.target.with_digest(pushed.documents[0].descriptor.digest)
    assert await client.delete_manifest(lost)
    await pushed.attach()
    assert await client.head_manifest(lost) is not None


async def test_builds_at_the_same_time_attach_once(pushed: Pushed) -> None:
    await asyncio.gather(*(pushed.attach() for _ in range(4)))
    assert await pushed.attached() == pushed.wanted


async def test_what_others_attached_stays(client: RegistryClient, pushed: Pushed) -> None:
    body = canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.plant-a.approval",
            "config": Descriptor.of(OCI_EMPTY, b"{}").to_json(),
            "layers": [],
            "subject": pushed.index.to_json(),
        }
    )
    await client.put_blob(pushed.target, b"{}", Descriptor.of(OCI_EMPTY, b"{}"))
    other = Descriptor.of(OCI_MANIFEST, body)
    await client.put_manifest(pushed.target.with_digest(other.digest), body, OCI_MANIFEST)
    await client.add_referrer_fallback(pushed.target, pushed.index.digest, other)
    await pushed.attach()
    listed = {one.digest for one in await client.list_referrers(pushed.target, pushed.index.digest)}
    assert listed == {other.digest, pushed.documents[-1].descriptor.digest}


# --- whole builds --------------------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def build_request(
    client: RegistryClient, registry: RegistryServer, server: SourceServer, target: Reference
) -> BuildRequest:
    runtime = parse_reference(f"{registry.host}/runtimes/honest:1")
    pinned = runtime.with_digest((await push_runtime(client, runtime)).digest)
    url = f"{server.url()}?token=hunter2"
    return make_request(url, MODEL, runtime=str(pinned), repository=target.name)


async def statement_of(client: RegistryClient, image: Reference) -> bytes:
    """Read the provenance of an index as a stranger would."""
    assert image.digest is not None
    (listed,) = await client.list_referrers(image, image.digest)
    assert listed.artifact_type == PROVENANCE_TYPE
    manifest = parse_manifest((await client.get_manifest(image.with_digest(listed.digest))).body)
    return await client.get_blob(image, manifest.layers[0].digest, max_bytes=1_000_000)


async def test_a_build_ends_with_its_origin(
    client: RegistryClient, build_request: BuildRequest, tmp_path: Path
) -> None:
    result = await run_build(build_request, work_root=tmp_path)
    image = parse_reference(result.image)
    statement = json.loads(await statement_of(client, image))
    children = parse_index((await client.get_manifest(image)).body).manifests
    subjects = {f"sha256:{one['digest']['sha256']}" for one in statement["subject"]}
    assert subjects == {result.index_digest, *(child.digest for child in children)}
    for child in children:
        listed = await client.list_referrers(image, child.digest)
        assert sorted(one.artifact_type or "" for one in listed) == sorted([CYCLONEDX_TYPE, SPDX_TYPE])


async def test_an_image_is_built_again_from_its_provenance_alone(
    client: RegistryClient, build_request: BuildRequest, registry: RegistryServer, tmp_path: Path
) -> None:
    first = await run_build(build_request, work_root=tmp_path)
    image = parse_reference(first.image)
    statement = await statement_of(client, image)
    for child in parse_index((await client.get_manifest(image)).body).manifests:
        await client.delete_manifest(image.with_digest(child.digest))
    await client.delete_manifest(image)
    elsewhere = parse_reference(f"{registry.host}/again/{image.repository}")
    request = request_from_provenance(statement, elsewhere.name)
    hosts = {"plain_http": build_request.plain_http, "source_limits": build_request.source_limits}
    second = await run_build(request.model_copy(update=hosts), work_root=tmp_path)
    assert second.index_digest == first.index_digest
    assert await missing_parts(client, elsewhere.with_digest(second.index_digest)) == []
    assert await statement_of(client, elsewhere.with_digest(second.index_digest)) == statement


async def test_a_build_whose_origin_is_refused_has_failed(
    faulty: FaultyRegistry, build_request: BuildRequest, target: Reference, tmp_path: Path
) -> None:
    through = replace_repository(build_request, f"{faulty.host}/{target.repository}")
    faulty.faults.append(fail_times(1, 403, method="PUT", part="/manifests/sha256:"))
    with pytest.raises(BuildError) as caught:
        await run_build(through, work_root=tmp_path)
    assert (caught.value.failure.reason, caught.value.failure.step) == (Reason.REGISTRY_DENIED, Step.DESCRIBE)
    result = await run_build(through, work_root=tmp_path)
    assert faulty.requests("PUT", fallback_tag(result.index_digest))


def replace_repository(request: BuildRequest, repository: str) -> BuildRequest:
    plain = (*request.plain_http, repository.partition("/")[0])
    return with_image(request, repository=repository).model_copy(update={"plain_http": plain})
