"""The examples of trust policies, from the object to the verdict about an image in a real registry."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.authorities import KEEP_PROBLEM_S, AuthorityStore
from edgemodel_operator.adapters.policy_verifier import KeyUnavailable, PolicyVerifier
from edgemodel_operator.core.trust import Policy, PolicyVerdict, parse_policy
from edgemodel_operator.oci.descriptor import canonical_json
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing import bundle
from edgemodel_operator.signing.attached import BundlePart, keep_bundles
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import Format
from support.kube_api import KubeApiServer, kube_api_server
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image
from support.sigstore_site import Site

NAMESPACE = "edgemodel-system"
EXAMPLES = Path(__file__).parents[2] / "examples"
SECRETS = ("edgemodel-signing-public", "quality-public", "safety-public")
BUILD, QUALITY, SAFETY, STRANGER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(4))
FIELD_TEST = "https://plant-a.local/field-test/v1"
SLSA = "https://slsa.dev/provenance/v1"


def policy(name: str) -> Policy:
    parsed = parse_policy(yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")))
    assert isinstance(parsed, Policy)
    return parsed


@dataclass
class Place:
    """An API with the public keys of build, quality and safety, what verifies by them, and its clock."""

    server: KubeApiServer
    verifier: PolicyVerifier = field(init=False)
    now: float = 0.0


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with kube_api_server() as (server, kube):
        for name, key in zip(SECRETS, (BUILD, QUALITY, SAFETY), strict=True):
            path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{name}"
            encoded = base64.b64encode(key.public_key.pem).decode()
            await server.put(path, {"data": {"cosign.pub": encoded}})
        made = Place(server)
        made.verifier = PolicyVerifier(AuthorityStore(kube, NAMESPACE, lambda: made.now))
        yield made


@pytest.fixture
def verifier(place: Place) -> PolicyVerifier:
    return place.verifier


@pytest.fixture
async def image(
    client: RegistryClient, registry: RegistryServer, request: pytest.FixtureRequest
) -> PushedImage:
    name = request.node.name.replace("_", "-").lower()
    return await push_image(client, Reference(registry.host, f"policies/{name}"))


async def sign(client: RegistryClient, image: PushedImage, *keys: LocalKey) -> None:
    await sign_image(client, image.index, keys, formats=[Format.LEGACY])


async def attest(
    client: RegistryClient, image: PushedImage, key: LocalKey, kind: str, predicate: object
) -> None:
    subject = await client.head_manifest(image.index)
    assert subject is not None
    said = Attestation(kind, canonical_json(predicate))
    await attest_digest(client, image.index, subject, [said], [key], [Format.BUNDLE])


async def test_case_41_two_of_three_and_quality_always(
    client: RegistryClient, image: PushedImage, verifier: PolicyVerifier
) -> None:
    asked = policy("trust-policy-threshold")

    async def verdict() -> PolicyVerdict:
        return await verifier.verify(client, image.index, asked)

    assert (await verdict()).reason == "Unsigned"
    await sign(client, image, BUILD, STRANGER)
    assert (await verdict()).reason == "TooFewAuthorities"
    await sign(client, image, SAFETY)
    lacking = await verdict()
    assert lacking.reason == "RequiredAuthorityMissing"
    assert "quality has not signed it" in lacking.missing
    await sign(client, image, QUALITY)
    held = await verdict()
    assert held.trusted
    assert {one.partition("=")[0] for one in held.by} == {"build", "quality", "safety"}


async def test_signed_by_the_build_made_by_the_pipeline_and_tested_by_quality(
    client: RegistryClient, image: PushedImage, verifier: PolicyVerifier
) -> None:
    asked = policy("trust-policy-attestations")
    await sign(client, image, BUILD)
    origin = {"runDetails": {"builder": {"id": "https://ci.plant-a.local/runs/7"}}}
    passed = {"passed": True, "accuracy": 0.99, "findings": [{"severity": "low"}]}

    async def verdict() -> PolicyVerdict:
        return await verifier.verify(client, image.index, asked)

    assert (await verdict()).reason == "AttestationMissing"
    await attest(client, image, QUALITY, SLSA, origin)  # not theirs to say
    await attest(client, image, QUALITY, FIELD_TEST, passed | {"accuracy": 0.5})
    lacking = await verdict()
    assert lacking.reason == "AttestationMissing"
    assert '"origin"' in lacking.missing
    await attest(client, image, BUILD, SLSA, origin)
    failed = await verdict()
    assert failed.reason == "AttestationCheckFailed"
    assert "it has not passed the field test" in failed.missing
    await attest(client, image, QUALITY, FIELD_TEST, passed | {"findings": [{"severity": "high"}]})
    await attest(client, image, QUALITY, FIELD_TEST, passed)
    assert (await verdict()).trusted


async def test_signed_by_a_pipeline_without_a_key(
    client: RegistryClient, image: PushedImage, place: Place
) -> None:
    site, asked = Site(), policy("trust-policy-keyless")
    subject = await client.head_manifest(image.index)
    assert subject is not None
    statement = bundle.make_statement(image.index.name, image.digest)
    signed = BundlePart(canonical_json(site.bundle(statement)))
    await keep_bundles(client, image.index, subject, [signed])
    with pytest.raises(KeyUnavailable, match="ConfigMap sigstore in namespace edgemodel-system does not"):
        await place.verifier.verify(client, image.index, asked)
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps/sigstore"
    await place.server.put(path, {"data": {"trusted_root.json": site.trusted_root().decode()}})
    place.now += KEEP_PROBLEM_S + 1
    held = await place.verifier.verify(client, image.index, asked)
    assert held.trusted
    assert held.by[0].startswith("release-pipeline=identity:")
