"""Finding an image under its build key: only what our key signed, and only while all of it is there."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.attested import PROVENANCE
from edgemodel_operator.adapters.signed_images import find_signed
from edgemodel_operator.api.edgemodel_status import ModelReport
from edgemodel_operator.core.annotations import BUILD_KEY, MODEL_REPORT, write_report
from edgemodel_operator.core.build_key import index_tag
from edgemodel_operator.core.supply import BuiltImage
from edgemodel_operator.oci.descriptor import OCI_INDEX
from edgemodel_operator.oci.errors import RegistryError
from edgemodel_operator.oci.image import make_index, parse_manifest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.build import sha256
from support.registry import FaultyRegistry, RegistryServer, fail_times
from support.signed_images import PushedImage, push_image

KEY = LocalKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = LocalKey(ec.generate_private_key(ec.SECP256R1()))
OTHER = LocalKey(ec.generate_private_key(ec.SECP256R1()))
"""Signs as well, since a short while: what was built before has no signature by it."""
BUILD = "5c" * 32
OTHER_BUILD = BUILD[:12] + "00" * 26
"""A key that has the same tag."""
REPORT = ModelReport(operators=("Gemm",), parameters=8)


@dataclass
class Shelf:
    """A repository in which images are put under the tag of a build key."""

    client: RegistryClient
    repository: Reference

    async def put(
        self,
        image: PushedImage,
        annotations: dict[str, str],
        key: LocalKey | None = KEY,
        *,
        attested: bool = True,
    ) -> str:
        body = make_index(image.platforms, annotations)
        tag = self.repository.with_tag(index_tag(BUILD))
        put = await self.client.put_manifest(tag, body, OCI_INDEX)
        index = self.repository.with_digest(put.descriptor.digest)
        if key is not None:
            if attested:
                provenance = Attestation(PROVENANCE, b"{}")
                await attest_digest(self.client, index, put.descriptor, [provenance], [key])
            await sign_image(self.client, index, [key])
        return str(index)

    async def find(self, build_key: str = BUILD) -> BuiltImage | None:
        return await find_signed(self.client, self.repository, build_key, [OTHER.public_key, KEY.public_key])


@pytest.fixture
def shelf(client: RegistryClient, registry: RegistryServer, request: pytest.FixtureRequest) -> Shelf:
    return Shelf(client, Reference(registry.host, f"shelf/n{sha256(request.node.name.encode())[:12]}"))


@pytest.fixture
async def image(shelf: Shelf) -> PushedImage:
    return await push_image(shelf.client, shelf.repository)


ANNOTATIONS = {BUILD_KEY: BUILD, MODEL_REPORT: write_report(REPORT)}


async def test_what_we_signed_is_found_with_all_that_is_known_of_it(shelf: Shelf, image: PushedImage) -> None:
    name = await shelf.put(image, ANNOTATIONS)
    found = await shelf.find()
    assert found == BuiltImage(name, ("linux/amd64", "linux/arm64"), build_key=BUILD, report=REPORT)


@pytest.mark.parametrize("key", [None, STRANGER])
async def test_what_somebody_else_put_there_is_not(
    shelf: Shelf, image: PushedImage, key: LocalKey | None
) -> None:
    await shelf.put(image, ANNOTATIONS, key)
    assert await shelf.find() is None


async def test_what_was_signed_before_builds_were_attested_is_built_again(
    shelf: Shelf, image: PushedImage
) -> None:
    await shelf.put(image, ANNOTATIONS, attested=False)
    assert await shelf.find() is None


@pytest.mark.parametrize("annotations", [{}, {BUILD_KEY: BUILD}, {**ANNOTATIONS, BUILD_KEY: OTHER_BUILD}])
async def test_what_speaks_of_another_build_is_not(
    shelf: Shelf, image: PushedImage, annotations: dict[str, str]
) -> None:
    await shelf.put(image, annotations)
    assert await shelf.find() is None


async def test_nothing_is_found_in_an_empty_repository(shelf: Shelf) -> None:
    assert await shelf.find() is None


async def test_an_image_that_lost_a_blob_is_not(
    shelf: Shelf, image: PushedImage, registry: RegistryServer
) -> None:
    await shelf.put(image, ANNOTATIONS)
    manifest = await shelf.client.get_manifest(image.children[1])
    lost = parse_manifest(manifest.body).config.digest.removeprefix("sha256:")
    links = registry.storage / f"docker/registry/v2/repositories/{shelf.repository.repository}/_layers"
    shutil.rmtree(links / "sha256" / lost)
    assert await shelf.find() is None


async def test_an_image_that_lost_a_platform_is_not(shelf: Shelf, image: PushedImage) -> None:
    await shelf.put(image, ANNOTATIONS)
    assert await shelf.client.delete_manifest(image.children[0])
    assert await shelf.find() is None


async def test_a_registry_that_does_not_answer_is_no_empty_one(
    faulty: FaultyRegistry, faulty_client: RegistryClient, shelf: Shelf, image: PushedImage
) -> None:
    await shelf.put(image, ANNOTATIONS)
    there = Reference(faulty.host, shelf.repository.repository)
    faulty.faults.append(fail_times(100, 503))
    with pytest.raises(RegistryError):
        await find_signed(faulty_client, there, BUILD, [KEY.public_key])
