"""Attesting the documents of a build: those that it named and no others, by every key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.attested import (
    CYCLONEDX,
    PROVENANCE,
    SPDX,
    attest_documents,
    renew_attestations,
)
from edgemodel_operator.build.origin.attach import Document as BuiltDocument
from edgemodel_operator.build.origin.attach import attach_documents
from edgemodel_operator.build.origin.spdx import SPDX_TYPE
from edgemodel_operator.build.request import BuildRequest, BuildResult
from edgemodel_operator.build.worker import run_build
from edgemodel_operator.oci.reference import Reference, parse_reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.errors import NotSignable
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Trusted, Untrusted
from edgemodel_operator.signing.verify import verify_image
from support.build import SourceServer, make_onnx, make_request, sha256, source_server
from support.images import push_index
from support.registry import RegistryServer

MODEL = make_onnx(64)
OLD = LocalKey(ec.generate_private_key(ec.SECP256R1()))
NEW = LocalKey(ec.generate_private_key(ec.SECP256R1()))
STRANGER = LocalKey(ec.generate_private_key(ec.SECP256R1()))


def wanted(*checks: PredicateCheck) -> tuple[WantedAttestation, ...]:
    """Ask for everything that we attest."""
    return (
        WantedAttestation("origin", PROVENANCE, checks=checks),
        WantedAttestation("parts", SPDX),
        WantedAttestation("more parts", CYCLONEDX),
    )


def demand(key: LocalKey, *checks: PredicateCheck) -> Demand:
    return Demand(
        (Authority("plant", (key.public_key,)),), attestations=wanted(*checks), platforms_signed=True
    )


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
        server.url(), MODEL, runtime=str(runtime), repository=f"{registry.host}/attested/{name}"
    )


@pytest.fixture
async def built(request_: BuildRequest, tmp_path: Path) -> BuildResult:
    return await run_build(request_, work_root=tmp_path)


@pytest.fixture
def image(built: BuildResult) -> Reference:
    return parse_reference(built.image)


async def test_what_a_build_says_is_attested_for_the_index_and_each_platform(
    client: RegistryClient, built: BuildResult, image: Reference
) -> None:
    await sign_image(client, image, [OLD])
    assert isinstance(await verify_image(client, image, demand(OLD)), Untrusted)
    await attest_documents(client, image, built.documents, [OLD])
    key = f'predicate.buildDefinition.internalParameters.buildKey == "{built.build_key}"'
    verdict = await verify_image(client, image, demand(OLD, PredicateCheck(key, "another build")))
    assert isinstance(verdict, Trusted), verdict


async def test_a_new_key_takes_over_what_the_old_one_attested(
    client: RegistryClient, built: BuildResult, image: Reference
) -> None:
    await attest_documents(client, image, built.documents, [OLD])
    await renew_attestations(client, image, [NEW, OLD])
    await sign_image(client, image, [NEW, OLD])
    assert isinstance(await verify_image(client, image, demand(NEW)), Trusted)
    assert isinstance(await verify_image(client, image, demand(OLD)), Trusted)


async def test_what_a_stranger_attested_is_not_taken_over(
    client: RegistryClient, built: BuildResult, image: Reference
) -> None:
    await attest_documents(client, image, built.documents, [STRANGER])
    await renew_attestations(client, image, [NEW, OLD])
    await sign_image(client, image, [NEW, OLD])
    assert isinstance(await verify_image(client, image, demand(NEW)), Untrusted)


async def test_a_document_that_somebody_else_attached_is_not_attested(
    client: RegistryClient, built: BuildResult, image: Reference
) -> None:
    index = (await client.get_manifest(image)).descriptor
    forged = BuiltDocument(index, SPDX_TYPE, b'{"forged":true}')
    await attach_documents(client, image, [forged])
    await attest_documents(client, image, built.documents, [OLD])
    await sign_image(client, image, [OLD])
    said = PredicateCheck("has(predicate.forged)", "it is honest")
    one = Demand(
        (Authority("plant", (OLD.public_key,)),),
        attestations=(WantedAttestation("forged", SPDX, checks=(said,)),),
    )
    assert isinstance(await verify_image(client, image, one), Untrusted)


async def test_a_document_about_another_image_is_refused(
    client: RegistryClient, built: BuildResult, image: Reference, request_: BuildRequest, tmp_path: Path
) -> None:
    model = request_.model.model_copy(update={"version": "another"})
    other = await run_build(request_.model_copy(update={"model": model}), work_root=tmp_path)
    assert other.image != built.image
    with pytest.raises(NotSignable, match="no part of"):
        await attest_documents(client, image, other.documents, [OLD])
