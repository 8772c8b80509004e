"""The steps of a verification, as people see them: each that was made, and at which one it ended."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgemodel_operator.oci.reference import Reference
from edgemodel_operator.oci.registry import RegistryClient
from edgemodel_operator.signing.attest import Attestation, attest_digest
from edgemodel_operator.signing.demand import Authority, Demand, PredicateCheck, WantedAttestation
from edgemodel_operator.signing.keys import LocalKey
from edgemodel_operator.signing.sign import sign_image
from edgemodel_operator.signing.verdict import CHECKED, Format, Outcome, Step, Verdict
from edgemodel_operator.signing.verify import verify_image
from support.registry import RegistryServer
from support.signed_images import PushedImage, push_image

KEY, OTHER = (LocalKey(ec.generate_private_key(ec.SECP256R1())) for _ in range(2))
PLANT, QA = Authority("plant", (KEY.public_key,)), Authority("qa", (OTHER.public_key,))
TESTS = "https://plant-a.local/tests/v1"
PASSED = WantedAttestation("tests", TESTS, checks=(PredicateCheck("predicate.passed", "the test failed"),))


@pytest.fixture
async def image(
    client: RegistryClient, registry: RegistryServer, request: pytest.FixtureRequest
) -> PushedImage:
    name = request.node.name.replace("_", "-").lower()
    return await push_image(client, Reference(registry.host, f"steps/{name}"))


async def attest(client: RegistryClient, image: PushedImage, predicate: bytes) -> None:
    subject = await client.head_manifest(image.index)
    assert subject is not None
    said = Attestation(TESTS, predicate)
    await attest_digest(client, image.index, subject, [said], [KEY], [Format.LEGACY])


def walked(verdict: Verdict) -> list[tuple[int, Outcome]]:
    assert all(step.checked == CHECKED[step.number] for step in verdict.steps)
    return [(step.number, step.outcome) for step in verdict.steps]


def at(verdict: Verdict, number: int) -> list[Step]:
    return [step for step in verdict.steps if step.number == number]


async def test_a_trusted_image_has_gone_through_every_step(
    client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(client, image.index, [KEY, OTHER], formats=[Format.LEGACY])
    await attest(client, image, b'{"passed":true}')
    demand = Demand((PLANT,), attestations=(PASSED,))
    verdict = await verify_image(client, image.index, demand)
    assert walked(verdict) == [
        (1, Outcome.HOLDS),
        (2, Outcome.HOLDS),
        (3, Outcome.HOLDS),
        (4, Outcome.HOLDS),
        (5, Outcome.IGNORED),
        (8, Outcome.HOLDS),
        (9, Outcome.HOLDS),
        (10, Outcome.HOLDS),
        (11, Outcome.HOLDS),
        (12, Outcome.HOLDS),
    ]
    (signature,) = at(verdict, 8)
    assert "Legacy signature by plant" in signature.detail
    assert KEY.public_key.fingerprint in signature.detail
    assert at(verdict, 12)[0].detail == "vouched for by plant"


async def test_platforms_that_are_asked_for_have_steps_of_their_own(
    client: RegistryClient, image: PushedImage
) -> None:
    await sign_image(client, image.index, [KEY], formats=[Format.LEGACY])
    verdict = await verify_image(client, image.index, Demand((PLANT,), platforms_signed=True))
    assert [step.detail for step in at(verdict, 9)] == list(image.digests)
    assert at(verdict, 10)[0].detail == "2 signed themselves"
    assert walked(verdict)[-2:] == [(11, Outcome.NOT_ASKED), (12, Outcome.HOLDS)]


async def test_an_untrusted_image_ends_at_the_step_that_fails(
    client: RegistryClient, image: PushedImage
) -> None:
    unsigned = await verify_image(client, image.index, Demand((PLANT,)))
    assert walked(unsigned)[-2:] == [(4, Outcome.HOLDS), (9, Outcome.FAILS)]
    await sign_image(client, image.index, [OTHER], formats=[Format.LEGACY])
    unknown = await verify_image(client, image.index, Demand((PLANT,)))
    assert walked(unknown)[-2:] == [(5, Outcome.IGNORED), (9, Outcome.FAILS)]
    await sign_image(client, image.index, [KEY], formats=[Format.LEGACY])
    few = await verify_image(client, image.index, Demand((PLANT, QA, Authority("lab")), threshold=3))
    assert walked(few)[-1] == (9, Outcome.FAILS)
    assert "2 of the 3 different authorities" in few.steps[-1].detail
    await attest(client, image, b'{"passed":false}')
    failed = await verify_image(client, image.index, Demand((PLANT,), attestations=(PASSED,)))
    assert walked(failed)[-1] == (11, Outcome.FAILS)
    assert "the test failed (it gives False)" in failed.steps[-1].detail


async def test_what_is_no_digest_or_has_nobody_to_vouch_ends_at_once(
    client: RegistryClient, image: PushedImage
) -> None:
    tagged = await verify_image(client, image.index.with_tag("latest"), Demand((PLANT,)))
    assert walked(tagged) == [(1, Outcome.FAILS)]
    nobody = await verify_image(client, image.index, Demand((Authority("plant"),)))
    assert walked(nobody) == [(1, Outcome.HOLDS), (2, Outcome.FAILS)]
