"""The audit's questions, answered from a real registry: kept verdicts, parts of images, and trouble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.adapters.authorities import AuthorityStore
from edgemodel_operator.adapters.policy_verifier import PolicyVerifier
from edgemodel_operator.core.audit import Answers, PartQuestion, Question, Unknown
from edgemodel_operator.core.trust import Policy, PolicyVerdict, parse_policy
from edgemodel_operator.oci.descriptor import OCI_INDEX
from edgemodel_operator.oci.image import make_index, parse_manifest
from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.reconcile.audit_answers import (
    GIVE_UP_AFTER,
    KEEP_TRUSTED_SECONDS,
    KEEP_UNTRUSTED_SECONDS,
    AuditAnswers,
)
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from support.build import sha256
from support.kube_api import kube_api_server
from support.registry import FaultyRegistry, RegistryServer, fail_times
from support.signed_images import PushedImage, push_image

OLD, NEW = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))


def policy(*keys: LocalKey, name: str = "models") -> Policy:
    data = [{"data": key.public_key.pem.decode()} for key in keys]
    spec = {"images": ["**"], "authorities": [{"name": "operator", "keys": data}]}
    found = parse_policy({"metadata": {"name": name}, "spec": spec})
    assert isinstance(found, Policy)
    return found


@dataclass
class Bench:
    """The answers under test, with a clock that the test sets and the registry that may misbehave."""

    client_: RegistryClient
    now: float = 0.0

    def __post_init__(self) -> None:
        self.answers: AuditAnswers

    async def client(self) -> RegistryClient:
        return self.client_

    async def verdict(self, image: Reference, by: Policy) -> PolicyVerdict | Unknown:
        question = Question(image, by.name)
        found = await self.answers.find_out({by.name: by}, [question], [])
        return found.verdicts[question]

    async def is_part(self, image: Reference, other: str, reported: Reference | None) -> bool | Unknown:
        question = PartQuestion(image, other, reported)
        return (await self.answers.find_out({}, [], [question])).parts[question]


@pytest.fixture
async def bench(faulty_client: RegistryClient) -> AsyncIterator[Bench]:
    async with kube_api_server() as (_, api):
        bench = Bench(faulty_client)
        store = AuthorityStore(api, "edgemodel-system", lambda: bench.now)
        bench.answers = AuditAnswers(PolicyVerifier(store), bench, lambda: bench.now)
        yield bench


@pytest.fixture
def repository(faulty: FaultyRegistry, request: pytest.FixtureRequest) -> Reference:
    return Reference(faulty.host, f"audit/n{sha256(request.node.name.encode())[:12]}")


@pytest.fixture
async def image(bench: Bench, repository: Reference) -> PushedImage:
    return await push_image(bench.client_, repository)


async def test_a_trusted_image_is_asked_for_once_a_day(
    bench: Bench, image: PushedImage, faulty: FaultyRegistry
) -> None:
    await sign_image(bench.client_, image.index, [OLD])
    found = await bench.verdict(image.index, policy(OLD))
    assert isinstance(found, PolicyVerdict)
    assert found.trusted
    faulty.faults.append(fail_times(10_000, 503))
    bench.now += KEEP_TRUSTED_SECONDS - 1
    assert await bench.verdict(image.index, policy(OLD)) == found
    bench.now += 1
    assert isinstance(await bench.verdict(image.index, policy(OLD)), Unknown)


async def test_a_signature_that_comes_later_counts_a_minute_later(bench: Bench, image: PushedImage) -> None:
    found = await bench.verdict(image.index, policy(OLD))
    assert isinstance(found, PolicyVerdict)
    assert (found.trusted, found.reason) == (False, "Unsigned")
    await sign_image(bench.client_, image.index, [OLD])
    bench.now += KEEP_UNTRUSTED_SECONDS
    again = await bench.verdict(image.index, policy(OLD))
    assert isinstance(again, PolicyVerdict)
    assert again.trusted


async def test_case_67_a_key_that_is_removed_takes_the_kept_verdict_along(
    bench: Bench, image: PushedImage, repository: Reference
) -> None:
    await sign_image(bench.client_, image.index, [OLD])
    both = await push_image(bench.client_, repository, b"signed by both")
    await sign_image(bench.client_, both.index, [OLD, NEW])
    for by, expected in ((policy(OLD, NEW), (True, True)), (policy(NEW), (False, True))):
        verdicts = [await bench.verdict(one.index, by) for one in (image, both)]
        assert tuple(isinstance(one, PolicyVerdict) and one.trusted for one in verdicts) == expected
    refused = await bench.verdict(image.index, policy(NEW))
    assert isinstance(refused, PolicyVerdict)
    assert refused.reason == "UnknownKey"


async def test_a_registry_that_fails_says_nothing_about_trust(
    bench: Bench, image: PushedImage, faulty: FaultyRegistry
) -> None:
    faulty.faults.append(fail_times(10_000, 500))
    assert isinstance(await bench.verdict(image.index, policy(OLD)), Unknown)
    faulty.faults.clear()
    found = await bench.verdict(image.index, policy(OLD))
    assert isinstance(found, PolicyVerdict)
    assert found.reason == "Unsigned"


async def test_an_image_that_its_registry_does_not_have_is_unknown(bench: Bench, image: PushedImage) -> None:
    gone = image.index.with_digest(f"sha256:{'0' * 64}")
    found = await bench.verdict(gone, policy(OLD))
    assert isinstance(found, Unknown)
    assert "is not in its registry" in found.why


async def test_a_registry_that_does_not_answer_is_given_up_for_one_audit(
    bench: Bench, repository: Reference, faulty: FaultyRegistry
) -> None:
    faulty.faults.append(fail_times(10_000, 500))
    by = policy(OLD)
    many = [Question(repository.with_digest(f"sha256:{number:064x}"), by.name) for number in range(40)]
    found: Answers = await bench.answers.find_out({by.name: by}, many, [])
    assert all(isinstance(one, Unknown) for one in found.verdicts.values())
    asked = {path for _, path, _ in faulty.seen if "/manifests/" in path}
    assert GIVE_UP_AFTER <= len(asked) < 2 * GIVE_UP_AFTER + 4


async def test_a_platform_and_its_configuration_are_parts_of_an_index(
    bench: Bench, image: PushedImage, repository: Reference
) -> None:
    other = await push_image(bench.client_, repository, b"another image")
    platform = image.children[0]
    manifest = parse_manifest((await bench.client_.get_manifest(platform)).body)
    assert await bench.is_part(image.index, str(platform.digest), platform) is True
    assert await bench.is_part(image.index, manifest.config.digest, None) is True
    assert await bench.is_part(image.index, other.digest, other.index) is False
    assert await bench.is_part(image.index, str(other.children[0].digest), other.children[0]) is False
    assert await bench.is_part(image.index, f"sha256:{'0' * 64}", None) is False
    gone = image.index.with_digest(f"sha256:{'0' * 64}")
    assert await bench.is_part(image.index, str(gone.digest), gone) is False


async def test_an_index_that_shares_a_platform_is_recognized_by_its_configuration(
    bench: Bench, image: PushedImage, repository: Reference
) -> None:
    """A node names what it runs by the digest under which it met the content first."""
    alone = repository.with_digest(
        (
            await bench.client_.put_manifest(
                repository.with_tag("alone"), make_index(image.platforms[:1]), OCI_INDEX
            )
        ).descriptor.digest
    )
    assert await bench.is_part(image.index, str(alone.digest), alone) is True


async def test_a_registry_that_only_the_node_names_is_never_asked(
    bench: Bench, image: PushedImage, registry: RegistryServer
) -> None:
    """Whoever holds a node writes its reports: they must not send the operator anywhere."""
    elsewhere = Reference("127.0.0.1:9", "x/y", digest=f"sha256:{'0' * 64}")
    assert await bench.is_part(image.index, str(elsewhere.digest), elsewhere) is False
    same_content = Reference(registry.host, image.index.repository, digest=image.digest)
    other = await push_image(bench.client_, image.index, b"another image")
    assert await bench.is_part(other.index, str(same_content.digest), same_content) is False


async def test_what_cannot_be_read_of_parts_is_unknown(
    bench: Bench, image: PushedImage, faulty: FaultyRegistry
) -> None:
    faulty.faults.append(fail_times(10_000, 500))
    assert isinstance(await bench.is_part(image.index, f"sha256:{'0' * 64}", None), Unknown)
