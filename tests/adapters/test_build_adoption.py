"""An image that a Job pushed is signed only when it is, byte for byte, what a build of ours makes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgemodel_operator.api.edgemodel_status import ModelFile
from edgemodel_operator.build.adoption import adopt_image
from edgemodel_operator.build.failures import BuildError, BuildFailure, Reason
from edgemodel_operator.build.report import Reporter
from edgemodel_operator.build.request import Adoption, BuildRequest, BuildResult
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.descriptor import OCI_INDEX, OCI_LAYER_GZIP, Descriptor, sha256_digest
from edgemodel_operator.oci.image import graft, make_index, parse_index
from edgemodel_operator.oci.layer import Layer
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from support.build import SourceServer, make_onnx, make_request, missing_parts, sha256, source_server
from support.images import make_layer, push_index
from support.registry import RegistryServer

MODEL = make_onnx(64)
FOLDER = "models/line-orientation"


@pytest.fixture
async def server() -> AsyncIterator[SourceServer]:
    async with source_server() as server:
        server.serve(MODEL)
        yield server


@pytest.fixture
async def request_(
    server: SourceServer, client: RegistryClient, registry: RegistryServer, request: pytest.FixtureRequest
) -> BuildRequest:
    place = Reference(registry.host, "runtimes/cpu")
    runtime = place.with_digest((await push_index(client, place)).digest)
    name = sha256(request.node.name.encode())[:12]
    return make_request(
        server.url(), MODEL, runtime=str(runtime), repository=f"{registry.host}/adoption/{name}"
    )


@dataclass(frozen=True)
class Site:
    """An honest build, and a forger with push rights."""

    client: RegistryClient
    request: BuildRequest
    honest: BuildResult
    work: Path

    @property
    def target(self) -> Reference:
        return self.request.target_reference

    async def forge(self, layer: Layer, blob: bytes) -> str:
        """Put a layer on top of every platform, with all the words of the honest image."""
        index = parse_index((await self.client.get_manifest(self.at(self.honest.index_digest))).body)
        await self.client.put_blob(self.target, blob, layer.descriptor)
        children: list[Descriptor] = []
        for child in index.manifests:
            manifest = await self.client.get_manifest(self.at(child.digest))
            config = await self.client.get_blob(
                self.target, manifest.json()["config"]["digest"], max_bytes=1 << 20
            )
            image = graft(manifest.body, config, [layer])
            await self.client.put_blob(self.target, image.config, image.config_descriptor)
            await self.client.put_manifest(
                self.at(image.descriptor.digest), image.manifest, image.descriptor.media_type
            )
            children.append(image.descriptor)
        body = make_index(children, index.annotations)
        put = await self.client.put_manifest(self.target.with_tag("forged"), body, OCI_INDEX)
        return put.descriptor.digest

    async def adopt(self, digest: str, source: str = sha256(MODEL)) -> BuildResult:
        fetched = (ModelFile(name="model.onnx", sha256=source, size=len(MODEL)),)
        adoption = Adoption(index_digest=digest, fetched=fetched)
        self.work.mkdir(exist_ok=True)
        return await adopt_image(
            self.request.model_copy(update={"adoption": adoption}), self.work, Reporter(lambda message: None)
        )

    async def refused(self, digest: str) -> BuildFailure:
        with pytest.raises(BuildError) as caught:
            await self.adopt(digest)
        assert caught.value.failure.reason is Reason.JOB_RESULT_INVALID
        return caught.value.failure

    def at(self, digest: str) -> Reference:
        return self.target.with_digest(digest)


@pytest.fixture
async def site(client: RegistryClient, request_: BuildRequest, tmp_path: Path) -> Site:
    return Site(client, request_, await run_build(request_, work_root=tmp_path), tmp_path / "adoption")


async def test_an_honest_image_is_adopted(site: Site) -> None:
    adopted = await site.adopt(site.honest.index_digest)
    assert (adopted.image, adopted.build_key) == (site.honest.image, site.honest.build_key)
    assert adopted.report.inputs == site.honest.report.inputs
    assert adopted.documents == site.honest.documents
    assert len(adopted.documents) == 2 * len(adopted.platforms) + 1


async def test_the_worker_adopts_instead_of_building(site: Site, tmp_path: Path) -> None:
    forged = await site.forge(*make_layer("usr/bin/python3", b"evil"))
    fetched = (ModelFile(name="model.onnx", sha256=sha256(MODEL)),)
    adoption = Adoption(index_digest=forged, fetched=fetched)
    with pytest.raises(BuildError, match="JobResultInvalid"):
        await run_build(site.request.model_copy(update={"adoption": adoption}), work_root=tmp_path)


async def test_the_documents_of_an_adopted_image_are_ours(site: Site) -> None:
    """The Job attached the same already; what it had not is attached now."""
    index = site.at(site.honest.index_digest)
    before = await site.client.list_referrers(site.target, site.honest.index_digest)
    assert len(before) == 1
    provenance = site.at(before[0].digest)
    assert await site.client.delete_manifest(provenance)
    await site.adopt(site.honest.index_digest)
    assert await site.client.head_manifest(provenance) is not None
    assert await missing_parts(site.client, index) == []


async def test_a_program_among_the_files_is_seen(site: Site) -> None:
    failure = await site.refused(await site.forge(*make_layer("usr/bin/python3", b"evil")))
    assert "'usr/bin/python3', which is no file of the model" in failure.message


def link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{FOLDER}/model.onnx")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


def whiteout() -> tarfile.TarInfo:
    return tarfile.TarInfo("usr/bin/.wh.python3")


def owned() -> tarfile.TarInfo:
    entry = tarfile.TarInfo(f"{FOLDER}/more.bin")
    entry.mode, entry.uid = 0o4755, 65532
    return entry


@pytest.mark.parametrize("make_entry", [link, whiteout, owned])
async def test_a_layer_that_only_looks_like_ours_is_seen(
    site: Site, make_entry: Callable[[], tarfile.TarInfo]
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.addfile(make_entry())
    blob = packed.getvalue()
    layer = Layer(Descriptor(OCI_LAYER_GZIP, sha256_digest(blob), len(blob)), sha256_digest(blob))
    await site.refused(await site.forge(layer, blob))


async def test_one_more_file_of_the_model_is_another_image(site: Site) -> None:
    failure = await site.refused(await site.forge(*make_layer(f"{FOLDER}/more.bin", b"more")))
    assert "It is not what was asked for, and is not signed" in failure.message


async def test_an_image_of_another_source_is_seen(site: Site) -> None:
    with pytest.raises(BuildError, match="speaks of another build"):
        await site.adopt(site.honest.index_digest, source="0" * 64)
